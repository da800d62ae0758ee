//! A view, with the raw resources that are meant for the proxies that have it: one value for all who see the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, Weak},
};

use super::index::lock;
use crate::{
    model::{Exports, Locality, Node, RawKey, RawResource, ResourceType, ServiceKey},
    registry::state::{ServiceState, Snapshot},
    translate::{ResourceKey, Scope, Vantage, View, names::clusters_of},
};

/// Which of several resources of a name a proxy gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// What is generated, though there are raw ones for others.
    Generated,
    /// A raw resource's variant.
    Variant(Arc<str>),
    /// The assignment as it is seen from there.
    From(Arc<Locality>),
}

/// Of names of which there is not just one resource for everybody.
pub type Selection = BTreeMap<(ResourceType, Arc<str>), Choice>;

/// Names of raw resources that are not for everybody.
pub type ChosenNames = BTreeSet<(ResourceType, Arc<str>)>;

/// Clusters of services with failover by locality.
pub type Failovers = BTreeMap<ServiceKey, Vec<Arc<str>>>;

#[derive(Debug)]
pub struct SharedView {
    pub id: u64,
    pub view: View,
    pub selection: Selection,
}

/// The choice that a node gets, of each name of which there is not just one resource for everybody.
pub fn select(node: &Node, failovers: &Failovers, chosen: ChosenNames, snapshot: &Snapshot) -> Selection {
    let mut selection = Selection::new();
    if let Some(from) = place(node) {
        let names = failovers.values().flatten();
        selection.extend(names.map(|name| ((ResourceType::Endpoint, name.clone()), Choice::From(from.clone()))));
    }
    let choose = |(kind, name): (ResourceType, Arc<str>)| {
        let variant = snapshot.variant_for(kind, &name, node).map(|(key, _)| key.variant.clone());
        ((kind, name), variant)
    };
    for (name, variant) in chosen.into_iter().map(choose) {
        match variant {
            Some(variant) => drop(selection.insert(name, Choice::Variant(variant))),
            None => drop(selection.entry(name).or_insert(Choice::Generated)),
        }
    }
    selection
}

/// Where a node is, as far as failover goes by it; none if it does not say.
fn place(node: &Node) -> Option<Arc<Locality>> {
    let Locality { region, zone, .. } = &node.locality;
    let known = !region.is_empty() || !zone.is_empty();
    known.then(|| Arc::new(Locality { region: region.clone(), zone: zone.clone(), ..Locality::default() }))
}

/// The clusters of a service whose assignments depend on who looks.
pub fn failover_clusters(state: &ServiceState) -> Vec<Arc<str>> {
    if state.service.value.failover.is_some() { clusters_of(state).collect() } else { Vec::new() }
}

/// Whether a raw resource is not for everybody.
pub fn is_chosen(key: &RawKey, raw: &RawResource) -> bool {
    raw.selector.is_some() || !key.variant.is_empty()
}

fn chosen_key(view: &View, kind: ResourceType, name: &Arc<str>, choice: &Choice) -> ResourceKey {
    let scope = match choice {
        Choice::Generated => return view.key(kind, name),
        Choice::Variant(variant) => Scope::Variant(variant.clone()),
        Choice::From(place) => Vantage { locality: Some(place.clone()), grpc: view.grpc }.scope(),
    };
    ResourceKey { kind, name: name.clone(), scope }
}

/// The assignment that a client gets of a service, by itself: as its view has it.
pub fn assignment_key(
    view: &View,
    node: &Node,
    name: &Arc<str>,
    state: &ServiceState,
    snapshot: &Snapshot,
) -> ResourceKey {
    const KIND: ResourceType = ResourceType::Endpoint;
    let variant = snapshot.variant_for(KIND, name, node).map(|(key, _)| Choice::Variant(key.variant.clone()));
    let from = || place(node).filter(|_| state.service.value.failover.is_some()).map(Choice::From);
    chosen_key(view, KIND, name, &variant.or_else(from).unwrap_or(Choice::Generated))
}

impl SharedView {
    /// The same as `key`, for a node, as of the state: the view's choice of variants may be of an older one. Only where
    /// there are variants is the state looked at.
    pub fn key_at(
        &self,
        kind: ResourceType,
        name: &Arc<str>,
        node: &Node,
        snapshot: impl FnOnce() -> Arc<Snapshot>,
    ) -> ResourceKey {
        let may_vary = |choice: &&Choice| matches!(choice, Choice::Variant(_) | Choice::Generated);
        if self.selection.is_empty() || self.selection.get(&(kind, name.clone())).filter(may_vary).is_none() {
            return self.key(kind, name);
        }
        match snapshot().variant_for(kind, name, node) {
            Some((raw, _)) => chosen_key(&self.view, kind, name, &Choice::Variant(raw.variant.clone())),
            // It is for others, or gone.
            None => self.view.key(kind, name),
        }
    }

    pub fn key(&self, kind: ResourceType, name: &Arc<str>) -> ResourceKey {
        if !self.selection.is_empty()
            && let Some(choice) = self.selection.get(&(kind, name.clone()))
        {
            return chosen_key(&self.view, kind, name, choice);
        }
        self.view.key(kind, name)
    }

    pub fn sees(&self, service: &Option<(ServiceKey, Exports)>) -> bool {
        service.as_ref().is_none_or(|(service, exports)| self.view.sees(service, exports))
    }

    /// The names that a wildcard subscription means.
    pub fn wildcard(&self, kind: ResourceType, snapshot: &Snapshot) -> Vec<Arc<str>> {
        let mut names = self.view.wildcard(kind, snapshot);
        if kind.is_full_set() && !snapshot.raw.is_empty() {
            let raw = snapshot.raw.keys().filter(|key| key.kind == kind);
            names.extend(raw.map(|key| key.name.clone()).filter(|name| self.has_raw(kind, name, snapshot)));
            names.sort();
            names.dedup();
        }
        names
    }

    pub fn in_wildcard(&self, kind: ResourceType, name: &str, snapshot: &Snapshot) -> bool {
        self.view.in_wildcard(kind, name)
            || (kind.is_full_set() && !snapshot.raw.is_empty() && self.has_raw(kind, &name.into(), snapshot))
    }

    /// Whether somebody wrote a resource of this name for these proxies.
    fn has_raw(&self, kind: ResourceType, name: &Arc<str>, snapshot: &Snapshot) -> bool {
        match self.selection.get(&(kind, name.clone())) {
            Some(Choice::Variant(_)) => true,
            Some(Choice::Generated) => false,
            Some(Choice::From(_)) | None => {
                let key = RawKey { kind, name: name.clone(), variant: "".into() };
                snapshot.raw.contains_key(&key)
            }
        }
    }
}

/// All views that some stream has.
#[derive(Debug, Default)]
pub struct Views {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    views: HashMap<(View, Selection), Weak<SharedView>>,
    last_id: u64,
}

impl Views {
    pub fn share(&self, view: &View, selection: Selection) -> Arc<SharedView> {
        let mut known = lock(&self.known);
        let key = (view.clone(), selection);
        if let Some(shared) = known.views.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        known.views.retain(|_, shared| shared.strong_count() > 0);
        known.last_id += 1;
        let shared = Arc::new(SharedView { id: known.last_id, view: key.0.clone(), selection: key.1.clone() });
        known.views.insert(key, Arc::downgrade(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Namespace, Revision},
        registry::command::Versioned,
    };

    #[test]
    fn equal_views_are_one() {
        let views = Views::default();
        let view = |namespace: &str| View {
            namespace: Namespace::parse("", namespace).expect("a label"),
            outbound: None,
            imports: None,
            grpc: false,
        };
        let one = views.share(&view("a"), Selection::new());
        assert_eq!(views.share(&view("a"), Selection::new()).id, one.id);
        let name: Arc<str> = "web".into();
        let other = Selection::from([((ResourceType::Cluster, name), Choice::Generated)]);
        assert_ne!(views.share(&view("a"), other).id, one.id);
        assert_ne!(views.share(&view("b"), Selection::new()).id, one.id);
    }

    #[test]
    fn a_variant_without_a_selector_comes_last() {
        let mut snapshot = Snapshot::default();
        for (name, variant) in [("plain", ""), ("named", "v")] {
            let key = RawKey { kind: ResourceType::Cluster, name: name.into(), variant: variant.into() };
            let raw = RawResource { bytes: Default::default(), selector: None, ttl: None };
            snapshot.raw.insert(key, Versioned { revision: Revision(1), value: Arc::new(raw) });
        }
        let chosen = ChosenNames::from([(ResourceType::Cluster, "named".into())]);
        let selection = select(&Node::default(), &Failovers::new(), chosen, &snapshot);
        assert_eq!(selection.len(), 1, "what is for everybody needs no choice");
        assert_eq!(selection[&(ResourceType::Cluster, "named".into())], Choice::Variant("v".into()));
    }
}
