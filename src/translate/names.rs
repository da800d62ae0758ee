//! The names of resources, and what they mean.
//!
//! A cluster is named `service` in the namespace `default`, else `service.namespace`; `:port-name` follows for a port
//! that is not the service's default. Names of our own contain `/`, so that no service can have them.

use std::sync::Arc;

use crate::{
    model::{Namespace, PortName, ServiceKey, ServiceName, ids::is_label},
    registry::state::ServiceState,
};

/// The outbound listener and its route configuration.
pub const OUTBOUND: &str = "convoy/outbound";

/// The name of a service's cluster, which is also that of its assignment.
pub fn cluster(service: &ServiceKey, port: &PortName, default_port: &PortName) -> Arc<str> {
    let ServiceKey { namespace, name } = service;
    match (namespace.is_default(), port == default_port) {
        (true, true) => name.as_str().into(),
        (true, false) => format!("{name}:{port}").into(),
        (false, true) => format!("{name}.{namespace}").into(),
        (false, false) => format!("{name}.{namespace}:{port}").into(),
    }
}

/// All clusters of a service, in the order of its ports.
pub fn clusters_of(state: &ServiceState) -> impl Iterator<Item = Arc<str>> {
    let service = &state.service.value;
    service.ports.keys().map(|port| cluster(&state.key, port, &service.default_port))
}

/// What a cluster's name means: the service, and its port unless it is the default one.
pub fn parse_cluster(name: &str) -> Option<(ServiceKey, Option<PortName>)> {
    let (host, port) = match name.split_once(':') {
        Some((host, port)) => (host, Some(label(port, PortName::parse)?)),
        None => (name, None),
    };
    let (service, namespace) = match host.split_once('.') {
        // In the default namespace a cluster has one name only.
        Some((_, Namespace::DEFAULT)) => return None,
        Some((service, namespace)) => (service, label(namespace, Namespace::parse)?),
        None => (host, Namespace::default()),
    };
    Some((ServiceKey { namespace, name: label(service, ServiceName::parse)? }, port))
}

/// The port that a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChoice {
    Default,
    Named(PortName),
    /// The port of this number, or else the default one.
    Numbered(u16),
}

/// What a host as a client writes it means: `S`, `S.NS`, `PORT.S.NS`, and each with a number, seen from a namespace.
pub fn parse_authority(authority: &str, from: &Namespace) -> Option<(ServiceKey, PortChoice)> {
    let (host, number) = match authority.split_once(':') {
        Some((host, number)) => (host, PortChoice::Numbered(number.parse().ok()?)),
        None => (authority, PortChoice::Default),
    };
    let parts: Vec<&str> = host.split('.').collect();
    let (service, namespace, port) = match parts[..] {
        [service] => (service, from.clone(), number),
        [service, namespace] => (service, label(namespace, Namespace::parse)?, number),
        [port, service, namespace] => {
            (service, label(namespace, Namespace::parse)?, PortChoice::Named(label(port, PortName::parse)?))
        }
        _ => return None,
    };
    Some((ServiceKey { namespace, name: label(service, ServiceName::parse)? }, port))
}

/// The service's port that a choice means.
pub fn choose<'a>(choice: &PortChoice, service: &'a crate::model::Service) -> Option<&'a PortName> {
    match choice {
        PortChoice::Default => Some(&service.default_port),
        PortChoice::Named(name) => service.ports.get_key_value(name).map(|(name, _)| name),
        PortChoice::Numbered(number) => {
            let of_number = |name: &&PortName| service.ports.get(*name).is_some_and(|port| port.number == *number);
            let default = Some(&service.default_port);
            default.filter(of_number).or_else(|| service.ports.keys().find(of_number)).or(default)
        }
    }
}

fn label<T, E>(text: &str, parse: impl Fn(&str, &str) -> Result<T, E>) -> Option<T> {
    // Names come from clients by the thousand: the check goes before the error's text is made.
    is_label(text).then(|| parse("", text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse;

    #[test]
    fn cluster_names_mean_what_they_were_made_of() {
        let port = |name| PortName::parse("port", name).expect("a label");
        for (namespace, service, name, expected) in [
            ("default", "web", "http", "web"),
            ("default", "web", "admin", "web:admin"),
            ("shop", "web", "http", "web.shop"),
            ("shop", "web", "admin", "web.shop:admin"),
        ] {
            let key = parse::service_key(namespace, service).expect("a key");
            let made = cluster(&key, &port(name), &port("http"));
            assert_eq!(&*made, expected);
            let named = (name != "http").then(|| port(name));
            assert_eq!(parse_cluster(&made), Some((key, named)));
        }
    }

    #[test]
    fn other_names_mean_nothing() {
        for name in ["", "a.b.c", "web.default", "A", "web:", ":http", "web.", OUTBOUND, "a b", &"x".repeat(64)] {
            assert_eq!(parse_cluster(name), None, "{name}");
        }
        for name in ["", "a.b.c.d", "web:http", "web:99999", OUTBOUND, "web."] {
            assert_eq!(parse_authority(name, &Namespace::default()), None, "{name}");
        }
    }

    #[test]
    fn authorities_are_seen_from_a_namespace() {
        let shop = Namespace::parse("", "shop").expect("a label");
        let named = |name| PortChoice::Named(PortName::parse("", name).expect("a label"));
        for (authority, service, port) in [
            ("web", "shop/web", PortChoice::Default),
            ("web.default", "default/web", PortChoice::Default),
            ("web:81", "shop/web", PortChoice::Numbered(81)),
            ("web.default:81", "default/web", PortChoice::Numbered(81)),
            ("admin.web.default", "default/web", named("admin")),
        ] {
            let (key, choice) = parse_authority(authority, &shop).expect(authority);
            assert_eq!((key.to_string().as_str(), choice), (service, port), "{authority}");
        }
    }
}
