//! What a service fixes for all its instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Check, Invalid, LoadPolicy, Namespace, PortName, Protocol, selector::InstanceSelector};

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
    /// Whether those that fall silent together are kept for a while.
    pub brake: bool,
    /// How load becomes weight.
    pub load: LoadPolicy,
    /// By name.
    pub checks: Arc<[Check]>,
    /// Whether a proxy goes to its own zone first, then to its region.
    pub failover: Option<Failover>,
    /// Of a virtual service: its members are the instances, of any service, that match.
    pub selector: Option<InstanceSelector>,
}

/// Endpoints have priorities by where they are, seen from the proxy: its own zone, its own region, elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// In percent, 100 to 1 000: with 140 a zone is left in part when less than 72 % of it are healthy.
    pub overprovisioning_factor: u32,
}

impl Failover {
    /// Envoy's own.
    pub const DEFAULT_OVERPROVISIONING: u32 = 140;
}

/// What somebody puts: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePatch {
    pub default_port: Option<PortName>,
    /// Each name once.
    pub ports: Vec<(PortName, ServicePort)>,
    pub drain_time: Option<Duration>,
    pub exports: Option<Exports>,
    pub brake: Option<bool>,
    pub load: Option<LoadPolicy>,
    pub checks: Option<Arc<[Check]>>,
    pub failover: Option<Option<Failover>>,
    pub selector: Option<InstanceSelector>,
}

impl Service {
    /// As a registration makes it.
    pub fn new(default_port: PortName) -> Self {
        Self {
            default_port,
            ports: BTreeMap::new(),
            drain_time: DEFAULT_DRAIN_TIME,
            exports: Exports::default(),
            brake: true,
            load: LoadPolicy::default(),
            checks: Arc::default(),
            failover: None,
            selector: None,
        }
    }

    pub fn is_virtual(&self) -> bool {
        self.selector.is_some()
    }
}

impl ServicePatch {
    /// The service that it makes of the present one, or of none. That protocols stay the same is the caller's to check.
    pub fn apply(&self, current: Option<&Service>) -> Result<Service, Invalid> {
        let mut ports = current.map(|current| current.ports.clone()).unwrap_or_default();
        ports.extend(self.ports.iter().cloned());
        let stands = current.map(|current| &current.default_port);
        let default_port = self.default_port.as_ref().or(stands).or(self.ports.first().map(|(name, _)| name));
        let default_port = default_port.ok_or_else(|| Invalid::new("ports", "", "at least one port"))?.clone();
        if !ports.contains_key(&default_port) {
            let field = if self.ports.is_empty() && current.is_none() { "ports" } else { "default_port" };
            return Err(Invalid::new(field, default_port, "the name of one of the ports"));
        }
        let stays = current.cloned().unwrap_or_else(|| Service::new(default_port.clone()));
        Ok(Service {
            default_port,
            ports,
            drain_time: self.drain_time.unwrap_or(stays.drain_time),
            exports: self.exports.clone().unwrap_or(stays.exports),
            brake: self.brake.unwrap_or(stays.brake),
            load: self.load.unwrap_or(stays.load),
            checks: self.checks.clone().unwrap_or(stays.checks),
            failover: self.failover.unwrap_or(stays.failover),
            selector: self.selector.clone().or(stays.selector),
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays() {
        let name = |text: &str| PortName::parse("name", text).expect("a label");
        let port = |text: &str, number| (name(text), ServicePort { protocol: Protocol::Http, number });
        let new = ServicePatch { ports: vec![port("web", 80), port("admin", 81)], ..ServicePatch::default() };
        let service = new.apply(None).expect("valid");
        assert_eq!((service.default_port.as_str(), service.drain_time), ("web", DEFAULT_DRAIN_TIME));
        let unchanged = ServicePatch::default().apply(Some(&service)).expect("valid");
        assert_eq!(unchanged, service);
        let time = Duration::from_secs(1);
        let exports = Exports { all: true, ..Exports::default() };
        let patch = ServicePatch {
            default_port: Some(name("extra")),
            ports: [port("extra", 82), port("web", 8080)].into(),
            drain_time: Some(time),
            exports: Some(exports.clone()),
            brake: Some(false),
            load: Some(LoadPolicy { enabled: false, ..LoadPolicy::default() }),
            checks: None,
            failover: Some(Some(Failover { overprovisioning_factor: 140 })),
            selector: None,
        };
        let changed = patch.apply(Some(&service)).expect("valid");
        assert_eq!((changed.default_port.as_str(), changed.drain_time, &changed.exports), ("extra", time, &exports));
        assert_eq!((changed.ports.len(), changed.ports[&name("web")].number, changed.brake), (3, 8080, false));
        assert!(!changed.load.enabled && service.load.enabled);
        let none = ServicePatch { exports: Some(Exports::default()), ..ServicePatch::default() };
        assert_eq!(none.apply(Some(&changed)).expect("valid").exports, Exports::default());
        let other = ServicePatch { default_port: Some(name("other")), ..ServicePatch::default() };
        assert_eq!(other.apply(Some(&service)).expect_err("no such port").field, "default_port");
        assert_eq!(other.apply(None).expect_err("no port").field, "ports");
        assert_eq!(ServicePatch::default().apply(None).expect_err("no port").field, "ports");
    }
}
