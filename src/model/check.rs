//! Active checks: what Convoy asks of every instance of a service, how often, and what it takes to believe the answers.

use std::{fmt, sync::Arc, time::Duration};

use super::{CheckKind, PortName};

pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
pub const MAX_INTERVAL: Duration = Duration::from_secs(60 * 60);
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
pub const DEFAULT_JITTER_PERCENT: u8 = 10;
pub const MAX_JITTER_PERCENT: u8 = 50;
/// How many results can be looked back at.
pub const MAX_THRESHOLD: u8 = 32;

/// So many of the last so many probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// From 1 to `of`.
    pub count: u8,
    pub of: u8,
}

impl Threshold {
    pub fn in_a_row(count: u8) -> Self {
        Self { count, of: count }
    }
}

/// One check, as a service fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Unique in the service.
    pub name: Arc<str>,
    pub kind: CheckKind,
    /// The service's default port when none is named.
    pub port: Option<PortName>,
    pub interval: Duration,
    /// At most the interval.
    pub timeout: Duration,
    pub jitter_percent: u8,
    pub healthy: Threshold,
    pub unhealthy: Threshold,
    /// How long after its registration failures of an instance that never passed do not count.
    pub grace: Duration,
    /// Only of liveness checks.
    pub deregister_after: Option<Duration>,
    pub probe: Probe,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Http(HttpProbe),
    Tcp { tls: Option<Tls> },
    Grpc { service: String, authority: Option<String>, tls: Option<Tls> },
}

impl Probe {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp { .. } => "tcp",
            Self::Grpc { .. } => "grpc",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// A token of HTTP.
    pub method: String,
    /// Begins with `/`.
    pub path: String,
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    /// At least one.
    pub statuses: Vec<Statuses>,
    pub degraded_statuses: Vec<Statuses>,
    pub body_contains: Option<String>,
    pub tls: Option<Tls>,
}

/// HTTP statuses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

impl Statuses {
    pub const SUCCESS: Self = Self { first: 200, last: 299 };

    pub fn include(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// How an instance proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    pub trust: TlsTrust,
    /// What stands in SNI and certificate; the host, or the address, when it is not said.
    pub server_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsTrust {
    /// Certificates in PEM; at least one.
    Authorities(Arc<str>),
    /// Whoever it says it is.
    Anybody,
}
