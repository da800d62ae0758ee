//! Virtual services: named selectors. Their members follow every change as it is applied, and are part of the same snapshot.
//!
//! A change costs those virtual services whose terms hold for the instance, as it was or as it is (`SelectorIndex`), and
//! each of these one evaluation. A service sees the instances of its own namespace, and of services exported to it.
//! A new or changed selector looks at all of these once.

use std::collections::BTreeSet;

use super::{
    command::Versioned,
    selector_index::SelectorIndex,
    state::{Dirty, Effects, State},
};
use crate::model::{Exports, Instance, InstanceKey, Revision, ServiceKey, selector::InstanceSelector};

/// A virtual service leads to no more than this, the first in the order of namespaces, services and ids.
pub const MAX_MEMBERS: usize = 10_000;

#[derive(Debug, Default)]
pub struct Virtuals {
    index: SelectorIndex<ServiceKey>,
    /// What the members were found by.
    selectors: std::collections::HashMap<ServiceKey, InstanceSelector>,
    /// To whom the services that have instances are exported, as the members were found.
    exports: std::collections::HashMap<ServiceKey, Exports>,
}

impl Virtuals {
    pub(super) fn remove(&mut self, key: &ServiceKey) {
        self.index.remove(key);
        self.selectors.remove(key);
        self.exports.remove(key);
    }
}

impl State {
    pub fn virtual_services(&self) -> usize {
        self.virtuals.selectors.len()
    }

    /// A service is new or changed: if it is virtual its members may be others, else it may be one that others see.
    pub(super) fn service_selects(&mut self, key: &ServiceKey, revision: Revision, effects: &mut Effects) {
        let Some(state) = self.snapshot.services.get(key) else { return };
        match state.service.value.selector.clone() {
            Some(selector) => {
                if self.virtuals.selectors.get(key) == Some(&selector) {
                    return;
                }
                self.virtuals.index.insert(key.clone(), &selector);
                let sees = |of: &&std::sync::Arc<super::state::ServiceState>| {
                    sees(key, &of.key, &of.service.value.exports) && selector.terms().may_hold_in(&of.key)
                };
                let all = self.snapshot.services.values().filter(sees).flat_map(|of| of.instances.values());
                let matching = all.filter(|instance| selector.matches(&instance.value, None));
                let members = matching.map(|instance| (instance.value.key.clone(), instance.clone())).collect();
                self.virtuals.selectors.insert(key.clone(), selector);
                if let Some(state) = self.snapshot.services.get_mut(key) {
                    std::sync::Arc::make_mut(state).members = members;
                }
            }
            None => {
                let exports = state.service.value.exports.clone();
                let before = self.virtuals.exports.insert(key.clone(), exports.clone());
                if before.is_some_and(|before| before != exports) {
                    let instances: Vec<_> = state.instances.values().cloned().collect();
                    for instance in &instances {
                        self.find_places(instance.value.as_ref(), Some(instance), revision, effects);
                    }
                }
            }
        }
    }

    /// An instance came, changed or left.
    pub(super) fn member_changed(
        &mut self,
        before: Option<&Versioned<Instance>>,
        after: Option<&Versioned<Instance>>,
        effects: &mut Effects,
    ) {
        if self.virtuals.selectors.is_empty() {
            return;
        }
        let Some(revision) = after.or(before).map(|instance| instance.revision.max(self.snapshot.revision)) else {
            return;
        };
        // What it was may be somewhere; what it is may belong somewhere.
        match (before, after) {
            (Some(before), Some(after)) if before.value.spec == after.value.spec => {
                self.find_places(&after.value, Some(after), revision, effects);
            }
            _ => {
                if let Some(before) = before {
                    self.find_places(&before.value, after, revision, effects);
                }
                if let Some(after) = after {
                    self.find_places(&after.value, Some(after), revision, effects);
                }
            }
        }
    }

    /// Puts an instance, as it is now, into the virtual services that could have `looked`, or takes it out of them.
    fn find_places(
        &mut self,
        looked: &Instance,
        now: Option<&Versioned<Instance>>,
        revision: Revision,
        effects: &mut Effects,
    ) {
        let key = &looked.key;
        let candidates: BTreeSet<ServiceKey> = self.virtuals.index.candidates(looked).cloned().collect();
        let exports = self.snapshot.services.get(&key.service).map(|state| state.service.value.exports.clone());
        for place in candidates {
            let matches = |instance: &&Versioned<Instance>| {
                let seen = exports.as_ref().is_some_and(|exports| sees(&place, &key.service, exports));
                let selector = self.virtuals.selectors.get(&place);
                seen && selector.is_some_and(|selector| selector.matches(&instance.value, None))
            };
            let member = now.filter(matches).cloned();
            let Some(state) = self.snapshot.services.get_mut(&place) else { continue };
            if state.members.get(key) == member.as_ref() {
                continue;
            }
            let state = std::sync::Arc::make_mut(state);
            match member {
                Some(member) => drop(state.members.insert(key.clone(), member)),
                None => drop(state.members.remove(key)),
            }
            state.revision = revision;
            effects.dirty.push(Dirty::Service(place));
        }
    }

    /// The virtual services that an instance is a member of.
    #[cfg(test)]
    pub fn places_of(&self, key: &InstanceKey) -> Vec<ServiceKey> {
        places_of(&self.snapshot, key)
    }
}

/// The virtual services that an instance is a member of.
pub fn places_of(snapshot: &super::state::Snapshot, key: &InstanceKey) -> Vec<ServiceKey> {
    let of = snapshot.services.values().filter(|state| state.members.contains_key(key));
    of.map(|state| state.key.clone()).collect()
}

fn sees(place: &ServiceKey, service: &ServiceKey, exports: &Exports) -> bool {
    place.namespace == service.namespace || exports.include(&place.namespace)
}
