//! Assignments: the endpoints of a service's port, by locality.
//!
//! | verdict             | in EDS   |
//! | ------------------- | -------- |
//! | healthy             | HEALTHY  |
//! | draining            | DRAINING |
//! | starting, unhealthy | left out |
//!
//! Weight 0 is left out too. UNHEALTHY is never sent. Localities and endpoints come in a stable order, each address
//! once (the registry sees to it), and a locality's weight is the sum of its endpoints' (gRPC leaves out a locality
//! without one). An instance's endpoint is encoded on its own, and an assignment is put together from such pieces; the
//! pieces are not kept yet.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::envoy::config::{
    core::v3::{
        Address, HealthStatus, Locality as EnvoyLocality, SocketAddress, address, socket_address::PortSpecifier,
    },
    endpoint::v3::{Endpoint, LbEndpoint, lb_endpoint::HostIdentifier},
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{Built, names::parse_cluster, number};
use crate::{
    model::{Instance, Locality, Port, PortName, Verdict},
    registry::state::{ServiceState, Snapshot},
};

/// The assignment of a known service is never absent: without endpoints it is empty.
pub fn build(name: &str, snapshot: &Snapshot) -> Option<Built> {
    let (key, port) = parse_cluster(name)?;
    let state = snapshot.services.get(&key)?;
    let service = &state.service.value;
    let port = match &port {
        Some(port) if *port == service.default_port || !service.ports.contains_key(port) => return None,
        Some(port) => port,
        None => &service.default_port,
    };
    Some(Built { bytes: assignment(name, state, port), service: Some(state.owner()), ..Built::default() })
}

#[derive(Default)]
struct Group {
    endpoints: Vec<u8>,
    weight: u32,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`, field by field, from encoded endpoints.
fn assignment(name: &str, state: &ServiceState, port: &PortName) -> Vec<u8> {
    let mut groups: BTreeMap<&Arc<Locality>, Group> = BTreeMap::new();
    for instance in state.instances.values() {
        let instance = &instance.value;
        let Some((endpoint, status)) = instance.port(port).zip(status(instance)) else { continue };
        let group = groups.entry(&instance.spec.locality).or_default();
        let endpoint = self::endpoint(instance, endpoint, status);
        put_bytes(2, &endpoint, &mut group.endpoints);
        group.weight = group.weight.saturating_add(instance.spec.weight.into());
    }
    let mut bytes = Vec::new();
    put_bytes(1, name.as_bytes(), &mut bytes);
    for (locality, group) in groups {
        put_bytes(2, &locality_endpoints(locality, &group), &mut bytes);
    }
    bytes
}

/// `envoy.config.endpoint.v3.LocalityLbEndpoints`.
fn locality_endpoints(locality: &Locality, group: &Group) -> Vec<u8> {
    let locality = EnvoyLocality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    };
    let mut bytes = Vec::with_capacity(group.endpoints.len() + 128);
    put_bytes(1, &locality.encode_to_vec(), &mut bytes);
    bytes.extend_from_slice(&group.endpoints);
    put_bytes(3, &number(group.weight).unwrap_or_default().encode_to_vec(), &mut bytes);
    bytes
}

fn put_bytes(field: u32, value: &[u8], into: &mut Vec<u8>) {
    into.reserve(key_len(field) + encoded_len_varint(value.len() as u64) + value.len());
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(value.len() as u64, into);
    into.extend_from_slice(value);
}

fn status(instance: &Instance) -> Option<HealthStatus> {
    match instance.health().verdict {
        _ if instance.spec.weight == 0 => None,
        Verdict::Starting | Verdict::Unhealthy => None,
        Verdict::Healthy => Some(HealthStatus::Healthy),
        Verdict::Draining => Some(HealthStatus::Draining),
    }
}

fn endpoint(instance: &Instance, port: &Port, status: HealthStatus) -> Vec<u8> {
    let address = Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: instance.spec.address.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(port.number.into())),
            ..Default::default()
        })),
    };
    LbEndpoint {
        health_status: status.into(),
        load_balancing_weight: number(instance.spec.weight.into()),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint { address: Some(address), ..Default::default() })),
        ..Default::default()
    }
    .encode_to_vec()
}
