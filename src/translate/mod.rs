//! Translation: a service and its instances → its Envoy resources. Pure: a snapshot in, bytes out.
//!
//! A resource's name says what it is made of (`names`), so that any resource can be built from its key and the
//! registry's state alone, when somebody asks for it, and `depends_on` tells which changes concern it. Bytes are
//! deterministic, because a resource's version is their hash: what is emitted has no protobuf map with more than one
//! entry (the generated types keep maps in hash maps, which encode in random order); a test encodes everything twice.

pub mod cds;
pub mod eds;
mod http;
pub mod lds;
pub mod names;
mod raw;
pub mod rds;
mod view;

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::google::protobuf::{Any, Duration, UInt32Value};
use prost::{Message, Name};

use self::names::{parse_authority, parse_cluster};
pub use self::view::{Imports, View};
pub use crate::model::ResourceType;
use crate::{
    model::{Exports, Locality, Namespace, ServiceKey},
    registry::state::Snapshot,
};

/// Which variant of a name: equal keys are equal resources, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Shared,
    /// As seen from a namespace, in which plain service names mean its own.
    Namespace(Namespace),
    /// The routes to all services that a view shows.
    Routes(Namespace, Option<Arc<Imports>>),
    Outbound(SocketAddr),
    /// An assignment, as it is seen from somewhere.
    Seen(Vantage),
    /// A raw resource that is for some proxies only.
    Variant(Arc<str>),
}

/// From where an assignment is seen. What is seen from nowhere in particular, by an Envoy, is `Scope::Shared`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vantage {
    /// Region and zone, of a service with failover by locality.
    pub locality: Option<Arc<Locality>>,
    /// gRPC's own clients take HEALTHY endpoints only.
    pub grpc: bool,
}

impl Vantage {
    pub fn scope(self) -> Scope {
        if self == Self::default() { Scope::Shared } else { Scope::Seen(self) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub kind: ResourceType,
    pub name: Arc<str>,
    pub scope: Scope,
}

/// What a resource is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependency {
    Nothing,
    Service(ServiceKey),
    /// The definitions of all services, not their instances.
    Definitions,
}

pub fn depends_on(key: &ResourceKey) -> Dependency {
    let service = match (key.kind, &key.scope) {
        (_, Scope::Variant(_)) => None,
        (ResourceType::Cluster | ResourceType::Endpoint, _) => parse_cluster(&key.name).map(|(service, _)| service),
        (ResourceType::Listener, Scope::Namespace(namespace)) => {
            parse_authority(&key.name, namespace).map(|(service, _)| service)
        }
        (ResourceType::Route, Scope::Routes(..)) => return Dependency::Definitions,
        _ => None,
    };
    service.map_or(Dependency::Nothing, Dependency::Service)
}

/// A resource ready to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Built {
    pub bytes: Vec<u8>,
    /// The clusters that it sends traffic to.
    pub clusters: Vec<Arc<str>>,
    /// How long a client may keep it without hearing of it again. On nothing that is generated: Envoy would empty the
    /// mesh while Convoy is away.
    pub ttl: Option<std::time::Duration>,
    /// Somebody wrote it: it may lead to clusters that the client has of its own.
    pub raw: bool,
    /// Whose it is: only who may see that service may see it.
    pub service: Option<(ServiceKey, Exports)>,
}

/// Builds the resource that a key names; none if there is nothing of that name. What somebody wrote goes before what is
/// generated.
pub fn build(key: &ResourceKey, snapshot: &Snapshot) -> Option<Built> {
    if let Some(built) = raw::build(key, snapshot) {
        return Some(built);
    }
    match (key.kind, &key.scope) {
        (_, Scope::Variant(_)) => None,
        (ResourceType::Cluster, _) => cds::build(&key.name, snapshot),
        (ResourceType::Endpoint, Scope::Seen(vantage)) => eds::build(&key.name, vantage, snapshot),
        (ResourceType::Endpoint, _) => eds::build(&key.name, &Vantage::default(), snapshot),
        (ResourceType::Listener, Scope::Outbound(address)) => Some(lds::outbound(*address)),
        (ResourceType::Listener, Scope::Namespace(namespace)) => lds::api_listener(&key.name, namespace, snapshot),
        (ResourceType::Route, Scope::Routes(namespace, imports)) => {
            Some(rds::outbound(namespace, imports.as_deref(), snapshot))
        }
        _ => None,
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// Endpoints and clusters come over the stream that the client has already.
fn over_ads(initial_fetch_timeout: Option<Duration>) -> envoy_types::pb::envoy::config::core::v3::ConfigSource {
    use envoy_types::pb::envoy::config::core::v3::{
        AggregatedConfigSource, ApiVersion, ConfigSource, config_source::ConfigSourceSpecifier,
    };
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
