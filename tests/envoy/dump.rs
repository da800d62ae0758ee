//! What Envoy holds, from its configuration dump: names and addresses, without how.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::Value;

use crate::envoy::{Envoy, Host, Hosts};

/// What came over xDS.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub clusters: BTreeSet<String>,
    /// Of the clusters with discovered endpoints.
    pub endpoints: BTreeMap<String, Hosts>,
    /// Host names without a port, and where they lead.
    pub routes: BTreeMap<String, String>,
}

impl Held {
    pub async fn of(envoy: &Envoy) -> Self {
        let dump = envoy.admin("/config_dump?include_eds").await.json();
        let cluster = |held: &Value| text(&held["cluster"]["name"]);
        let assignment = |held: &Value| {
            let held = &held["endpoint_config"];
            let endpoints = all(&held["endpoints"]).flat_map(|group| all(&group["lb_endpoints"]));
            (text(&held["cluster_name"]), endpoints.map(host).collect())
        };
        let hosts = |held: &Value| {
            let hosts = all(&held["route_config"]["virtual_hosts"]);
            hosts.flat_map(domains).filter(|(domain, _)| !domain.contains(':')).collect::<Vec<_>>()
        };
        Self {
            clusters: part(&dump, "dynamic_active_clusters").map(cluster).collect(),
            endpoints: part(&dump, "dynamic_endpoint_configs").map(assignment).collect(),
            routes: part(&dump, "dynamic_route_configs").flat_map(hosts).collect(),
        }
    }
}

fn part<'a>(dump: &'a Value, list: &'a str) -> impl Iterator<Item = &'a Value> {
    all(&dump["configs"]).flat_map(move |part| all(&part[list]))
}

fn all(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn host(endpoint: &Value) -> (SocketAddr, Host) {
    let address = &endpoint["endpoint"]["address"]["socket_address"];
    let ip = text(&address["address"]).parse().expect("an IP address");
    let port = address["port_value"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    let weight = endpoint["load_balancing_weight"].as_u64().unwrap_or_default();
    (SocketAddr::new(ip, port), Host { weight, health: text(&endpoint["health_status"]) })
}

fn domains(host: &Value) -> Vec<(String, String)> {
    let cluster = text(&host["routes"][0]["route"]["cluster"]);
    all(&host["domains"]).map(|domain| (text(domain), cluster.clone())).collect()
}
