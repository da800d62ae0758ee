//! The types of xDS resources.

/// The resource types of xDS that a client may ask for. The order is the one in which they are sent (make before
/// break): clusters, endpoints, listeners, routes, then what hangs on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Cluster,
    Endpoint,
    Listener,
    ScopedRoute,
    Route,
    VirtualHost,
    Secret,
    ExtensionConfig,
    Runtime,
}

impl ResourceType {
    pub const ALL: [Self; 9] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::ScopedRoute,
        Self::Route,
        Self::VirtualHost,
        Self::Secret,
        Self::ExtensionConfig,
        Self::Runtime,
    ];

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// As the API and the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Endpoint => "endpoints",
            Self::Listener => "listeners",
            Self::ScopedRoute => "scoped_routes",
            Self::Route => "routes",
            Self::VirtualHost => "virtual_hosts",
            Self::Secret => "secrets",
            Self::ExtensionConfig => "extension_configs",
            Self::Runtime => "runtimes",
        }
    }

    /// The type that `as_str` or `type_url` names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text || kind.type_url() == text)
    }

    /// Whether the client takes what a state-of-the-world response leaves out for deleted.
    pub fn is_full_set(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::ScopedRoute)
    }
}
