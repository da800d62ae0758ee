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
//! blind: what it cannot see is no reason to change anything. gRPC's own clients take HEALTHY endpoints only: they are told
//! the degraded as HEALTHY at later priorities, and nothing of the draining, whose weight would count in their locality's
//! though they are given no calls. Weight 0 is left out too.
//!
//! With failover by locality the priority is how far an endpoint is from the proxy: its own zone, its own region,
//! elsewhere. Else all have one; a locality's weight being that of its endpoints, each gets its share wherever it is. UNHEALTHY is never sent. Localities and endpoints come in a stable order, each address
//! once (the registry sees to it), and a locality's weight is the sum of its endpoints' (gRPC leaves out a locality
//! without one). Endpoints are written field by field into the assignment: that costs about as much as copying them
//! from a place where they were kept, and needs none.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write},
    net::IpAddr,
    sync::Arc,
};

use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Locality as EnvoyLocality},
    endpoint::v3::cluster_load_assignment::Policy,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{Built, Vantage, names::parse_cluster, number};
use crate::{
    model::{BrakeScope, Instance, Locality, Port, PortName, Protocol, Verdict},
    registry::{
        command::Versioned,
        state::{ServiceState, Snapshot},
    },
};

/// The assignment of a known service is never absent: without endpoints it is empty.
pub fn build(name: &str, vantage: &Vantage, snapshot: &Snapshot) -> Option<Built> {
    let (key, port) = parse_cluster(name)?;
    let state = snapshot.services.get(&key)?;
    let service = &state.service.value;
    let port = match &port {
        Some(port) if *port == service.default_port || !service.ports.contains_key(port) => return None,
        Some(port) => port,
        None => &service.default_port,
    };
    let bytes = assignment(name, state, port, vantage);
    Some(Built { bytes, service: Some(state.owner()), ..Built::default() })
}

/// Endpoints of one locality and priority.
#[derive(Default)]
struct Group {
    endpoints: Vec<u8>,
    weight: u32,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`, field by field, from encoded endpoints.
fn assignment(name: &str, state: &ServiceState, port: &PortName, vantage: &Vantage) -> Vec<u8> {
    let endpoints = endpoints(state, port);
    let healthy = |(of, _): &(&Instance, &Port)| status(of, Suspects::Degraded) == Some(HealthStatus::Healthy);
    let suspects = if endpoints.iter().any(healthy) { Suspects::Degraded } else { Suspects::AsBefore };
    let near = vantage.locality.as_deref().zip(state.service.value.failover);
    let mut groups: BTreeMap<(u32, &Arc<Locality>), Group> = BTreeMap::new();
    let told = endpoints.into_iter().filter_map(|(of, port)| Some((of, port, status(of, suspects)?))).collect();
    let told = if state.service.value.is_virtual() { newest(told) } else { told };
    for (instance, endpoint, mut status) in told {
        let mut distance = near.map_or(0, |(from, _)| distance(from, &instance.spec.locality));
        if vantage.grpc && status == HealthStatus::Draining {
            continue;
        }
        if vantage.grpc && status == HealthStatus::Degraded {
            // Those that are not well come after all others: gRPC knows no other way to leave them for later.
            (status, distance) = (HealthStatus::Healthy, distance + DISTANCES);
        }
        let weight = instance.weight();
        let group = groups.entry((distance, &instance.spec.locality)).or_default();
        put_endpoint(instance.spec.address, weight, endpoint, status, &mut group.endpoints);
        group.weight = group.weight.saturating_add(weight.into());
    }
    let mut bytes = Vec::new();
    put_bytes(1, name.as_bytes(), &mut bytes);
    let (mut priority, mut last) = (0, None);
    for ((distance, locality), group) in groups {
        // Envoy takes priorities without gaps only.
        if last.is_some_and(|last| last != distance) {
            priority += 1;
        }
        last = Some(distance);
        put_bytes(2, &locality_endpoints(locality, priority, &group), &mut bytes);
    }
    if let Some((_, failover)) = near {
        let policy = Policy { overprovisioning_factor: number(failover.overprovisioning_factor), ..Policy::default() };
        put_bytes(4, &policy.encode_to_vec(), &mut bytes);
    }
    bytes
}

/// Who may be in a port's assignment.
fn endpoints<'a>(state: &'a ServiceState, port: &PortName) -> Vec<(&'a Instance, &'a Port)> {
    if !state.service.value.is_virtual() {
        let with_port = |of: &'a Versioned<Instance>| Some((&*of.value, of.value.port(port)?));
        return state.instances.values().filter_map(with_port).collect();
    }
    let protocol = state.service.value.ports.get(port).map(|port| port.protocol);
    let of_member = |of: &'a Versioned<Instance>| Some((&*of.value, member_port(&of.value, port, protocol?)?));
    state.all().filter_map(of_member).collect()
}

/// Each address once: of two services that have the same, the newest registration that can be told speaks for it.
fn newest<'a>(mut members: Vec<Told<'a>>) -> Vec<Told<'a>> {
    let mut newest: HashMap<(IpAddr, u16), &Instance> = HashMap::with_capacity(members.len());
    for (instance, port, _) in &members {
        let known = newest.entry((instance.spec.address, port.number)).or_insert(instance);
        if (known.registered_at, &known.key) < (instance.registered_at, &instance.key) {
            *known = instance;
        }
    }
    members.retain(|(instance, port, _)| newest[&(instance.spec.address, port.number)].key == instance.key);
    members
}

/// An endpoint, and as what it is told.
type Told<'a> = (&'a Instance, &'a Port, HealthStatus);

/// The port of a member that a virtual service's port means: that of its name if it speaks the same; if there is none of that
/// name, the only one of its protocol.
fn member_port<'a>(instance: &'a Instance, port: &PortName, protocol: Protocol) -> Option<&'a Port> {
    if let Some(named) = instance.port(port) {
        return Some(named).filter(|named| named.protocol == protocol);
    }
    let mut of_protocol = instance.spec.ports.iter().filter(|port| port.protocol == protocol);
    of_protocol.next().filter(|_| of_protocol.next().is_none())
}

/// The port by which an instance is in the assignment of a service's port.
pub fn endpoint_port<'a>(state: &ServiceState, port: &PortName, instance: &'a Instance) -> Option<&'a Port> {
    match state.service.value.ports.get(port) {
        Some(fixed) if state.service.value.is_virtual() => member_port(instance, port, fixed.protocol),
        _ => instance.port(port),
    }
}

/// How many distances there are.
const DISTANCES: u32 = 3;

/// The same zone, the same region, elsewhere. What one side does not say is not the same as the other's silence; but a zone's
/// name is enough where one of them names no region.
pub(super) fn distance(from: &Locality, to: &Locality) -> u32 {
    let unknown = from.region.is_empty() || to.region.is_empty();
    let region = from.region == to.region;
    match from.zone == to.zone && !from.zone.is_empty() {
        true if region || unknown => 0,
        _ if region && !unknown => 1,
        _ => 2,
    }
}

/// `envoy.config.endpoint.v3.LocalityLbEndpoints`.
fn locality_endpoints(locality: &Locality, priority: u32, group: &Group) -> Vec<u8> {
    let locality = EnvoyLocality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    };
    let mut bytes = Vec::with_capacity(group.endpoints.len() + 128);
    put_bytes(1, &locality.encode_to_vec(), &mut bytes);
    bytes.extend_from_slice(&group.endpoints);
    put_bytes(3, &number(group.weight).unwrap_or_default().encode_to_vec(), &mut bytes);
    if priority > 0 {
        encode_key(5, WireType::Varint, &mut bytes);
        encode_varint(priority.into(), &mut bytes);
    }
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
    let blind = instance.brake().is_some_and(|brake| matches!(brake.scope, BrakeScope::Blind | BrakeScope::Checks));
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
    use crate::model::PortName;
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
