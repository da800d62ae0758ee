//! Which xDS services there are, and their calls' names.

use super::protocol::Dialect;
use crate::model::ResourceType;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Stream(Dialect),
    /// One request, one response.
    Fetch,
}

#[derive(Debug)]
pub struct Service {
    pub name: &'static str,
    /// Its one type; none on ADS.
    pub only: Option<ResourceType>,
    /// The end of its calls' names.
    noun: &'static str,
}

pub const SERVICES: [Service; 10] = [
    service("envoy.service.discovery.v3.AggregatedDiscoveryService", None, "AggregatedResources"),
    service("envoy.service.cluster.v3.ClusterDiscoveryService", Some(ResourceType::Cluster), "Clusters"),
    service("envoy.service.endpoint.v3.EndpointDiscoveryService", Some(ResourceType::Endpoint), "Endpoints"),
    service("envoy.service.listener.v3.ListenerDiscoveryService", Some(ResourceType::Listener), "Listeners"),
    service("envoy.service.route.v3.RouteDiscoveryService", Some(ResourceType::Route), "Routes"),
    service("envoy.service.route.v3.ScopedRoutesDiscoveryService", Some(ResourceType::ScopedRoute), "ScopedRoutes"),
    service("envoy.service.route.v3.VirtualHostDiscoveryService", Some(ResourceType::VirtualHost), "VirtualHosts"),
    service("envoy.service.secret.v3.SecretDiscoveryService", Some(ResourceType::Secret), "Secrets"),
    service(
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Some(ResourceType::ExtensionConfig),
        "ExtensionConfigs",
    ),
    service("envoy.service.runtime.v3.RuntimeDiscoveryService", Some(ResourceType::Runtime), "Runtime"),
];

const fn service(name: &'static str, only: Option<ResourceType>, noun: &'static str) -> Service {
    Service { name, only, noun }
}

impl Service {
    /// Where a client without gRPC fetches it.
    pub fn rest_path(&self) -> Option<&'static str> {
        Some(match self.only? {
            ResourceType::Cluster => "/v3/discovery:clusters",
            ResourceType::Endpoint => "/v3/discovery:endpoints",
            ResourceType::Listener => "/v3/discovery:listeners",
            ResourceType::Route => "/v3/discovery:routes",
            ResourceType::ScopedRoute => "/v3/discovery:scoped-routes",
            ResourceType::Secret => "/v3/discovery:secrets",
            ResourceType::ExtensionConfig => "/v3/discovery:extension_configs",
            ResourceType::Runtime => "/v3/discovery:runtime",
            ResourceType::VirtualHost => return None,
        })
    }

    /// The paths of its calls. Virtual hosts on demand are incremental only, and ADS has nothing to fetch.
    pub fn calls(&self) -> impl Iterator<Item = (String, Method)> {
        let methods = match self.only {
            None => {
                &[("Stream", Method::Stream(Dialect::StateOfTheWorld)), ("Delta", Method::Stream(Dialect::Incremental))]
                    [..]
            }
            Some(ResourceType::VirtualHost) => &[("Delta", Method::Stream(Dialect::Incremental))],
            Some(_) => &[
                ("Stream", Method::Stream(Dialect::StateOfTheWorld)),
                ("Delta", Method::Stream(Dialect::Incremental)),
                ("Fetch", Method::Fetch),
            ],
        };
        methods.iter().map(|(verb, method)| (format!("/{}/{verb}{}", self.name, self.noun), *method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_as_in_envoys_protos() {
        let paths: Vec<String> = SERVICES.iter().flat_map(|service| service.calls().map(|(path, _)| path)).collect();
        assert_eq!(paths.len(), 2 + 1 + 8 * 3);
        for path in [
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
            "/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime",
            "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts",
        ] {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }
}
