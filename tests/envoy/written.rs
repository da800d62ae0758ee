//! Resources as somebody writes them, in Envoy's own JSON.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// A cluster with one address and no discovery.
pub fn cluster(name: &str, backend: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(backend) } }] }],
        },
    })
}

/// A listener whose routes are inside; `filters` come before the router.
pub fn listener(name: &str, at: SocketAddr, filters: &[Value], route: &Value) -> Value {
    let api = "type.googleapis.com/envoy.extensions.filters";
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{api}.http.router.v3.Router") },
    });
    let filters = [filters, &[router]].concat();
    let manager = json!({
        "@type": format!("{api}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "route_config": { "name": name, "virtual_hosts": [host(name, &["*"], route)] },
        "http_filters": filters,
    });
    json!({
        "name": name,
        "address": address(at),
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    })
}

/// A virtual host with one route, which takes every path.
pub fn host(name: &str, domains: &[&str], route: &Value) -> Value {
    json!({ "name": name, "domains": domains, "routes": [{ "match": { "prefix": "/" }, "route": route }] })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
