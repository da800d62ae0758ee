//! What a watch is about.

use std::sync::Arc;

use crate::{
    model::{Instance, Namespace, ServiceKey, ServiceName, selector::instance::InstanceSelector},
    registry::selector_index::{Alternatives, Fact, facts_of},
};

/// All of it has to hold; an empty one holds for everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub namespace: Option<Namespace>,
    pub service: Option<ServiceName>,
    /// Over what is stored: every change of it is an event.
    pub selector: Option<InstanceSelector>,
}

impl Filter {
    pub fn matches(&self, instance: &Instance) -> bool {
        self.matches_service(&instance.key.service)
            && self.selector.as_ref().is_none_or(|selector| selector.matches(instance, None))
    }

    pub fn matches_service(&self, key: &ServiceKey) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.service.as_ref().is_none_or(|service| *service == key.name)
    }

    /// What must be so of all that it matches.
    pub(super) fn facts(&self) -> Arc<[Alternatives]> {
        let namespace = self.namespace.iter().map(|name| Fact::namespace(name.as_str()));
        let service = self.service.iter().map(|name| Fact::service(name.as_str()));
        let own = namespace.chain(service).map(|fact| Alternatives::from([fact]));
        own.chain(self.selector.iter().flat_map(facts_of)).collect()
    }

    /// Whether every change has to be looked at for its sake.
    pub(super) fn is_broad(&self) -> bool {
        self.selector.is_some() && self.facts().is_empty()
    }
}
