//! One xDS resource: type, name, version, bytes. Encoded once, when it changes; every stream writes the same bytes.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use prost::{
    Message, decode_length_delimiter,
    encoding::{WireType, encode_key, encode_varint},
    length_delimiter_len,
};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::translate::{Built, ResourceType};

/// The hash of a resource's bytes: equal on every replica and after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

impl Version {
    /// None for a text that is not exactly what a version of ours looks like.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let ours = text.len() == 32 && text.bytes().all(digit);
        ours.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
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
    /// Somebody wrote it: it may lead to clusters that the client has of its own.
    pub raw: bool,
    /// When this content was first seen.
    pub since: Instant,
    /// How long a client may keep it without hearing of it again.
    pub ttl: Option<Duration>,
    /// As an element of `DeltaDiscoveryResponse.resources`, key and length included.
    incremental: Bytes,
    /// Its tail, which is an element of `DiscoveryResponse.resources`: both fields have the number 2, and so has the
    /// `Any` inside a `Resource`, which is written last for that.
    state_of_the_world: Bytes,
}

impl Resource {
    pub fn new(kind: ResourceType, name: Arc<str>, built: Built) -> Self {
        // Without a TTL the seed is zero: the plain hash.
        let seed = built.ttl.map_or(0, |ttl| ttl.as_nanos() as u64);
        let version = Version(xxh3_128_with_seed(&built.bytes, seed));
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
        let (since, clusters, ttl) = (Instant::now(), built.clusters, built.ttl);
        Self { kind, name, version, clusters, raw: built.raw, since, ttl, incremental, state_of_the_world }
    }

    /// One that a client says that it has, in a version that Convoy has not: nothing else is known of it.
    pub fn of_version(kind: ResourceType, name: Arc<str>, version: Version) -> Self {
        let (clusters, ttl) = (Vec::new(), None);
        let (incremental, state_of_the_world) = (Bytes::new(), Bytes::new());
        Self { kind, name, version, clusters, raw: false, since: Instant::now(), ttl, incremental, state_of_the_world }
    }

    /// Whether its content is known, and not only its version.
    pub fn is_known(&self) -> bool {
        !self.incremental.is_empty()
    }

    pub fn incremental(&self) -> &Bytes {
        &self.incremental
    }

    pub fn state_of_the_world(&self) -> &Bytes {
        &self.state_of_the_world
    }

    /// The encoded resource, without its type.
    pub fn body(&self) -> Bytes {
        let any = element_value(&self.state_of_the_world);
        // The `Any`'s value is its last field, after the type.
        let head = 1 + length_delimiter_len(self.kind.type_url().len()) + self.kind.type_url().len();
        element_value(&any.slice(head.min(any.len())..))
    }

    /// As `incremental`, with its TTL if it has one.
    pub fn with_ttl(&self) -> Bytes {
        let Some(ttl) = self.ttl else { return self.incremental.clone() };
        let mut resource = element_value(&self.incremental).to_vec();
        put_ttl(ttl, &mut resource);
        let mut element = Vec::with_capacity(resource.len() + 8);
        put(2, &resource, &mut element);
        element.into()
    }

    /// `envoy.service.discovery.v3.Resource` without a body: keep what you have for another TTL.
    pub fn heartbeat(&self) -> Vec<u8> {
        let mut resource = Vec::with_capacity(self.name.len() + 64);
        put(1, self.version.to_string().as_bytes(), &mut resource);
        put(3, self.name.as_bytes(), &mut resource);
        if let Some(ttl) = self.ttl {
            put_ttl(ttl, &mut resource);
        }
        resource
    }
}

fn put_ttl(ttl: Duration, into: &mut Vec<u8>) {
    let ttl = prost_types::Duration::try_from(ttl).unwrap_or_default();
    put(6, &ttl.encode_to_vec(), into);
}

/// The value of one length-delimited field with a number under 16.
fn element_value(element: &Bytes) -> Bytes {
    let mut rest = element.clone();
    if rest.is_empty() {
        return rest;
    }
    rest.advance(1);
    match decode_length_delimiter(&mut rest) {
        Ok(_) => rest,
        Err(_) => Bytes::new(),
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
    #[test]
    fn both_dialects_read_the_same_bytes() {
        let built = Built { bytes: b"\x0a\x03web".to_vec(), ..Built::default() };
        let resource = Resource::new(ResourceType::Cluster, "web".into(), built.clone());
        let delta = DeltaDiscoveryResponse::decode(resource.incremental().clone()).expect("valid");
        let [one] = &delta.resources[..] else { panic!("one resource") };
        assert_eq!((&*one.name, Version::parse(&one.version)), ("web", Some(resource.version)));
        let whole = DiscoveryResponse::decode(resource.state_of_the_world().clone()).expect("valid");
        assert_eq!(whole.resources, [one.resource.clone().expect("a resource")]);
        assert_eq!(whole.resources[0].value, built.bytes);
        assert_eq!(*resource.body(), *built.bytes);
        assert_eq!(whole.resources[0].type_url, ResourceType::Cluster.type_url());
    }

    #[test]
    fn a_ttl_goes_to_who_asks_for_it() {
        let ttl = Some(Duration::from_millis(1500));
        let built = Built { bytes: b"\x0a\x03web".to_vec(), ttl, ..Built::default() };
        let resource = Resource::new(ResourceType::Cluster, "web".into(), built);
        let read = |bytes: Bytes| DeltaDiscoveryResponse::decode(bytes).expect("valid").resources.remove(0);
        let (without, with) = (read(resource.incremental().clone()), read(resource.with_ttl()));
        assert_eq!(without.ttl, None);
        let expected = with.ttl.expect("a TTL");
        assert_eq!((expected.seconds, expected.nanos, with.resource), (1, 500_000_000, without.resource));
        let mut heartbeat = Vec::new();
        put(2, &resource.heartbeat(), &mut heartbeat);
        let heartbeat = read(heartbeat.into());
        assert_eq!((&*heartbeat.name, heartbeat.resource, heartbeat.ttl), ("web", None, Some(expected)));
    }
}
