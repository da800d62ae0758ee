//! Assignments: the endpoints of a service's port, by locality.
//!
//! | verdict             | in EDS   |
//! | ------------------- | -------- |
//! | healthy             | HEALTHY  |
//! | degraded, suspect   | DEGRADED |
//! | draining            | DRAINING |
//! | starting, unhealthy | left out |
//!
//! Suspects keep the status that they had when no endpoint would be HEALTHY without them, and when it is Convoy that is
//! blind: what it cannot see is no reason to change anything. Weight 0 is left out too. UNHEALTHY is never sent. Localities and endpoints come in a stable order, each address
//! once (the registry sees to it), and a locality's weight is the sum of its endpoints' (gRPC leaves out a locality
//! without one). Endpoints are written field by field into the assignment: that costs about as much as copying them
//! from a place where they were kept, and needs none.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::IpAddr,
    sync::Arc,
};

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality as EnvoyLocality};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{Built, names::parse_cluster, number};
use crate::{
    model::{BrakeScope, Instance, Locality, Port, PortName, Verdict},
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
    let with_port = || state.instances.values().filter_map(|of| Some((&*of.value, of.value.port(port)?)));
    let suspects = if with_port().any(|(of, _)| status(of, Suspects::Degraded) == Some(HealthStatus::Healthy)) {
        Suspects::Degraded
    } else {
        Suspects::AsBefore
    };
    for (instance, endpoint) in with_port() {
        let Some(status) = status(instance, suspects) else { continue };
        let weight = instance.weight();
        let group = groups.entry(&instance.spec.locality).or_default();
        put_endpoint(instance.spec.address, weight, endpoint, status, &mut group.endpoints);
        group.weight = group.weight.saturating_add(weight.into());
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

/// What suspects are told as.
#[derive(Clone, Copy)]
enum Suspects {
    Degraded,
    AsBefore,
}

fn status(instance: &Instance, suspects: Suspects) -> Option<HealthStatus> {
    let blind = instance.brake.is_some_and(|brake| matches!(brake.scope, BrakeScope::Blind | BrakeScope::Checks));
    let verdict = match (instance.verdict(), suspects) {
        (Verdict::Suspect, Suspects::AsBefore) => instance.verdict_before(),
        (Verdict::Suspect, _) if blind => instance.verdict_before(),
        (verdict, _) => verdict,
    };
    match verdict {
        _ if instance.spec.weight == 0 => None,
        Verdict::Starting | Verdict::Unhealthy => None,
        Verdict::Healthy => Some(HealthStatus::Healthy),
        Verdict::Degraded | Verdict::Suspect => Some(HealthStatus::Degraded),
        Verdict::Draining => Some(HealthStatus::Draining),
    }
}

/// `envoy.config.endpoint.v3.LbEndpoint`, as an element of its locality: `endpoint` (1) → `address` (1) →
/// `socket_address` (1) → `address` (2), `port_value` (3); `health_status` (2); `load_balancing_weight` (4).
fn put_endpoint(address: IpAddr, weight: u16, port: &Port, status: HealthStatus, into: &mut Vec<u8>) {
    let address = AddressText::new(address);
    let address = address.as_bytes();
    let (port, weight) = (u64::from(port.number), u64::from(weight));
    let socket = 1 + 1 + address.len() + 1 + encoded_len_varint(port);
    let (in_address, in_endpoint) = (socket + 2, socket + 4);
    let weight_len = 1 + encoded_len_varint(weight);
    // Every length is under 128, and so is one byte.
    let lb_endpoint = (in_endpoint + 2) + 2 + (2 + weight_len);
    into.extend_from_slice(&[0x12, lb_endpoint as u8]);
    into.extend_from_slice(&[0x0a, in_endpoint as u8, 0x0a, in_address as u8, 0x0a, socket as u8]);
    into.extend_from_slice(&[0x12, address.len() as u8]);
    into.extend_from_slice(address);
    into.push(0x18);
    encode_varint(port, into);
    into.extend_from_slice(&[0x10, status as u8, 0x22, weight_len as u8, 0x08]);
    encode_varint(weight, into);
}

/// The text of an address, without an allocation.
struct AddressText {
    bytes: [u8; 48],
    len: usize,
}

impl AddressText {
    fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 48], len: 0 };
        // The longest, an IPv4 address inside one of IPv6, has 45 letters.
        let _ = write!(text, "{address}");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for AddressText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortName, Protocol};
    use envoy_types::pb::envoy::config::{
        core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        endpoint::v3::{Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    };

    #[test]
    fn an_endpoint_is_written_as_its_message_is() {
        for (ip, number, weight, status) in [
            ("10.0.0.1", 80, 1, HealthStatus::Healthy),
            ("255.255.255.255", 65_535, 65_535, HealthStatus::Draining),
            ("::1", 1, 128, HealthStatus::Degraded),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 8_080, 100, HealthStatus::Healthy),
            ("::ffff:255.255.255.255", 127, 127, HealthStatus::Unknown),
        ] {
            let port = Port { name: PortName::parse("", "http").expect("a label"), number, protocol: Protocol::Http };
            let mut bytes = Vec::new();
            put_endpoint(ip.parse().expect("an address"), weight, &port, status, &mut bytes);
            let address = Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address: ip.into(),
                    port_specifier: Some(PortSpecifier::PortValue(number.into())),
                    ..Default::default()
                })),
            };
            let endpoint = LbEndpoint {
                health_status: status.into(),
                load_balancing_weight: super::super::number(weight.into()),
                host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                    address: Some(address),
                    ..Default::default()
                })),
                ..Default::default()
            };
            let locality = LocalityLbEndpoints::decode(&*bytes).expect("valid");
            assert_eq!(locality.lb_endpoints, [endpoint], "{ip}");
        }
    }
}
