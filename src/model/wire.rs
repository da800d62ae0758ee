//! The border outwards: values → the API's messages.

mod check;

use std::time::Duration;

use convoy_client::proto;

use super::{
    Brake, BrakeScope, Exports, History, Instance, InstanceKey, InstanceSpec, Locality, OverrideHealth, PortName,
    Protocol, RemovalCause, Revision, Service, ServiceKey, ServicePort, Turn, UnixMillis, Verdict,
};

pub use check::check;

pub fn time(at: UnixMillis) -> prost_types::Timestamp {
    let (seconds, millis) = (at.0 / 1000, at.0 % 1000);
    prost_types::Timestamp { seconds: seconds as i64, nanos: (millis * 1_000_000) as i32 }
}

/// Durations here are bounded by `limits` and fit.
pub fn duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(value).unwrap_or_default()
}

pub fn protocol(from: Protocol) -> proto::Protocol {
    match from {
        Protocol::Http => proto::Protocol::Http,
        Protocol::Http2 => proto::Protocol::Http2,
        Protocol::Grpc => proto::Protocol::Grpc,
        Protocol::Tcp => proto::Protocol::Tcp,
    }
}

pub fn verdict(from: Verdict) -> proto::Verdict {
    match from {
        Verdict::Starting => proto::Verdict::Starting,
        Verdict::Healthy => proto::Verdict::Healthy,
        Verdict::Degraded => proto::Verdict::Degraded,
        Verdict::Suspect => proto::Verdict::Suspect,
        Verdict::Unhealthy => proto::Verdict::Unhealthy,
        Verdict::Draining => proto::Verdict::Draining,
    }
}

pub fn cause(from: RemovalCause) -> proto::RemovalCause {
    match from {
        RemovalCause::Expired => proto::RemovalCause::Expired,
        RemovalCause::Deregistered => proto::RemovalCause::Deregistered,
        RemovalCause::Drained => proto::RemovalCause::Drained,
        RemovalCause::Replaced => proto::RemovalCause::Replaced,
        RemovalCause::Evicted => proto::RemovalCause::Evicted,
    }
}

pub fn brake_scope(from: BrakeScope) -> proto::BrakeScope {
    match from {
        BrakeScope::Service => proto::BrakeScope::Service,
        BrakeScope::Zone => proto::BrakeScope::Zone,
        BrakeScope::Intake => proto::BrakeScope::Intake,
        BrakeScope::Checks => proto::BrakeScope::Checks,
        BrakeScope::Blind => proto::BrakeScope::Blind,
    }
}

pub fn brake(from: Brake) -> proto::Brake {
    proto::Brake { scope: brake_scope(from.scope).into(), since: Some(time(from.since)) }
}

pub fn override_health(from: OverrideHealth) -> proto::OverrideHealth {
    match from {
        OverrideHealth::Healthy => proto::OverrideHealth::Healthy,
        OverrideHealth::Degraded => proto::OverrideHealth::Degraded,
        OverrideHealth::Unhealthy => proto::OverrideHealth::Unhealthy,
    }
}

pub fn history(from: &History) -> Vec<proto::Transition> {
    let turn = |turn: &super::Transition| {
        let (verdict, removed) = match turn.turn {
            Turn::To(to) => (verdict(to), proto::RemovalCause::Unspecified),
            Turn::Removed(by) => (proto::Verdict::Unspecified, cause(by)),
        };
        proto::Transition {
            at: Some(time(turn.at)),
            verdict: verdict.into(),
            removed: removed.into(),
            reason: turn.reason.to_string(),
        }
    };
    from.iter().map(turn).collect()
}

fn health(from: &Instance) -> proto::Health {
    let axis = |axis: &str, state: &str, since: Option<UnixMillis>, reason: &str| proto::HealthAxis {
        axis: axis.into(),
        state: state.into(),
        since: since.map(time),
        reason: reason.into(),
    };
    let mut axes = vec![
        axis("lease", if from.lapsed.is_some() { "lapsed" } else { "held" }, from.lapsed.map(|brake| brake.since), ""),
        axis("readiness", if from.spec.ready { "ready" } else { "not ready" }, Some(from.ready_since), ""),
    ];
    for check in &*from.checks {
        let name = format!("check/{}", check.name);
        axes.push(axis(&name, check.status.as_str(), Some(check.since), &check.output));
    }
    if let Some(operator) = &from.operator {
        axes.push(axis("operator", operator.health.as_str(), Some(operator.since), &operator.reason));
    }
    if let Some(drain) = &from.drain {
        axes.push(axis("drain", "draining", Some(drain.since), ""));
    }
    let health = from.health();
    proto::Health {
        verdict: verdict(health.verdict).into(),
        reason: health.reason.into(),
        since: Some(time(health.since)),
        ready: from.spec.ready,
        draining: from.drain.is_some(),
        axes,
        brake: from.brake().map(brake),
    }
}

/// None if it says nothing.
pub fn locality(from: &Locality) -> Option<proto::Locality> {
    let Locality { region, zone, sub_zone } = from.clone();
    (*from != Locality::default()).then_some(proto::Locality { region, zone, sub_zone })
}

/// The registration that makes this spec again.
pub fn registration(key: &InstanceKey, spec: &InstanceSpec) -> proto::Registration {
    let agent_card = spec.card.as_deref().unwrap_or_default().to_owned();
    proto::Registration { agent_card, ..without_card(key, spec) }
}

/// A card may be large, and is shown only to those who ask for it.
fn without_card(key: &InstanceKey, spec: &InstanceSpec) -> proto::Registration {
    let port = |port: &super::Port| proto::Port {
        name: port.name.to_string(),
        port: port.number.into(),
        protocol: protocol(port.protocol).into(),
    };
    let capability = |from: &super::Capability| proto::Capability {
        name: from.name.to_string(),
        version: from.version.to_string(),
        attributes: from.attributes.to_map(),
        description: from.description.to_string(),
    };
    let sla = proto::Sla {
        latency_p50: spec.sla.latency_p50.map(duration),
        latency_p99: spec.sla.latency_p99.map(duration),
        throughput_rps: spec.sla.throughput_rps,
        cost_per_request: spec.sla.cost_per_request,
    };
    proto::Registration {
        namespace: key.service.namespace.to_string(),
        service: key.service.name.to_string(),
        id: key.id.to_string(),
        address: spec.address.to_string(),
        ports: spec.ports.iter().map(port).collect(),
        weight: Some(spec.weight.into()),
        ready: Some(spec.ready),
        labels: spec.labels.to_map(),
        capabilities: spec.capabilities.iter().map(capability).collect(),
        locality: locality(&spec.locality),
        sla: (sla != proto::Sla::default()).then_some(sla),
        description: spec.description.to_string(),
        agent_card: String::new(),
    }
}

pub fn instance(from: &Instance, revision: Revision, load: Option<proto::Load>) -> proto::Instance {
    let said = without_card(&from.key, &from.spec);
    proto::Instance {
        namespace: said.namespace,
        service: said.service,
        id: said.id,
        incarnation: from.incarnation.0,
        address: said.address,
        ports: said.ports,
        weight: from.spec.weight.into(),
        health: Some(health(from)),
        labels: said.labels,
        capabilities: said.capabilities,
        locality: said.locality,
        sla: said.sla,
        lease: from.lease.to_string(),
        registered_at: Some(time(from.registered_at)),
        revision: revision.0,
        load,
        history: Vec::new(),
        description: said.description,
        effective_weight: from.weight().into(),
    }
}

pub fn service_port((name, port): (&PortName, &ServicePort)) -> proto::ServicePort {
    proto::ServicePort { name: name.to_string(), protocol: protocol(port.protocol).into(), port: port.number.into() }
}

/// As `parse::exports` reads it.
pub fn exports(from: &Exports) -> Vec<String> {
    let all = from.all.then(|| super::parse::ALL_NAMESPACES.to_owned());
    all.into_iter().chain(from.namespaces.iter().map(ToString::to_string)).collect()
}

pub fn service(key: &ServiceKey, from: &Service, revision: Revision, instances: u32, healthy: u32) -> proto::Service {
    proto::Service {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        default_port: from.default_port.to_string(),
        ports: from.ports.iter().map(service_port).collect(),
        drain_time: Some(duration(from.drain_time)),
        instances,
        healthy,
        revision: revision.0,
        export_to: Some(proto::ExportTo { namespaces: exports(&from.exports) }),
        brake: Some(proto::BrakePolicy { off: !from.brake }),
        load: Some(from.load.wire()),
        checks: (!from.checks.is_empty()).then(|| proto::Checks { checks: from.checks.iter().map(check).collect() }),
        failover: from.failover.map(|failover| proto::Failover {
            by_locality: true,
            overprovisioning_factor: failover.overprovisioning_factor,
        }),
        left_out: 0,
        selector: from.selector.as_ref().map(|selector| selector.as_str().to_owned()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limits, parse};

    #[test]
    fn a_registration_survives_the_way_in_and_out() {
        let text = r#"{"namespace": "default", "service": "reviews", "id": "r-1", "address": "10.0.0.7",
            "ports": [{"name": "http", "port": 8080, "protocol": "http"}], "weight": 7, "ready": false,
            "labels": {"language": "python"}, "capabilities": [{"name": "ocr", "version": "2.1"}],
            "locality": {"region": "us-east-1", "zone": "us-east-1a"},
            "sla": {"latency_p99": "50ms", "throughput_rps": 200}}"#;
        let from: proto::Registration = serde_json::from_str(text).expect("valid");
        let (key, spec) = parse::registration(from.clone(), None, &Limits::default()).expect("valid");
        assert_eq!(registration(&key, &spec), from);
    }
}
