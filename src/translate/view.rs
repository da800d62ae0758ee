//! What a proxy may see: the services of its own namespace and those exported to it; and of these, if it says so, only
//! those that it imports. Proxies with equal views share everything.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use super::{
    ResourceKey, Scope, Vantage,
    names::{OUTBOUND, clusters_of, parse_cluster},
};
use crate::{
    model::{Exports, Invalid, Namespace, ResourceType, ServiceKey, ServiceName},
    registry::state::Snapshot,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub namespace: Namespace,
    /// Where its outbound listener listens; none for a proxy without one.
    pub outbound: Option<SocketAddr>,
    /// All that it may see if none.
    pub imports: Option<Arc<Imports>>,
    /// One of gRPC's own clients, and no Envoy.
    pub grpc: bool,
}

/// What a proxy wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imports {
    services: BTreeSet<ServiceKey>,
    /// Of these all services.
    namespaces: BTreeSet<Namespace>,
}

impl Imports {
    /// Reads names as a proxy in `from` writes them: `S`, `S.NS`, `*` for its own namespace, `*.NS` for another.
    pub fn parse<'a>(field: &str, names: impl IntoIterator<Item = &'a str>, from: &Namespace) -> Result<Self, Invalid> {
        let mut imports = Self::default();
        for name in names {
            let (service, namespace) = match name.split_once('.') {
                Some((service, namespace)) => (service, Namespace::parse(field, namespace)?),
                None => (name, from.clone()),
            };
            if service == "*" {
                imports.namespaces.insert(namespace);
            } else {
                imports.services.insert(ServiceKey { namespace, name: ServiceName::parse(field, service)? });
            }
        }
        Ok(imports)
    }

    fn include(&self, service: &ServiceKey) -> bool {
        self.namespaces.contains(&service.namespace) || self.services.contains(service)
    }
}

impl View {
    /// The resource that a name means to this proxy.
    pub fn key(&self, kind: ResourceType, name: &Arc<str>) -> ResourceKey {
        let scope = match (kind, self.outbound) {
            (ResourceType::Listener, Some(address)) if **name == *OUTBOUND => Scope::Outbound(address),
            (ResourceType::Route, _) if **name == *OUTBOUND => {
                Scope::Routes(self.namespace.clone(), self.imports.clone())
            }
            (ResourceType::Listener, _) => Scope::Namespace(self.namespace.clone()),
            (ResourceType::Endpoint, _) => Vantage { grpc: self.grpc, locality: None }.scope(),
            _ => Scope::Shared,
        };
        ResourceKey { kind, name: name.clone(), scope }
    }

    /// Whether it may know of a service.
    pub fn sees(&self, service: &ServiceKey, exports: &Exports) -> bool {
        sees(&self.namespace, service, exports)
    }

    /// The names of generated resources that a wildcard subscription means.
    pub fn wildcard(&self, kind: ResourceType, snapshot: &Snapshot) -> Vec<Arc<str>> {
        match kind {
            ResourceType::Cluster => services(&self.namespace, self.imports.as_deref(), snapshot)
                .flat_map(|state| clusters_of(state))
                .collect(),
            ResourceType::Listener if self.outbound.is_some() => vec![OUTBOUND.into()],
            _ => Vec::new(),
        }
    }

    /// Whether a generated resource, if it exists and may be seen, belongs to the wildcard.
    pub fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool {
        match kind {
            ResourceType::Cluster => self
                .imports
                .as_ref()
                .is_none_or(|imports| parse_cluster(name).is_some_and(|(service, _)| imports.include(&service))),
            ResourceType::Listener => name == OUTBOUND && self.outbound.is_some(),
            _ => false,
        }
    }
}

fn sees(namespace: &Namespace, service: &ServiceKey, exports: &Exports) -> bool {
    service.namespace == *namespace || exports.include(namespace)
}

/// The services that a proxy is told of.
pub(super) fn services<'a>(
    namespace: &'a Namespace,
    imports: Option<&'a Imports>,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Arc<crate::registry::state::ServiceState>> {
    snapshot.services.values().filter(move |state| {
        sees(namespace, &state.key, &state.service.value.exports)
            && imports.is_none_or(|imports| imports.include(&state.key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse;

    #[test]
    fn imports_are_seen_from_a_namespace() {
        let shop = Namespace::parse("", "shop").expect("a label");
        let imports = Imports::parse("imports", ["web", "api.default", "*.lab"], &shop).expect("valid");
        for (namespace, service, included) in [
            ("shop", "web", true),
            ("default", "web", false),
            ("default", "api", true),
            ("lab", "anything", true),
            ("shop", "api", false),
        ] {
            let key = parse::service_key(namespace, service).expect("a key");
            assert_eq!(imports.include(&key), included, "{key}");
        }
        for name in ["", "A", "a.b.c", "a.", "*."] {
            assert_eq!(Imports::parse("imports", [name], &shop).expect_err(name).field, "imports");
        }
    }
}
