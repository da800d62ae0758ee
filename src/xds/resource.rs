//! One xDS resource: type, name, version, bytes. Encoded once, when it changes; every stream writes the same bytes.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use crate::translate::{Built, ResourceType};

/// The hash of a resource's bytes: equal on every replica and after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

impl Version {
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[derive(Debug)]
pub struct Resource {
    pub kind: ResourceType,
    pub name: Arc<str>,
    pub version: Version,
    /// The clusters that it sends traffic to.
    pub clusters: Vec<Arc<str>>,
    /// When this content was first seen.
    pub since: Instant,
    /// As an element of `DeltaDiscoveryResponse.resources`, key and length included.
    incremental: Bytes,
    /// Its tail, which is an element of `DiscoveryResponse.resources`: both fields have the number 2, and so has the
    /// `Any` inside a `Resource`, which is written last for that.
    state_of_the_world: Bytes,
}

impl Resource {
    pub fn new(kind: ResourceType, name: Arc<str>, built: Built) -> Self {
        let version = Version(xxh3_128(&built.bytes));
        let mut any = Vec::with_capacity(built.bytes.len() + 96);
        put(1, kind.type_url().as_bytes(), &mut any);
        put(2, &built.bytes, &mut any);
        let mut resource = Vec::with_capacity(any.len() + name.len() + 64);
        put(1, version.to_string().as_bytes(), &mut resource);
        put(3, name.as_bytes(), &mut resource);
        let head = resource.len();
        put(2, &any, &mut resource);
        let tail = resource.len() - head;
        let mut element = Vec::with_capacity(resource.len() + 8);
        put(2, &resource, &mut element);
        let incremental = Bytes::from(element);
        let state_of_the_world = incremental.slice(incremental.len() - tail..);
        let since = Instant::now();
        Self { kind, name, version, clusters: built.clusters, since, incremental, state_of_the_world }
    }

    pub fn incremental(&self) -> &Bytes {
        &self.incremental
    }

    pub fn state_of_the_world(&self) -> &Bytes {
        &self.state_of_the_world
    }
}

/// Appends one length-delimited protobuf field.
pub(super) fn put(field: u32, value: &[u8], into: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(value.len() as u64, into);
    into.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message;

    #[test]
    fn both_dialects_read_the_same_bytes() {
        let built = Built { bytes: b"\x0a\x03web".to_vec(), clusters: Vec::new() };
        let resource = Resource::new(ResourceType::Cluster, "web".into(), built.clone());
        let delta = DeltaDiscoveryResponse::decode(resource.incremental().clone()).expect("valid");
        let [one] = &delta.resources[..] else { panic!("one resource") };
        assert_eq!((&*one.name, Version::parse(&one.version)), ("web", Some(resource.version)));
        let whole = DiscoveryResponse::decode(resource.state_of_the_world().clone()).expect("valid");
        assert_eq!(whole.resources, [one.resource.clone().expect("a resource")]);
        assert_eq!(whole.resources[0].value, built.bytes);
        assert_eq!(whole.resources[0].type_url, ResourceType::Cluster.type_url());
    }
}
