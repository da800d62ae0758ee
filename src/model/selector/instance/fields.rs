//! What an instance has, by the names that conditions use, and how to get at it.

use super::{
    node::{Fail, Scope},
    value::{Type, Value},
};
use crate::model::{Capability, CheckState, Port, Verdict};

/// What stands behind a name of `instance`.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    Field(Field, Type),
    Object(Object, &'static [(&'static str, Entry)]),
}

pub type Entries = &'static [(&'static str, Entry)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Locality,
    Sla,
    Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Address,
    Braked,
    Capabilities,
    Checks,
    Description,
    Draining,
    EffectiveWeight,
    Health,
    Id,
    Incarnation,
    Labels,
    Lapsed,
    Namespace,
    Operator,
    Ports,
    Ready,
    RegisteredAt,
    Service,
    Weight,
    Region,
    SubZone,
    Zone,
    CostPerRequest,
    LatencyP50,
    LatencyP99,
    ThroughputRps,
    ApplicationUtilization,
    Cpu,
    ErrorRate,
    InFlight,
    Memory,
    Metrics,
    QueueDepth,
    Rps,
}

/// Durations are in milliseconds, times in seconds since 1970.
pub const INSTANCE: Entries = &[
    ("address", Entry::Field(Field::Address, Type::Text)),
    ("braked", Entry::Field(Field::Braked, Type::Bool)),
    ("capabilities", Entry::Field(Field::Capabilities, Type::Capabilities)),
    ("checks", Entry::Field(Field::Checks, Type::Checks)),
    ("description", Entry::Field(Field::Description, Type::Text)),
    ("draining", Entry::Field(Field::Draining, Type::Bool)),
    ("effective_weight", Entry::Field(Field::EffectiveWeight, Type::Int)),
    ("health", Entry::Field(Field::Health, Type::Verdict)),
    ("id", Entry::Field(Field::Id, Type::Text)),
    ("incarnation", Entry::Field(Field::Incarnation, Type::Int)),
    ("labels", Entry::Field(Field::Labels, Type::Labels)),
    ("lapsed", Entry::Field(Field::Lapsed, Type::Bool)),
    ("load", Entry::Object(Object::Load, LOAD)),
    ("locality", Entry::Object(Object::Locality, LOCALITY)),
    ("namespace", Entry::Field(Field::Namespace, Type::Text)),
    ("operator", Entry::Field(Field::Operator, Type::Text)),
    ("ports", Entry::Field(Field::Ports, Type::Ports)),
    ("ready", Entry::Field(Field::Ready, Type::Bool)),
    ("registered_at", Entry::Field(Field::RegisteredAt, Type::Int)),
    ("service", Entry::Field(Field::Service, Type::Text)),
    ("sla", Entry::Object(Object::Sla, SLA)),
    ("weight", Entry::Field(Field::Weight, Type::Int)),
];
const LOCALITY: Entries = &[
    ("region", Entry::Field(Field::Region, Type::Text)),
    ("sub_zone", Entry::Field(Field::SubZone, Type::Text)),
    ("zone", Entry::Field(Field::Zone, Type::Text)),
];
const SLA: Entries = &[
    ("cost_per_request", Entry::Field(Field::CostPerRequest, Type::Double)),
    ("latency_p50_ms", Entry::Field(Field::LatencyP50, Type::Double)),
    ("latency_p99_ms", Entry::Field(Field::LatencyP99, Type::Double)),
    ("throughput_rps", Entry::Field(Field::ThroughputRps, Type::Double)),
];
const LOAD: Entries = &[
    ("application_utilization", Entry::Field(Field::ApplicationUtilization, Type::Double)),
    ("cpu", Entry::Field(Field::Cpu, Type::Double)),
    ("error_rate", Entry::Field(Field::ErrorRate, Type::Double)),
    ("in_flight", Entry::Field(Field::InFlight, Type::Double)),
    ("memory", Entry::Field(Field::Memory, Type::Double)),
    ("metrics", Entry::Field(Field::Metrics, Type::Metrics)),
    ("queue_depth", Entry::Field(Field::QueueDepth, Type::Double)),
    ("rps", Entry::Field(Field::Rps, Type::Double)),
];
pub const CAPABILITY: &[(&str, Type)] =
    &[("attributes", Type::Labels), ("description", Type::Text), ("name", Type::Text), ("version", Type::Text)];
pub const CHECK: &[(&str, Type)] =
    &[("kind", Type::Text), ("name", Type::Text), ("output", Type::Text), ("status", Type::Text)];
pub const PORT: &[(&str, Type)] = &[("name", Type::Text), ("number", Type::Int), ("protocol", Type::Text)];

impl Object {
    pub fn is_there(self, scope: &Scope<'_>) -> bool {
        match self {
            Self::Locality => true,
            Self::Sla => {
                let sla = &scope.instance.spec.sla;
                let latency = sla.latency_p50.is_some() || sla.latency_p99.is_some();
                latency || sla.throughput_rps.is_some() || sla.cost_per_request.is_some()
            }
            Self::Load => scope.load.is_some(),
        }
    }
}

impl Field {
    pub fn get<'a>(self, scope: &Scope<'a>) -> Result<Value<'a>, Fail> {
        let (instance, spec) = (scope.instance, &*scope.instance.spec);
        let number = |number: Option<f64>| number.map(Value::Double).ok_or(Fail::Unknown);
        let load = || scope.load.ok_or(Fail::Unknown);
        Ok(match self {
            Self::Address => Value::Text(spec.address.to_string().into()),
            Self::Braked => Value::Bool(instance.brake().is_some()),
            Self::Capabilities => Value::Capabilities(&spec.capabilities),
            Self::Checks => Value::Checks(&instance.checks),
            Self::Description => Value::text(&spec.description),
            Self::Draining => Value::Bool(instance.drain.is_some()),
            Self::EffectiveWeight => Value::Int(instance.weight().into()),
            Self::Health => Value::text(instance.verdict().as_str()),
            Self::Id => Value::text(instance.key.id.as_str()),
            Self::Incarnation => whole(instance.incarnation.0),
            Self::Labels => Value::Labels(&spec.labels),
            Self::Lapsed => Value::Bool(instance.lapsed.is_some()),
            Self::Namespace => Value::text(instance.key.service.namespace.as_str()),
            Self::Operator => Value::text(instance.operator.as_ref().map_or("", |operator| operator.health.as_str())),
            Self::Ports => Value::Ports(&spec.ports),
            Self::Ready => Value::Bool(spec.ready),
            Self::RegisteredAt => whole(instance.registered_at.0 / 1000),
            Self::Service => Value::text(instance.key.service.name.as_str()),
            Self::Weight => Value::Int(spec.weight.into()),
            Self::Region => Value::text(&spec.locality.region),
            Self::SubZone => Value::text(&spec.locality.sub_zone),
            Self::Zone => Value::text(&spec.locality.zone),
            Self::CostPerRequest => number(spec.sla.cost_per_request)?,
            Self::LatencyP50 => number(spec.sla.latency_p50.map(|latency| latency.as_secs_f64() * 1000.0))?,
            Self::LatencyP99 => number(spec.sla.latency_p99.map(|latency| latency.as_secs_f64() * 1000.0))?,
            Self::ThroughputRps => number(spec.sla.throughput_rps)?,
            Self::ApplicationUtilization => number(load()?.application_utilization)?,
            Self::Cpu => number(load()?.cpu)?,
            Self::ErrorRate => number(load()?.error_rate)?,
            Self::InFlight => number(load()?.in_flight)?,
            Self::Memory => number(load()?.memory)?,
            Self::Metrics => Value::Metrics(&load()?.metrics),
            Self::QueueDepth => number(load()?.queue_depth)?,
            Self::Rps => number(load()?.rps)?,
        })
    }
}

fn whole<'a>(number: u64) -> Value<'a> {
    i64::try_from(number).map_or(Value::UInt(number), Value::Int)
}

pub fn of_capability<'a>(capability: &'a Capability, name: &str) -> Result<Value<'a>, Fail> {
    match name {
        "attributes" => Ok(Value::Labels(&capability.attributes)),
        "description" => Ok(Value::text(&capability.description)),
        "name" => Ok(Value::text(&capability.name)),
        "version" => Ok(Value::text(&capability.version)),
        _ => Err(Fail::Unknown),
    }
}

pub fn of_port<'a>(port: &'a Port, name: &str) -> Result<Value<'a>, Fail> {
    match name {
        "name" => Ok(Value::text(port.name.as_str())),
        "number" => Ok(Value::Int(port.number.into())),
        "protocol" => Ok(Value::text(port.protocol.as_str())),
        _ => Err(Fail::Unknown),
    }
}

pub fn of_check<'a>(check: &'a CheckState, name: &str) -> Result<Value<'a>, Fail> {
    match name {
        "kind" => Ok(Value::text(check.kind.as_str())),
        "name" => Ok(Value::text(&check.name)),
        "output" => Ok(Value::text(&check.output)),
        "status" => Ok(Value::text(check.status.as_str())),
        _ => Err(Fail::Unknown),
    }
}

/// The values that `instance.health` can have.
pub fn verdicts() -> Vec<&'static str> {
    Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect()
}
