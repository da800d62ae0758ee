//! What a service fixes for all its instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Namespace, PortName, Protocol};

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
    pub exports: Exports,
}

/// What somebody says of a service. What is left out stays, or has its default in a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceChange {
    pub default_port: Option<PortName>,
    /// In their order: the first is the default port of a new service.
    pub ports: Vec<(PortName, ServicePort)>,
    pub drain_time: Option<Duration>,
    pub exports: Option<Exports>,
}

/// The namespaces, beside its own, whose proxies may see a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    pub all: bool,
    pub namespaces: BTreeSet<Namespace>,
}

impl Exports {
    pub fn include(&self, namespace: &Namespace) -> bool {
        self.all || self.namespaces.contains(namespace)
    }
}
