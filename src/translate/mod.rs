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
pub mod rds;

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::google::protobuf::{Any, Duration, UInt32Value};
use prost::{Message, Name};

use self::names::{OUTBOUND, parse_authority, parse_cluster};
pub use crate::model::ResourceType;
use crate::{
    model::{Namespace, ServiceKey},
    registry::state::Snapshot,
};

/// What a proxy may see. Proxies with equal views share everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub namespace: Namespace,
    /// Where its outbound listener listens; none for a proxy without one.
    pub outbound: Option<SocketAddr>,
}

/// Which variant of a name: equal keys are equal resources, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Shared,
    /// As seen from a namespace, in which plain service names mean its own.
    Namespace(Namespace),
    Outbound(SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub kind: ResourceType,
    pub name: Arc<str>,
    pub scope: Scope,
}

impl View {
    /// The resource that a name means to this proxy.
    pub fn key(&self, kind: ResourceType, name: &Arc<str>) -> ResourceKey {
        let scope = match (kind, self.outbound) {
            (ResourceType::Listener, Some(address)) if **name == *OUTBOUND => Scope::Outbound(address),
            (ResourceType::Listener | ResourceType::Route, _) => Scope::Namespace(self.namespace.clone()),
            _ => Scope::Shared,
        };
        ResourceKey { kind, name: name.clone(), scope }
    }

    /// The names that a wildcard subscription means.
    pub fn wildcard(&self, kind: ResourceType, snapshot: &Snapshot) -> Vec<Arc<str>> {
        match kind {
            ResourceType::Cluster => snapshot.services.values().flat_map(|state| names::clusters_of(state)).collect(),
            ResourceType::Listener if self.outbound.is_some() => vec![OUTBOUND.into()],
            _ => Vec::new(),
        }
    }
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
        (ResourceType::Cluster | ResourceType::Endpoint, _) => parse_cluster(&key.name).map(|(service, _)| service),
        (ResourceType::Listener, Scope::Namespace(namespace)) => {
            parse_authority(&key.name, namespace).map(|(service, _)| service)
        }
        (ResourceType::Route, _) if *key.name == *OUTBOUND => return Dependency::Definitions,
        _ => None,
    };
    service.map_or(Dependency::Nothing, Dependency::Service)
}

/// A resource ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    pub bytes: Vec<u8>,
    /// The clusters that it sends traffic to.
    pub clusters: Vec<Arc<str>>,
}

/// Builds the resource that a key names; none if there is nothing of that name.
pub fn build(key: &ResourceKey, snapshot: &Snapshot) -> Option<Built> {
    match (key.kind, &key.scope) {
        (ResourceType::Cluster, _) => cds::build(&key.name, snapshot),
        (ResourceType::Endpoint, _) => eds::build(&key.name, snapshot),
        (ResourceType::Listener, Scope::Outbound(address)) => Some(lds::outbound(*address)),
        (ResourceType::Listener, Scope::Namespace(namespace)) => lds::api_listener(&key.name, namespace, snapshot),
        (ResourceType::Route, Scope::Namespace(namespace)) if *key.name == *OUTBOUND => {
            Some(rds::outbound(namespace, snapshot))
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
