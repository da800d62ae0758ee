//! Instances and the leases that hold them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{Incarnation, InstanceKey, LeaseId, PortName, UnixMillis};

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: PortName,
    /// Never 0.
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub name: String,
    pub version: String,
    pub attributes: BTreeMap<String, String>,
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
    pub ports: Vec<Port>,
    pub weight: u16,
    pub ready: bool,
    pub labels: BTreeMap<String, String>,
    pub capabilities: Vec<Capability>,
    pub locality: Arc<Locality>,
    pub sla: Sla,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    pub since: UnixMillis,
    pub time: Duration,
}

/// One registered instance, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub key: InstanceKey,
    pub incarnation: Incarnation,
    pub lease: LeaseId,
    pub spec: InstanceSpec,
    pub registered_at: UnixMillis,
    /// Whether this incarnation was ever ready.
    pub was_ready: bool,
    /// Since when the verdict is what it is.
    pub health_since: UnixMillis,
    pub drain: Option<Drain>,
}

impl Instance {
    pub fn port(&self, name: &PortName) -> Option<&Port> {
        self.spec.ports.iter().find(|port| port.name == *name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalCause {
    Expired,
    Deregistered,
    Drained,
    /// Another instance of the service registered its address and port.
    Replaced,
}

impl RemovalCause {
    /// Whether the same incarnation may register again. What somebody decided is not undone by a late message; an
    /// expiry was nobody's decision.
    pub fn may_return(self) -> bool {
        self == Self::Expired
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deregistered => "deregistered",
            Self::Drained => "drained",
            Self::Replaced => "replaced",
        }
    }
}

/// What is remembered of an instance that left, so that its late messages change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub incarnation: Incarnation,
    pub cause: RemovalCause,
    pub removed_at: UnixMillis,
}

/// How long registrations hold without a heartbeat. The deadline itself is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub ttl: Duration,
    pub incarnation: Incarnation,
}
