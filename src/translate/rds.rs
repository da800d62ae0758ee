//! Routes: the outbound route configuration, by host name.
//!
//! A service's default port answers to `S` (in the proxy's own namespace) and `S.NS`, with any port; every port also to
//! `PORT.S.NS`, and the others to `S:NUMBER` and `S.NS:NUMBER`. `S` has one label, `S.NS` two and `PORT.S.NS` three, so
//! no domain stands twice (Envoy would reject the whole configuration) but for numbers, of which the first port's wins.
//! One configuration holds all services of the view: it is rebuilt when a service's definition changes, never for an
//! instance.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use prost::Message;

use super::{
    Built, Imports,
    http::route_to,
    names::{OUTBOUND, cluster},
    view::services,
};
use crate::{
    model::{Namespace, PortName},
    registry::state::{ServiceState, Snapshot},
};

pub fn outbound(namespace: &Namespace, imports: Option<&Imports>, snapshot: &Snapshot) -> Built {
    let mut clusters = Vec::new();
    let mut hosts = Vec::new();
    for state in services(namespace, imports, snapshot) {
        let service = &state.service.value;
        let mut numbers = BTreeSet::from([service.ports[&service.default_port].number]);
        for port in service.ports.iter().filter(|(_, port)| port.protocol.is_http()).map(|(name, _)| name) {
            let cluster = cluster(&state.key, port, &service.default_port);
            hosts.push(VirtualHost {
                name: cluster.to_string(),
                domains: domains(state, port, namespace, &mut numbers),
                routes: vec![route_to(&cluster)],
                ..Default::default()
            });
            clusters.push(cluster);
        }
    }
    let routes = RouteConfiguration { name: OUTBOUND.into(), virtual_hosts: hosts, ..Default::default() };
    Built { bytes: routes.encode_to_vec(), clusters, ..Built::default() }
}

fn domains(state: &ServiceState, port: &PortName, from: &Namespace, numbers: &mut BTreeSet<u16>) -> Vec<String> {
    let service = &state.service.value;
    let (name, namespace) = (&state.key.name, &state.key.namespace);
    let full = format!("{name}.{namespace}");
    let mut hosts = vec![full.clone()];
    if namespace == from {
        hosts.insert(0, name.to_string());
    }
    let by_port = format!("{port}.{full}");
    let mut domains = Vec::new();
    for host in hosts {
        if *port == service.default_port {
            domains.extend([host.clone(), format!("{host}:*")]);
        }
    }
    if *port != service.default_port && numbers.insert(service.ports[port].number) {
        let number = service.ports[port].number;
        if namespace == from {
            domains.push(format!("{name}:{number}"));
        }
        domains.push(format!("{full}:{number}"));
    }
    domains.extend([by_port.clone(), format!("{by_port}:*")]);
    domains
}
