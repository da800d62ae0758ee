//! A watch through either face: events in the API's own form.

use std::{collections::BTreeMap, pin::Pin};

use convoy_client::proto::{Instance, WatchEvent, WatchKind, WatchRequest};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming};
use tonic::Streaming;

use super::{
    api::{Api, Face, Refused, refused, refused_http},
    http::Answer,
    within,
};

/// One stream of events.
#[derive(Debug)]
pub enum Watch {
    Http(Box<EventStream>),
    Grpc(Box<Streaming<WatchEvent>>),
}

impl Watch {
    /// Opens a watch; over HTTP it resumes by `Last-Event-ID`.
    pub async fn open(api: &Api, face: Face, request: WatchRequest) -> Result<Self, Refused> {
        match face {
            Face::Grpc => match within("a watch", api.registry.clone().watch(request)).await {
                Ok(stream) => Ok(Self::Grpc(Box::new(stream.into_inner()))),
                Err(status) => Err(refused(&status)),
            },
            Face::Http => EventStream::open(api, &request).await.map(|stream| Self::Http(Box::new(stream))),
        }
    }

    pub async fn all(api: &Api, face: Face) -> Self {
        Self::open(api, face, WatchRequest::default()).await.expect("a watch")
    }

    pub async fn next(&mut self) -> WatchEvent {
        self.unbroken().await.expect("the stream goes on")
    }

    /// The next event; none if the stream broke.
    pub async fn unbroken(&mut self) -> Option<WatchEvent> {
        within("an event", self.whenever()).await.ok()
    }

    /// The next event, however long it takes, or why there is none.
    pub async fn whenever(&mut self) -> Result<WatchEvent, String> {
        let ended = || "the stream has ended".to_owned();
        match self {
            Self::Http(stream) => stream.unbroken().await.ok_or_else(ended),
            Self::Grpc(stream) => stream.message().await.map_err(|status| format!("{status:?}"))?.ok_or_else(ended),
        }
    }

    /// The next event, as kind and instance id.
    pub async fn told(&mut self) -> (WatchKind, String) {
        let event = self.next().await;
        (event.kind(), event.instance.map(|instance| instance.id).unwrap_or_default())
    }

    /// Everything up to and with `synced`.
    pub async fn synced(&mut self) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        loop {
            events.push(self.next().await);
            if events.last().is_some_and(|event| event.kind() == WatchKind::Synced) {
                return events;
            }
        }
    }
}

/// Server-sent events.
#[derive(Debug)]
pub struct EventStream {
    body: Pin<Box<Incoming>>,
    text: String,
}

impl EventStream {
    async fn open(api: &Api, request: &WatchRequest) -> Result<Self, Refused> {
        let selector: String = request.selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/v1/watch?namespace={}&service={}&selector={selector}", request.namespace, request.service);
        let mut builder = Request::builder().uri(path).header("host", "convoy");
        if !request.resume.is_empty() {
            builder = builder.header("last-event-id", &request.resume);
        }
        let request = builder.body(Full::default()).expect("a valid request");
        let response = within("a watch", api.http.send(request)).await;
        let (status, kind) = (response.status().as_u16(), response.headers().get("content-type").cloned());
        let content_type = kind.and_then(|kind| kind.to_str().map(str::to_owned).ok()).unwrap_or_default();
        if status == 200 {
            assert_eq!(content_type, "text/event-stream");
            return Ok(Self { body: Box::pin(response.into_body()), text: String::new() });
        }
        let body = response.into_body().collect().await.expect("an answer").to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Err(refused_http(&Answer { status, content_type, text, stale: None }).expect_err("a refusal"))
    }

    async fn unbroken(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = parse(&event) {
                    return Some(event);
                }
                continue;
            }
            let frame = self.body.frame().await?.ok()?;
            let data = frame.into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }
}

/// An event; none for a comment. Its name and id are those of its data.
fn parse(text: &str) -> Option<WatchEvent> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let event: WatchEvent = serde_json::from_str(fields.get("data")?).expect("an event");
    assert_eq!(fields.get("event").copied(), Some(event.kind().to_string().as_str()), "{text}");
    assert_eq!(fields.get("id").copied(), Some(event.token.as_str()), "{text}");
    Some(event)
}

/// What a reader of events believes to be there. It fails when it is told what cannot be.
#[derive(Debug, Default, PartialEq)]
pub struct Belief(pub BTreeMap<(String, String, String), Instance>);

impl Belief {
    pub fn hear(&mut self, event: WatchEvent) {
        let kind = event.kind();
        if kind == WatchKind::Reset {
            self.0.clear();
        }
        let Some(instance) = event.instance else { return };
        let key = (instance.namespace.clone(), instance.service.clone(), instance.id.clone());
        let stays = matches!(kind, WatchKind::Added | WatchKind::Changed);
        let known = if stays { self.0.insert(key, instance) } else { self.0.remove(&key) };
        match kind {
            WatchKind::Added => assert_eq!(known, None, "added twice"),
            WatchKind::Changed => assert!(known.is_some() && !event.changes.is_empty(), "{:?}", event.changes),
            _ => assert!(known.is_some(), "{kind} of one that was not there"),
        }
    }
}
