//! An xDS resource that somebody wrote, in place of a generated one or beside them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{NodeSelector, ResourceType};

/// Under one type and name there may be several variants, for different proxies. A proxy gets the first whose selector
/// matches it, in the order of the variants' names; those without a selector come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawKey {
    pub kind: ResourceType,
    pub name: Arc<str>,
    /// Empty for the plain one.
    pub variant: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RawResource {
    /// The encoded message, exactly as it is sent.
    pub bytes: Bytes,
    /// Which proxies it is for; all if none.
    pub selector: Option<NodeSelector>,
    /// How long a client may keep it without hearing of it again.
    pub ttl: Option<Duration>,
    /// The clusters that it sends traffic to, read from the bytes.
    pub clusters: Vec<Arc<str>>,
}
