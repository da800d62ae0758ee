//! The stream that heartbeats go through. A stream and not single calls, because its end tells at once that the server
//! went away, which a call would learn only when the next heartbeat is due.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Client, Error,
    proto::{HeartbeatRequest, HeartbeatResponse},
};

/// An open stream of heartbeats, with one heartbeat under way at most.
#[derive(Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
    client: Client,
}

impl Link {
    /// Opens a stream with its first heartbeat.
    pub(crate) async fn open(client: &Client, first: HeartbeatRequest) -> Result<(Self, HeartbeatResponse), Error> {
        let (requests, receiver) = mpsc::channel(1);
        // In the channel before the stream opens: a server may wait for the first message before it answers.
        requests.try_send(first).map_err(|_| closed())?;
        let answers = client.open_heartbeats(ReceiverStream::new(receiver)).await?;
        let mut link = Self { requests, answers, client: client.clone() };
        let answer = link.answer().await?;
        Ok((link, answer))
    }

    /// Sends a heartbeat and waits for its answer. After an error the link is of no more use.
    pub(crate) async fn heartbeat(&mut self, request: HeartbeatRequest) -> Result<HeartbeatResponse, Error> {
        self.requests.try_send(request).map_err(|_| closed())?;
        self.answer().await
    }

    /// Waits, while nothing is asked, until the stream ends. An answer to no question counts as an end. Cancel safe.
    pub(crate) async fn lost(&mut self) -> Error {
        match self.answers.message().await {
            Ok(_) => closed(),
            Err(status) => status.into(),
        }
    }

    async fn answer(&mut self) -> Result<HeartbeatResponse, Error> {
        let deadline = self.client.deadline();
        let answer =
            tokio::time::timeout(deadline, self.answers.message()).await.map_err(|_| Error::Deadline(deadline))?;
        answer?.ok_or_else(closed)
    }
}

fn closed() -> Error {
    Error::Unavailable("the server closed the stream of heartbeats".into())
}
