//! The border inwards: what a client or a disk says → values that keep the rules, or the first rule broken.

mod check;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use convoy_client::proto;

use super::{
    Brake, BrakeScope, Capability, Exports, Failover, History, InstanceId, InstanceKey, InstanceSpec, Invalid, Labels,
    Limits, LoadPolicy, Locality, Namespace, OverrideHealth, Port, PortName, Protocol, RemovalCause, ServiceKey,
    ServiceName, ServicePatch, ServicePort, Sla, Transition, Turn, UnixMillis, Verdict,
    limits::at_most,
    selector::{InstanceSelector, Knows},
    shared,
};

pub use check::checks;

const DEFAULT_WEIGHT: u32 = 100;
pub(super) const MAX_CAPABILITY_NAME_BYTES: usize = 256;
pub(super) const MAX_CAPABILITY_VERSION_BYTES: usize = 64;
const MAX_LOCALITY_BYTES: usize = 63;
pub(super) const MAX_DESCRIPTION_BYTES: usize = 1024;
const MAX_REASON_BYTES: usize = 256;
const OVERPROVISIONING: std::ops::RangeInclusive<u32> = 100..=1_000;
/// A longer latency is a mistake, and one beyond 584 years cannot be told in JSON.
const MAX_LATENCY: Duration = Duration::from_secs(24 * 60 * 60);
/// A service for more namespaces is for all.
const MAX_EXPORTS: usize = 256;
pub const ALL_NAMESPACES: &str = "*";
/// A drain longer than this is no drain.
pub const MAX_DRAIN_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A call that waits is answered in the end: the connection may be gone.
pub const MAX_WAIT: Duration = Duration::from_secs(5 * 60);

pub fn service_key(namespace: &str, service: &str) -> Result<ServiceKey, Invalid> {
    Ok(ServiceKey {
        namespace: Namespace::parse_or_default("namespace", namespace)?,
        name: ServiceName::parse("service", service)?,
    })
}

pub fn instance_key(namespace: &str, service: &str, id: &str) -> Result<InstanceKey, Invalid> {
    Ok(InstanceKey { service: service_key(namespace, service)?, id: InstanceId::parse("id", id)? })
}

/// One registration. `peer` is the address that the call came from, taken when the registration names none.
pub fn registration(
    mut from: proto::Registration,
    peer: Option<IpAddr>,
    limits: &Limits,
) -> Result<(InstanceKey, Arc<InstanceSpec>), Invalid> {
    let key = instance_key(&from.namespace, &from.service, &from.id)?;
    let weight = from.weight.unwrap_or(DEFAULT_WEIGHT);
    check_metadata_size(&mut from, limits)?;
    let spec = InstanceSpec {
        address: address(&from.address, peer)?,
        ports: shared::ports(ports(&from.ports, limits)?),
        weight: u16::try_from(weight).map_err(|_| Invalid::new("weight", weight, "from 0 to 65535"))?,
        ready: from.ready.unwrap_or(true),
        labels: labels(from.labels, limits)?,
        capabilities: shared::capabilities(capabilities(from.capabilities, limits)?),
        locality: shared::locality(locality(from.locality.unwrap_or_default())?),
        sla: shared::sla(sla(from.sla.unwrap_or_default())?),
        description: shared::text(&text("description", from.description, MAX_DESCRIPTION_BYTES)?),
        card: (!from.agent_card.is_empty()).then(|| from.agent_card.into()),
    };
    Ok((key, Arc::new(spec)))
}

/// The metadata's size is what it takes in protobuf.
fn check_metadata_size(from: &mut proto::Registration, limits: &Limits) -> Result<(), Invalid> {
    let metadata = proto::Registration {
        labels: std::mem::take(&mut from.labels),
        capabilities: std::mem::take(&mut from.capabilities),
        locality: from.locality.take(),
        sla: from.sla,
        description: std::mem::take(&mut from.description),
        ..Default::default()
    };
    let size = prost::Message::encoded_len(&metadata);
    let proto::Registration { labels, capabilities, locality, sla: _, description, .. } = metadata;
    (from.labels, from.capabilities, from.locality, from.description) = (labels, capabilities, locality, description);
    at_most("metadata", size, limits.metadata_bytes, "bytes of labels, capabilities, locality, sla and description")
}

fn text(field: &str, text: String, limit: usize) -> Result<String, Invalid> {
    if text.len() > limit {
        return Err(Invalid::new(field, text, format!("at most {limit} bytes")));
    }
    Ok(text)
}

fn address(text: &str, peer: Option<IpAddr>) -> Result<IpAddr, Invalid> {
    let address = match (text, peer) {
        ("", Some(peer)) => peer,
        _ => text.parse().map_err(|_| Invalid::new("address", text, "an IPv4 or IPv6 address"))?,
    };
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_multicast() || link_local {
        return Err(Invalid::new("address", address, "not unspecified, link-local, broadcast or multicast"));
    }
    Ok(address)
}

pub fn protocol(from: i32) -> Result<Protocol, Invalid> {
    match proto::Protocol::try_from(from) {
        Ok(proto::Protocol::Unspecified | proto::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(proto::Protocol::Http) => Ok(Protocol::Http),
        Ok(proto::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(proto::Protocol::Grpc) => Ok(Protocol::Grpc),
        Err(_) => Err(Invalid::new("protocol", from, "one of http, http2, grpc, tcp")),
    }
}

fn port_number(from: u32) -> Result<u16, Invalid> {
    let number = u16::try_from(from).ok().filter(|&number| number != 0);
    number.ok_or_else(|| Invalid::new("port", from, "from 1 to 65535"))
}

fn ports(from: &[proto::Port], limits: &Limits) -> Result<Vec<Port>, Invalid> {
    if from.is_empty() {
        return Err(Invalid::new("ports", "", "at least one port"));
    }
    at_most("ports", from.len(), limits.ports, "ports")?;
    let mut ports: Vec<Port> = Vec::with_capacity(from.len());
    for (index, port) in from.iter().enumerate() {
        let outer = || format!("ports[{index}]");
        let parse = || -> Result<Port, Invalid> {
            let name = PortName::parse("name", &port.name)?;
            Ok(Port { name, number: port_number(port.port)?, protocol: protocol(port.protocol)? })
        };
        let port = parse().map_err(|invalid| invalid.inside(&outer()))?;
        if ports.iter().any(|other| other.name == port.name) {
            return Err(Invalid::new(format!("{}.name", outer()), &port.name, "unique among the ports"));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn labels(from: BTreeMap<String, String>, limits: &Limits) -> Result<Labels, Invalid> {
    at_most("labels", from.len(), limits.labels, "labels")?;
    for (name, value) in &from {
        if name.is_empty() || name.len() > limits.label_name_bytes {
            let rule = format!("names of 1 to {} bytes", limits.label_name_bytes);
            return Err(Invalid::new("labels", name, rule));
        }
        if value.len() > limits.label_value_bytes {
            let rule = format!("values of at most {} bytes", limits.label_value_bytes);
            return Err(Invalid::new(format!("labels.{name}"), value, rule));
        }
    }
    Ok(from.into())
}

fn capabilities(from: Vec<proto::Capability>, limits: &Limits) -> Result<Vec<Capability>, Invalid> {
    at_most("capabilities", from.len(), limits.capabilities, "capabilities")?;
    let check = |index: usize, capability: &proto::Capability| {
        let field = |name: &str| format!("capabilities[{index}].{name}");
        if capability.name.is_empty() || capability.name.len() > MAX_CAPABILITY_NAME_BYTES {
            return Err(Invalid::new(field("name"), &capability.name, "1 to 256 bytes"));
        }
        if capability.version.len() > MAX_CAPABILITY_VERSION_BYTES {
            return Err(Invalid::new(field("version"), &capability.version, "at most 64 bytes"));
        }
        if capability.description.len() > MAX_DESCRIPTION_BYTES {
            let rule = format!("at most {MAX_DESCRIPTION_BYTES} bytes");
            return Err(Invalid::new(field("description"), &capability.description, rule));
        }
        Ok(())
    };
    for (index, capability) in from.iter().enumerate() {
        check(index, capability)?;
    }
    let parse = |capability: proto::Capability| Capability {
        name: shared::text(&capability.name),
        version: shared::text(&capability.version),
        description: shared::text(&capability.description),
        attributes: capability.attributes.into(),
    };
    Ok(from.into_iter().map(parse).collect())
}

fn locality(from: proto::Locality) -> Result<Locality, Invalid> {
    for (field, value) in [("region", &from.region), ("zone", &from.zone), ("sub_zone", &from.sub_zone)] {
        if value.len() > MAX_LOCALITY_BYTES {
            return Err(Invalid::new(format!("locality.{field}"), value, "at most 63 bytes"));
        }
    }
    Ok(Locality { region: from.region, zone: from.zone, sub_zone: from.sub_zone })
}

fn sla(from: proto::Sla) -> Result<Sla, Invalid> {
    let number = |field: &str, value: Option<f64>| match value {
        Some(value) if !value.is_finite() || value < 0.0 => {
            Err(Invalid::new(format!("sla.{field}"), value, "a finite number, 0 or more"))
        }
        value => Ok(value),
    };
    let latency = |field: &str, value: Option<prost_types::Duration>| {
        value.map(|value| at_most_for(&format!("sla.{field}"), value, MAX_LATENCY)).transpose()
    };
    Ok(Sla {
        latency_p50: latency("latency_p50", from.latency_p50)?,
        latency_p99: latency("latency_p99", from.latency_p99)?,
        throughput_rps: number("throughput_rps", from.throughput_rps)?,
        cost_per_request: number("cost_per_request", from.cost_per_request)?,
    })
}

pub fn duration(field: &str, value: prost_types::Duration) -> Result<Duration, Invalid> {
    Duration::try_from(value).map_err(|_| Invalid::new(field, value, "a duration of 0 or more"))
}

fn at_most_for(field: &str, value: prost_types::Duration, limit: Duration) -> Result<Duration, Invalid> {
    let (time, text) = (duration(field, value)?, convoy_client::json::format_duration);
    if time > limit {
        return Err(Invalid::new(field, text(time), format!("at most {}", text(limit))));
    }
    Ok(time)
}

pub fn drain_time(value: Option<prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    value.map(|value| at_most_for("drain_time", value, MAX_DRAIN_TIME)).transpose()
}

/// How long a call may wait.
pub fn wait(field: &str, value: Option<prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    value.map(|value| at_most_for(field, value, MAX_WAIT)).transpose()
}

/// A service as somebody puts it.
pub fn service(from: &proto::PutServiceRequest, limits: &Limits) -> Result<ServicePatch, Invalid> {
    at_most("ports", from.ports.len(), limits.ports, "ports")?;
    let mut parsed: Vec<(PortName, ServicePort)> = Vec::with_capacity(from.ports.len());
    for (index, port) in from.ports.iter().enumerate() {
        let outer = format!("ports[{index}]");
        let parse = || -> Result<(PortName, ServicePort), Invalid> {
            let name = PortName::parse("name", &port.name)?;
            Ok((name, ServicePort { protocol: protocol(port.protocol)?, number: port_number(port.port)? }))
        };
        let (name, port) = parse().map_err(|invalid| invalid.inside(&outer))?;
        if parsed.iter().any(|(other, _)| *other == name) {
            return Err(Invalid::new(format!("{outer}.name"), name, "unique among the ports"));
        }
        parsed.push((name, port));
    }
    let named = (!from.default_port.is_empty()).then(|| PortName::parse("default_port", &from.default_port));
    Ok(ServicePatch {
        default_port: named.transpose()?,
        ports: parsed,
        drain_time: drain_time(from.drain_time)?,
        exports: from.export_to.as_ref().map(|to| exports(&to.namespaces)).transpose()?,
        brake: from.brake.map(|brake| !brake.off),
        load: from.load.as_ref().map(LoadPolicy::parse).transpose()?,
        checks: from.checks.as_ref().map(|from| checks(from, limits.checks_per_service)).transpose()?,
        failover: from.failover.map(failover).transpose()?,
        selector: selector("selector", &from.selector)?,
    })
}

fn failover(from: proto::Failover) -> Result<Option<Failover>, Invalid> {
    let factor = match from.overprovisioning_factor {
        0 => Failover::DEFAULT_OVERPROVISIONING,
        factor => factor,
    };
    if !OVERPROVISIONING.contains(&factor) {
        return Err(Invalid::new("failover.overprovisioning_factor", factor, "from 100 to 1000, in percent"));
    }
    Ok(from.by_locality.then_some(Failover { overprovisioning_factor: factor }))
}

/// A condition on what is stored of an instance; none if it is empty.
pub fn selector(field: &str, text: &str) -> Result<Option<InstanceSelector>, Invalid> {
    (!text.is_empty()).then(|| InstanceSelector::parse(field, text, Knows::Stored)).transpose()
}

/// Namespaces, or `*` for all.
pub fn exports(namespaces: &[String]) -> Result<Exports, Invalid> {
    at_most("export_to.namespaces", namespaces.len(), MAX_EXPORTS, "namespaces; `*` means all")?;
    let mut exports = Exports::default();
    for (index, name) in namespaces.iter().enumerate() {
        match name.as_str() {
            ALL_NAMESPACES => exports.all = true,
            name => {
                let namespace = Namespace::parse(&format!("export_to.namespaces[{index}]"), name);
                exports.namespaces.insert(namespace.map_err(|invalid| {
                    let rule = format!("`*`, or {}", invalid.rule);
                    Invalid { rule, ..invalid }
                })?);
            }
        }
    }
    Ok(exports)
}

/// What an operator says of an instance; none takes it back.
pub fn override_of(health: i32, reason: String) -> Result<Option<(OverrideHealth, Arc<str>)>, Invalid> {
    let health = match proto::OverrideHealth::try_from(health) {
        Ok(proto::OverrideHealth::Unspecified) => return Ok(None),
        Ok(proto::OverrideHealth::Healthy) => OverrideHealth::Healthy,
        Ok(proto::OverrideHealth::Degraded) => OverrideHealth::Degraded,
        Ok(proto::OverrideHealth::Unhealthy) => OverrideHealth::Unhealthy,
        Err(_) => return Err(Invalid::new("health", health, "one of healthy, degraded, unhealthy")),
    };
    Ok(Some((health, text("reason", reason, MAX_REASON_BYTES)?.into())))
}

fn millis(at: Option<prost_types::Timestamp>) -> UnixMillis {
    let at = at.unwrap_or_default();
    UnixMillis(at.seconds.max(0) as u64 * 1000 + at.nanos.max(0) as u64 / 1_000_000)
}

/// As a store has it; none of a scope that a newer Convoy knows.
pub fn brake(from: &proto::Brake) -> Option<Brake> {
    let scope = match from.scope() {
        proto::BrakeScope::Unspecified => return None,
        proto::BrakeScope::Service => BrakeScope::Service,
        proto::BrakeScope::Zone => BrakeScope::Zone,
        proto::BrakeScope::Intake => BrakeScope::Intake,
        proto::BrakeScope::Checks => BrakeScope::Checks,
        proto::BrakeScope::Blind => BrakeScope::Blind,
    };
    Some(Brake { scope, since: millis(from.since) })
}

pub fn cause(from: proto::RemovalCause) -> Option<RemovalCause> {
    Some(match from {
        proto::RemovalCause::Unspecified => return None,
        proto::RemovalCause::Expired => RemovalCause::Expired,
        proto::RemovalCause::Deregistered => RemovalCause::Deregistered,
        proto::RemovalCause::Drained => RemovalCause::Drained,
        proto::RemovalCause::Replaced => RemovalCause::Replaced,
        proto::RemovalCause::Evicted => RemovalCause::Evicted,
    })
}

fn verdict(from: proto::Verdict) -> Option<Verdict> {
    Some(match from {
        proto::Verdict::Unspecified => return None,
        proto::Verdict::Starting => Verdict::Starting,
        proto::Verdict::Healthy => Verdict::Healthy,
        proto::Verdict::Degraded => Verdict::Degraded,
        proto::Verdict::Suspect => Verdict::Suspect,
        proto::Verdict::Unhealthy => Verdict::Unhealthy,
        proto::Verdict::Draining => Verdict::Draining,
    })
}

/// As a store has it.
pub fn history(from: Vec<proto::Transition>) -> History {
    let turn = |turn: proto::Transition| {
        let what = cause(turn.removed()).map(Turn::Removed).or_else(|| verdict(turn.verdict()).map(Turn::To))?;
        Some(Transition { at: millis(turn.at), turn: what, reason: turn.reason.into() })
    };
    from.into_iter().filter_map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> proto::Registration {
        proto::Registration {
            service: "reviews".into(),
            id: "reviews-1".into(),
            address: "10.0.0.7".into(),
            ports: vec![proto::Port { name: "http".into(), port: 8080, protocol: proto::Protocol::Http.into() }],
            ..Default::default()
        }
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let (key, spec) = registration(valid(), None, &Limits::default()).expect("valid");
        assert_eq!(key.to_string(), "default/reviews/reviews-1");
        assert_eq!((spec.weight, spec.ready), (100, true));
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        let from = proto::Registration { address: String::new(), ..valid() };
        assert_eq!(registration(from, Some(peer), &Limits::default()).expect("valid").1.address, peer);
    }

    /// Each limit at its border: the last value that passes, and the first that does not with the field it names.
    #[test]
    fn every_limit_names_its_field() {
        type Change = Box<dyn Fn(&mut proto::Registration, usize)>;
        let port = |name: &str, number: u32| proto::Port { name: name.into(), port: number, protocol: 1 };
        let table: Vec<(&str, usize, Change)> = vec![
            ("weight", 65_535, Box::new(|r, n| r.weight = Some(n as u32))),
            ("namespace", 63, Box::new(|r, n| r.namespace = "n".repeat(n))),
            ("service", 63, Box::new(|r, n| r.service = "n".repeat(n))),
            ("id", 253, Box::new(|r, n| r.id = "n".repeat(n))),
            ("ports", 16, Box::new(move |r, n| r.ports = (0..n).map(|i| port(&format!("p{i}"), 1)).collect())),
            ("ports[0].name", 63, Box::new(move |r, n| r.ports = vec![port(&"n".repeat(n), 1)])),
            ("ports[0].port", 65_535, Box::new(move |r, n| r.ports = vec![port("http", n as u32)])),
            ("labels", 64, Box::new(|r, n| r.labels = (0..n).map(|i| (i.to_string(), String::new())).collect())),
            ("labels", 63, Box::new(|r, n| r.labels = [("n".repeat(n), String::new())].into())),
            ("labels.a", 256, Box::new(|r, n| r.labels = [("a".into(), "v".repeat(n))].into())),
            (
                "capabilities",
                256,
                Box::new(|r, n| {
                    let capability = proto::Capability { name: "c".into(), ..Default::default() };
                    r.capabilities = vec![capability; n];
                }),
            ),
            (
                "capabilities[0].name",
                256,
                Box::new(|r, n| {
                    r.capabilities = vec![proto::Capability { name: "c".repeat(n), ..Default::default() }];
                }),
            ),
            (
                "capabilities[0].version",
                64,
                Box::new(|r, n| {
                    r.capabilities =
                        vec![proto::Capability { name: "c".into(), version: "v".repeat(n), ..Default::default() }];
                }),
            ),
            (
                "locality.zone",
                63,
                Box::new(|r, n| {
                    r.locality = Some(proto::Locality { zone: "z".repeat(n), ..Default::default() });
                }),
            ),
        ];
        for (field, limit, change) in table {
            let with = |n| {
                let mut from = valid();
                change(&mut from, n);
                registration(from, None, &Limits::default())
            };
            assert!(with(limit).is_ok(), "{field} at {limit}: {:?}", with(limit));
            assert_eq!(with(limit + 1).expect_err(field).field, field);
        }
    }

    #[test]
    fn metadata_is_limited_as_a_whole() {
        let attributes: BTreeMap<_, _> = [("a".to_owned(), "x".repeat(33 * 1024))].into();
        let capabilities = vec![proto::Capability { name: "c".into(), attributes, ..Default::default() }];
        let error = registration(proto::Registration { capabilities, ..valid() }, None, &Limits::default());
        assert_eq!(error.expect_err("too large").field, "metadata");
    }

    #[test]
    fn addresses() {
        for bad in ["", "reviews.local", "10.0.0", "0.0.0.0", "::", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1"] {
            let error = registration(proto::Registration { address: bad.into(), ..valid() }, None, &Limits::default());
            assert_eq!(error.expect_err(bad).field, "address", "{bad}");
        }
        for good in ["127.0.0.1", "::1", "2001:db8::1"] {
            let from = proto::Registration { address: good.into(), ..valid() };
            assert!(registration(from, None, &Limits::default()).is_ok(), "{good}");
        }
    }

    #[test]
    fn exports_are_namespaces_or_all() {
        let parse = |names: &[&str]| exports(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).expect("none"), Exports::default());
        assert!(parse(&["*"]).expect("all").all);
        let two = parse(&["shop", "bank", "shop"]).expect("two");
        assert_eq!((two.all, two.namespaces.len()), (false, 2));
        let error = parse(&["shop", "No"]).expect_err("no label");
        assert_eq!(error.field, "export_to.namespaces[1]");
        assert!(error.rule.starts_with("`*`, or a DNS label"), "{error}");
        assert!(exports(&vec!["a".to_owned(); MAX_EXPORTS + 1]).is_err());
    }
}
