//! The words of the protocol: what goes into a session and comes out of it, and its limits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    full::Full,
    held::Base,
    name_set::NameSet,
    resource::{Resource, Version},
    subscription::Changed,
};
use crate::model::{ResourceType, Revision, UnixMillis};

/// How long changes are merged while a response has no ACK.
pub const ACK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a step waits for the ACK of the one before it.
pub const STEP_PATIENCE: Duration = Duration::from_secs(10);
/// A client that names more than this on one stream is refused.
pub const MAX_NAMES: usize = 200_000;
pub const MAX_NAME_BYTES: usize = 4096;
/// All names of a stream together: what one client can make Convoy keep.
pub const MAX_NAMES_MIB: usize = 64;
/// A response is split where the protocol allows it. gRPC clients refuse messages over 4 MiB unless told otherwise.
pub const RESPONSE_BYTES: usize = 3 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    StateOfTheWorld,
    Incremental,
}

impl Dialect {
    /// As the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => "state_of_the_world",
            Self::Incremental => "incremental",
        }
    }
}

/// Where the session looks resources up: what the proxy's view shows now.
pub trait Catalog {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Resource>>;
    /// All names of the wildcard.
    fn wildcard(&self, kind: ResourceType) -> Vec<Arc<str>>;
    fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool;

    // What sessions may share with each other. A catalog that shares nothing is as good, and slower.

    /// The set of names with this digest, if a session has it.
    fn shared_names(&self, _: ResourceType, _: u128) -> Option<Arc<NameSet>> {
        None
    }

    /// Offers a set of names to other sessions, or replaces it by one that is offered already.
    fn share_names(&self, _: ResourceType, _: &mut Arc<NameSet>) {}

    /// The table of this digest, if a session holds it.
    fn shared_base(&self, _: ResourceType, _: u128) -> Option<Arc<Base>> {
        None
    }

    fn share_base(&self, _: ResourceType, _: &Arc<Base>) {}

    /// All that a subscription means now, laid out once for whoever has nothing of it; without names, the wildcard.
    fn full(&self, kind: ResourceType, names: Option<&Arc<NameSet>>) -> Arc<Full> {
        Arc::new(match names {
            Some(names) => Full::of(names.iter().cloned(), |name| self.get(kind, name)),
            None => Full::of(self.wildcard(kind).into_iter(), |name| self.get(kind, name)),
        })
    }
}

/// What a client announces that it understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `xds.config.supports-resource-ttl`
    pub resource_ttl: bool,
    /// Errors for single resources, of xRFC TP3.
    pub resource_errors: bool,
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
    /// All names that are asked for now.
    pub names: Arc<NameSet>,
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
    #[error("resource names: they must be UTF-8")]
    NotText,
    #[error(
        "resource names: at most {MAX_NAMES} on one stream, each of at most {MAX_NAME_BYTES} bytes, \
             of {MAX_NAMES_MIB} MiB in all"
    )]
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
    /// Of the set, none before the first response.
    pub version_sent: Option<Version>,
    pub version_acked: Option<Version>,
    pub acked_at: Option<UnixMillis>,
    pub responses: u64,
    pub nacks: u64,
    pub last_nack: Option<Nack>,
    /// The last word on this type was a NACK.
    pub rejected: bool,
    pub pending: bool,
    /// Since which revision the client is behind, if it is.
    pub behind: Option<Revision>,
}
