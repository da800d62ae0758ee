//! A watch that outlives its streams: it remembers the token of the last event and goes on from there.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;

use crate::{
    Client, Error,
    backoff::Backoff,
    proto::{WatchEvent, WatchRequest},
};

/// Events of the registry, for ever. Made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    /// What to ask for next: its `resume` is the token of the last event seen.
    request: WatchRequest,
    stream: Option<Streaming<WatchEvent>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(client: Client, request: WatchRequest) -> Self {
        Self { client, request, stream: None, backoff: Backoff::default(), not_before: None }
    }

    /// The next event. Dropping the future loses no event.
    ///
    /// # Errors
    /// A temporary error tells that the stream broke; call again to go on after the last event seen. That call waits
    /// first, 50 ms to 5 s, longer each time. Any other error is final.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        let event = self.read().await;
        match &event {
            Ok(event) => {
                self.backoff.reset();
                self.request.resume.clone_from(&event.token);
            }
            Err(_) => {
                self.stream = None;
                self.not_before = Some(Instant::now() + self.backoff.failed(Duration::MAX, rand::random()));
            }
        }
        event
    }

    async fn read(&mut self) -> Result<WatchEvent, Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                if let Some(not_before) = self.not_before {
                    tokio::time::sleep_until(not_before).await;
                }
                let stream = self.client.open_watch(self.request.clone()).await?;
                self.stream.insert(stream)
            }
        };
        stream.message().await?.ok_or_else(|| Error::Unavailable("the server ended the watch".into()))
    }
}
