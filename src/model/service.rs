//! What a service fixes for all its instances.

use std::{collections::BTreeMap, time::Duration};

use super::{PortName, Protocol};

/// How long an instance drains when the service does not say.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(15);

/// A port's protocol never changes, and ports are never taken away: routes and clusters hang on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub protocol: Protocol,
    /// The number that clients name (`reviews:9090`); instances may listen elsewhere.
    pub number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What the plain service name means: one of `ports`.
    pub default_port: PortName,
    pub ports: BTreeMap<PortName, ServicePort>,
    pub drain_time: Duration,
}
