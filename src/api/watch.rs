//! Watches: the registry's steps as events of the API, and as bytes.
//!
//! What a watcher is told, thousands of others may be told in the same words: an event's bytes are made for the first of
//! them and shared by all (`Entry::encoded`). So the gRPC call has a codec of its own, and server-sent events are written
//! here.

use std::{convert::Infallible, pin::Pin, time::Duration};

use axum::{
    body::Body,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes};
use convoy_client::proto::{self, WatchChange, WatchKind};
use futures_util::{Stream, StreamExt, stream::unfold};
use prost::Message;
use tokio::{runtime::Handle, time::timeout};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use super::{Api, error::Problem, optional};
use crate::{
    model::{
        Namespace, ServiceName,
        selector::instance::{InstanceSelector, Knows},
        wire,
    },
    registry::watch::{Filter, Form, Seen, Step, Token, Watch, changes::Aspect, merge::Told},
};

/// A comment goes down an idle event stream this often, so that both ends know that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_COMMENT: &[u8] = b":\n\n";

/// A watch of the API.
#[derive(Debug)]
pub(super) struct Watching {
    api: Api,
    watch: Watch,
}

impl Api {
    pub(super) async fn watch(&self, request: &proto::WatchRequest) -> Result<Watching, Problem> {
        let filter = Filter {
            namespace: optional(&request.namespace, |name| Namespace::parse("namespace", name))?,
            service: optional(&request.service, |name| ServiceName::parse("service", name))?,
            selector: optional(&request.selector, |text| InstanceSelector::parse("selector", text, Knows::Stored))?,
        };
        let resume = (!request.resume.is_empty()).then_some(request.resume.as_str());
        if let Some(token) = resume {
            self.registry.catch_up_with(token).await;
        }
        let watch = self.registry.watch(filter, resume)?;
        Ok(Watching { api: self.clone(), watch })
    }

    fn watch_event(&self, step: &Step, token: Token) -> proto::WatchEvent {
        let mut event = proto::WatchEvent {
            token: self.registry.token(token),
            revision: token.revision().0,
            ..proto::WatchEvent::default()
        };
        let kind = match step {
            Step::Reset => WatchKind::Reset,
            Step::Synced => WatchKind::Synced,
            Step::Bookmark => WatchKind::Bookmark,
            Step::Present(instance) => {
                event.revision = instance.revision.0;
                event.instance = Some(self.instance(instance));
                WatchKind::Added
            }
            Step::Happened(told) => {
                event.revision = told.entry.event.revision.0;
                event.instance = Some(self.instance(&told.entry.event.instance));
                match told.seen {
                    Seen::Added => WatchKind::Added,
                    Seen::Changed(changes) => {
                        event.changes = changes.iter().map(|aspect| change(aspect).into()).collect();
                        WatchKind::Changed
                    }
                    Seen::Left => WatchKind::Left,
                    Seen::Removed(cause) => {
                        event.cause = wire::cause(cause).into();
                        WatchKind::Removed
                    }
                }
            }
        };
        event.kind = kind.into();
        event
    }

    fn watch_bytes(&self, form: Form, step: &Step, token: Token) -> Bytes {
        let make = || write(form, &self.watch_event(step, token));
        match step {
            Step::Happened(told) if is_common(told, token) => told.entry.encoded(form, told.seen, make),
            _ => make(),
        }
    }
}

/// Whether it is told in the same words to all who see it so: one that was merged is not.
fn is_common(told: &Told, token: Token) -> bool {
    let merged = matches!(told.seen, Seen::Changed(changes) if changes != told.entry.changes());
    token == Token::At(told.entry.position) && !merged
}

fn change(aspect: Aspect) -> WatchChange {
    match aspect {
        Aspect::Health => WatchChange::Health,
        Aspect::Weight => WatchChange::Weight,
        Aspect::Metadata => WatchChange::Metadata,
        Aspect::Address => WatchChange::Address,
        Aspect::Registration => WatchChange::Registration,
    }
}

fn write(form: Form, event: &proto::WatchEvent) -> Bytes {
    match form {
        Form::Message => event.encode_to_vec().into(),
        Form::Text => {
            // The API's own messages can always be written.
            let json = serde_json::to_string(event).unwrap_or_default();
            format!("event: {}\nid: {}\ndata: {json}\n\n", event.kind(), event.token).into()
        }
    }
}

impl Watching {
    /// The messages of a gRPC stream. They are handed over where the connection is written, without a task between: an
    /// event for ten thousand is dear enough. What takes longer than that is done by those threads.
    pub(super) fn messages(self, threads: Handle) -> impl Stream<Item = Bytes> + Send {
        unfold((self, threads), |(mut watching, threads)| async move {
            loop {
                if let Some((step, token)) = watching.watch.next_unless_work().await? {
                    let message = watching.api.watch_bytes(Form::Message, &step, token);
                    return Some((message, (watching, threads)));
                }
                let work = async move {
                    watching.watch.work().await;
                    watching
                };
                watching = threads.spawn(work).await.ok()?;
            }
        })
    }

    /// Server-sent events: `event` is the kind, `id` the token, `data` the event.
    fn texts(self) -> impl Stream<Item = Bytes> + Send {
        unfold(self, |mut watching| async move {
            let text = match timeout(KEEP_ALIVE, watching.watch.next()).await {
                Ok(Some((step, token))) => watching.api.watch_bytes(Form::Text, &step, token),
                Ok(None) => return None,
                Err(_) => Bytes::from_static(KEEP_ALIVE_COMMENT),
            };
            Some((text, watching))
        })
    }

    /// The answer over HTTP, until something ends it.
    pub(super) fn event_stream(self, until: impl Future<Output = ()> + Send + 'static) -> Response {
        let texts = self.texts().map(Ok::<_, Infallible>).take_until(Box::pin(until));
        let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(texts)).into_response()
    }
}

/// Requests are read, answers are bytes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Messages;

impl Codec for Messages {
    type Encode = Bytes;
    type Decode = proto::WatchRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<proto::WatchRequest>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

pub(super) type MessageStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
