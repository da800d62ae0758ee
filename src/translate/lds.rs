//! Listeners: the outbound one of a sidecar, and the API listeners of proxyless gRPC clients.

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Address, SocketAddress, TrafficDirection, address, socket_address::PortSpecifier},
        listener::v3::{ApiListener, Filter, FilterChain, Listener, filter::ConfigType},
        route::v3::{RouteConfiguration, VirtualHost},
    },
    extensions::filters::network::http_connection_manager::v3::{Rds, http_connection_manager::RouteSpecifier},
};
use prost::Message;

use super::{
    Built, any,
    http::{connection_manager, route_to},
    names::{OUTBOUND, choose, cluster, parse_authority},
    over_ads,
};
use crate::{model::Namespace, registry::state::Snapshot};

/// Where an application sends its requests; the host name picks the service.
pub fn outbound(listen: SocketAddr) -> Built {
    let routes = Rds { config_source: Some(over_ads(None)), route_config_name: OUTBOUND.into() };
    let manager = connection_manager("outbound", RouteSpecifier::Rds(routes));
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(ConfigType::TypedConfig(any(&manager))),
    };
    let address = SocketAddress {
        address: listen.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(listen.port().into())),
        ..Default::default()
    };
    let listener = Listener {
        name: OUTBOUND.into(),
        address: Some(Address { address: Some(address::Address::SocketAddress(address)) }),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Default::default()
    };
    Built { bytes: listener.encode_to_vec(), ..Built::default() }
}

/// What a gRPC client's target `xds:///name` is: the name as an authority, with its one route inside.
pub fn api_listener(name: &str, from: &Namespace, snapshot: &Snapshot) -> Option<Built> {
    let (key, choice) = parse_authority(name, from)?;
    let state = snapshot.services.get(&key)?;
    let service = &state.service.value;
    let port = choose(&choice, service).filter(|port| service.ports[*port].protocol.is_http())?;
    let cluster: Arc<str> = cluster(&key, port, &service.default_port);
    let host = VirtualHost {
        name: cluster.to_string(),
        domains: vec!["*".into()],
        routes: vec![route_to(&cluster)],
        ..Default::default()
    };
    let routes = RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() };
    let manager = connection_manager("grpc", RouteSpecifier::RouteConfig(routes));
    let listener = Listener {
        name: name.into(),
        api_listener: Some(ApiListener { api_listener: Some(any(&manager)) }),
        ..Default::default()
    };
    Some(Built {
        bytes: listener.encode_to_vec(),
        clusters: vec![cluster],
        service: Some(state.owner()),
        ..Built::default()
    })
}
