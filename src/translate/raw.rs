//! Resources that somebody wrote: their bytes are sent as they are. What they lead to is read from them, so that they
//! take part in make before break.

use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::envoy::config::{
    listener::v3::{Listener, filter::ConfigType},
    route::v3::{RouteConfiguration, VirtualHost, route::Action, route_action::ClusterSpecifier},
};
use envoy_types::pb::envoy::extensions::filters::network::{
    http_connection_manager::v3::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
    tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier as TcpClusters},
};
use prost::{Message, Name};

use super::{Built, ResourceKey, Scope};
use crate::{
    model::{RawKey, ResourceType},
    registry::state::Snapshot,
};

pub(super) fn build(key: &ResourceKey, snapshot: &Snapshot) -> Option<Built> {
    let variant = match &key.scope {
        Scope::Variant(variant) => variant.clone(),
        _ => Arc::from(""),
    };
    let raw_key = RawKey { kind: key.kind, name: key.name.clone(), variant };
    let raw = &snapshot.raw.get(&raw_key)?.value;
    // One that is for some proxies only is reached by its variant.
    if raw.selector.is_some() && !matches!(key.scope, Scope::Variant(_)) {
        return None;
    }
    let bytes = raw.bytes.to_vec();
    Some(Built { clusters: clusters(key.kind, &bytes), bytes, ttl: raw.ttl, raw: true, service: None })
}

/// The clusters that a resource sends traffic to, as far as they are named in plain.
fn clusters(kind: ResourceType, bytes: &[u8]) -> Vec<Arc<str>> {
    let mut names = BTreeSet::new();
    match kind {
        ResourceType::Route => {
            for host in RouteConfiguration::decode(bytes).into_iter().flat_map(|routes| routes.virtual_hosts) {
                of_host(host, &mut names);
            }
        }
        ResourceType::VirtualHost => {
            if let Ok(host) = VirtualHost::decode(bytes) {
                of_host(host, &mut names);
            }
        }
        ResourceType::Listener => of_listener(bytes, &mut names),
        _ => {}
    }
    names.into_iter().map(Arc::from).collect()
}

fn of_host(host: VirtualHost, names: &mut BTreeSet<String>) {
    for route in host.routes {
        let Some(Action::Route(action)) = route.action else { continue };
        match action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => drop(names.insert(name)),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                names.extend(weighted.clusters.into_iter().map(|cluster| cluster.name).filter(|name| !name.is_empty()));
            }
            _ => {}
        }
    }
}

fn of_listener(bytes: &[u8], names: &mut BTreeSet<String>) {
    let Ok(listener) = Listener::decode(bytes) else { return };
    let api = listener.api_listener.and_then(|api| api.api_listener);
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    let filters = chains.flat_map(|chain| chain.filters).filter_map(|filter| match filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        _ => None,
    });
    for any in filters.chain(api) {
        if any.type_url == HttpConnectionManager::type_url() {
            let manager = HttpConnectionManager::decode(&*any.value).ok();
            if let Some(RouteSpecifier::RouteConfig(routes)) = manager.and_then(|manager| manager.route_specifier) {
                routes.virtual_hosts.into_iter().for_each(|host| of_host(host, names));
            }
        } else if any.type_url == TcpProxy::type_url() {
            match TcpProxy::decode(&*any.value).ok().and_then(|proxy| proxy.cluster_specifier) {
                Some(TcpClusters::Cluster(name)) => drop(names.insert(name)),
                Some(TcpClusters::WeightedClusters(weighted)) => {
                    names.extend(weighted.clusters.into_iter().map(|cluster| cluster.name));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{NodeSelector, RawResource, Revision},
        registry::command::Versioned,
        translate::{http::route_to, lds},
    };

    fn snapshot(raw: RawKey, bytes: Vec<u8>, selector: Option<NodeSelector>) -> Snapshot {
        let value = RawResource { bytes: bytes.into(), selector, ttl: None };
        let mut snapshot = Snapshot::default();
        snapshot.raw.insert(raw, Versioned { revision: Revision(1), value: Arc::new(value) });
        snapshot
    }

    #[test]
    fn what_is_written_is_sent_as_it_is_and_known_for_where_it_leads() {
        let host =
            VirtualHost { name: "all".into(), routes: vec![route_to("web"), route_to("api")], ..Default::default() };
        let routes = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
        let raw = RawKey { kind: ResourceType::Route, name: "r".into(), variant: "".into() };
        let key = ResourceKey { kind: ResourceType::Route, name: "r".into(), scope: Scope::Shared };
        let built = build(&key, &snapshot(raw, routes.encode_to_vec(), None)).expect("a resource");
        assert_eq!(built.bytes, routes.encode_to_vec());
        assert_eq!(built.clusters, ["api".into(), "web".into()]);
    }

    #[test]
    fn a_listener_leads_where_its_filters_do() {
        let bytes = lds::outbound("127.0.0.1:1".parse().expect("an address")).bytes;
        assert_eq!(clusters(ResourceType::Listener, &bytes), Vec::<Arc<str>>::new());
        assert_eq!(clusters(ResourceType::Listener, b"\xff"), Vec::<Arc<str>>::new());
    }
}
