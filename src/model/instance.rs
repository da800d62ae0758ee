//! Instances and the leases that hold them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Brake, CheckState, History, Incarnation, InstanceKey, Labels, LeaseId, Override, PortName, ReplicaId, UnixMillis,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    Tcp,
}

impl Protocol {
    /// Whether requests can be routed by host name.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub name: PortName,
    /// Never 0.
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// For people, and for those who search by words.
    pub description: Arc<str>,
    pub attributes: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
}

/// Numbers are finite and not negative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sla {
    pub latency_p50: Option<Duration>,
    pub latency_p99: Option<Duration>,
    pub throughput_rps: Option<f64>,
    pub cost_per_request: Option<f64>,
}

/// What an agent says of an instance. Two equal specs are one registration said twice.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSpec {
    /// Not unspecified, link-local or multicast.
    pub address: IpAddr,
    /// At least one; names are unique.
    pub ports: Arc<[Port]>,
    pub weight: u16,
    pub ready: bool,
    pub labels: Labels,
    pub capabilities: Arc<[Capability]>,
    pub locality: Arc<Locality>,
    pub sla: Arc<Sla>,
    /// For people, and for those who search by words.
    pub description: Arc<str>,
    /// Its A2A agent card, as `agent_card` let it in.
    pub card: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    pub since: UnixMillis,
    pub time: Duration,
}

/// How much of its static weight an instance's load leaves it, in percent: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u8);

impl Share {
    pub const FULL: Self = Self(100);

    /// Of a number beyond the bounds, the nearest within.
    pub fn of_percent(percent: u32) -> Self {
        Self(percent.clamp(1, 100) as u8)
    }

    pub fn percent(self) -> u32 {
        self.0.into()
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::FULL
    }
}

/// One registered instance, as it is stored. What agent, probes and operators say of it are axes, each on its own; the
/// verdict follows from them (`health`).
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub key: InstanceKey,
    pub incarnation: Incarnation,
    pub lease: LeaseId,
    pub spec: Arc<InstanceSpec>,
    pub registered_at: UnixMillis,
    /// Since when the agent says about its readiness what it says.
    pub ready_since: UnixMillis,
    /// Whether this incarnation was ever ready.
    pub was_ready: bool,
    /// Since when its lease has lapsed; it is there still because of the brake.
    pub lapsed: Option<Brake>,
    /// Since when its failing checks are not believed.
    pub disbelieved: Option<UnixMillis>,
    /// By name.
    pub checks: Arc<[CheckState]>,
    pub operator: Option<Arc<Override>>,
    pub drain: Option<Drain>,
    pub share: Share,
    /// Since when the verdict is what it is.
    pub health_since: UnixMillis,
    pub history: History,
}

impl Instance {
    /// A new one, of which nobody but its agent has said anything.
    pub fn new(
        key: InstanceKey,
        incarnation: Incarnation,
        lease: LeaseId,
        spec: Arc<InstanceSpec>,
        now: UnixMillis,
    ) -> Self {
        Self {
            key,
            incarnation,
            lease,
            was_ready: false,
            spec,
            registered_at: now,
            ready_since: now,
            lapsed: None,
            disbelieved: None,
            checks: Arc::default(),
            operator: None,
            drain: None,
            share: Share::FULL,
            health_since: now,
            history: History::default(),
        }
    }

    pub fn port(&self, name: &PortName) -> Option<&Port> {
        self.spec.ports.iter().find(|port| port.name == *name)
    }

    /// The weight that it has in traffic: what its load leaves of the static one. 0 only if that is.
    pub fn weight(&self) -> u16 {
        let weight = u32::from(self.spec.weight);
        (weight * self.share.percent()).div_ceil(100).try_into().unwrap_or(u16::MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalCause {
    Expired,
    Deregistered,
    Drained,
    /// Another instance of the service registered its address and port.
    Replaced,
    /// A liveness check failed for the time that its service sets.
    Evicted,
}

impl RemovalCause {
    /// Whether the same incarnation may register again. What somebody decided is not undone by a late message; an
    /// expiry, or what a probe found, was nobody's decision.
    pub fn may_return(self) -> bool {
        matches!(self, Self::Expired | Self::Evicted)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deregistered => "deregistered",
            Self::Drained => "drained",
            Self::Replaced => "replaced",
            Self::Evicted => "evicted",
        }
    }
}

/// What is remembered of an instance that left, so that its late messages change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub incarnation: Incarnation,
    pub cause: RemovalCause,
    pub removed_at: UnixMillis,
    /// Up to its removal.
    pub history: History,
}

/// How long registrations hold without a heartbeat. The deadline itself is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub ttl: Duration,
    pub incarnation: Incarnation,
    /// Who times it, and alone may end it.
    pub owner: ReplicaId,
}
