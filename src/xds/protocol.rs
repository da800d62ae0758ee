//! The words of the protocol: what goes into a session and comes out of it, and its limits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{resource::Resource, subscription::Changed};
use crate::{model::UnixMillis, translate::ResourceType};

/// How long changes are merged while a response has no ACK.
pub const ACK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a step waits for the ACK of the one before it.
pub const STEP_PATIENCE: Duration = Duration::from_secs(10);
/// A client that names more than this on one stream is refused.
pub const MAX_NAMES: usize = 200_000;
pub const MAX_NAME_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    StateOfTheWorld,
    Incremental,
}

/// Where the session looks resources up: what the proxy's view shows now.
pub trait Catalog {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Resource>>;
    /// All names of the wildcard.
    fn wildcard(&self, kind: ResourceType) -> Vec<Arc<str>>;
    fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool;
}

/// How much the registry can be believed after a start without stored state. Unknown is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Nobody has had time to register: only names that exist are answered, and only to new clients.
    Unknown,
    /// Somebody has registered: new clients get wildcards as well.
    Partial,
    Ready,
}

/// Everything about the present that a step depends on.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub at: Instant,
    pub unix: UnixMillis,
}

/// A response's parts, to be written one after the other. The resources' bytes are shared.
#[derive(Clone, Debug)]
pub struct Response {
    pub kind: Option<ResourceType>,
    pub chunks: Vec<Bytes>,
    /// It went without an ACK that it should have waited for.
    pub overdue: bool,
}

/// What a request asks of the index.
#[derive(Debug)]
pub struct Interest {
    pub kind: ResourceType,
    pub changed: Changed,
}

/// What a request said of an earlier response.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Accepted; how long after the change, if it was sent because of one.
    Ack(Option<Duration>),
    Nack,
}

/// What a request led to.
#[derive(Debug, Default)]
pub struct Received {
    pub interest: Option<Interest>,
    pub verdict: Option<(ResourceType, Verdict)>,
}

/// Why a stream ends: the client broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("type_url: it must be set")]
    NoType,
    #[error("type_url: {given:?} is not the type of this service, {expected}")]
    OtherType { given: String, expected: &'static str },
    #[error("resource names: at most {MAX_NAMES} on one stream, each of at most {MAX_NAME_BYTES} bytes")]
    TooMuch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Nack {
    pub message: String,
    pub version: String,
    pub resources: Vec<Arc<str>>,
    pub at: UnixMillis,
}

/// What is known of a type on a stream, for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeStatus {
    pub wildcard: bool,
    pub subscribed: usize,
    pub version_sent: String,
    pub version_acked: String,
    pub acked_at: Option<UnixMillis>,
    pub responses: u64,
    pub nacks: u64,
    pub last_nack: Option<Nack>,
    /// The last word on this type was a NACK.
    pub rejected: bool,
    pub pending: bool,
}
