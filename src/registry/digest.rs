//! The digest of what an agent said, by which it learns at once that it has to say it again: because an operator has
//! removed an instance, or because Convoy has lost or never had what it said.
//!
//! A lease's digest is the sum of the hashes of its instances, each with its incarnation: so one that comes, goes or
//! changes costs the same however many there are. It holds what the agent said, and nothing that Convoy or an operator
//! makes of it, so that health, drains and weights ask nobody to register again. It has 64 bits, since a heartbeat
//! compares it in one atomic look; whoever forges one forges what he himself is told.

use std::{fmt, hash::Hash};

use xxhash_rust::xxh3::Xxh3Default;

use crate::model::{Capability, Instance, InstanceSpec, Invalid, Port, Sla};

/// Opaque to the agent; 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    pub fn of(instance: &Instance) -> Self {
        let mut hasher = Xxh3Default::new();
        instance.key.hash(&mut hasher);
        instance.incarnation.hash(&mut hasher);
        hash_spec(&instance.spec, &mut hasher);
        Self(hasher.digest())
    }

    pub fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    pub fn subtract(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'));
        let digest = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        let rule = "a digest as a registration's answer gave it: 16 hexadecimal digits";
        digest.map(Self).ok_or_else(|| Invalid::new(field, text, rule))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Everything in it; whoever adds a field is told here.
fn hash_spec(spec: &InstanceSpec, hasher: &mut Xxh3Default) {
    let InstanceSpec { address, ports, weight, ready, labels, capabilities, locality, sla, description, card } = spec;
    (address, weight, ready, labels, locality, description, card, ports.len(), capabilities.len()).hash(hasher);
    for Port { name, number, protocol } in &**ports {
        (name, number, protocol).hash(hasher);
    }
    for Capability { name, version, description, attributes } in &**capabilities {
        (name, version, description, attributes).hash(hasher);
    }
    let Sla { latency_p50, latency_p99, throughput_rps, cost_per_request } = &**sla;
    (latency_p50, latency_p99, throughput_rps.map(f64::to_bits), cost_per_request.map(f64::to_bits)).hash(hasher);
}
