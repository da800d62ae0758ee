//! A view, with the raw resources that are meant for the proxies that have it: one value for all who see the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, Weak},
};

use super::index::lock;
use crate::{
    model::{Exports, Node, RawKey, RawResource, ResourceType, ServiceKey},
    registry::state::Snapshot,
    translate::{ResourceKey, Scope, View},
};

/// Of raw resources that are not for everybody: which variant a proxy gets; none if what is generated.
pub type Selection = BTreeMap<(ResourceType, Arc<str>), Option<Arc<str>>>;

#[derive(Debug)]
pub struct SharedView {
    pub id: u64,
    pub view: View,
    pub selection: Selection,
}

/// The choice that a node gets, of each name of which there is not just one resource for everybody.
pub fn select(node: &Node, snapshot: &Snapshot) -> Selection {
    let chosen = snapshot.raw.iter().filter(|(key, raw)| is_chosen(key, &raw.value));
    let names: BTreeSet<(ResourceType, Arc<str>)> = chosen.map(|(key, _)| (key.kind, key.name.clone())).collect();
    let choose = |(kind, name): (ResourceType, Arc<str>)| {
        let variant = snapshot.variant_for(kind, &name, node).map(|(key, _)| key.variant.clone());
        ((kind, name), variant)
    };
    names.into_iter().map(choose).collect()
}

/// Whether a raw resource is not for everybody.
pub fn is_chosen(key: &RawKey, raw: &RawResource) -> bool {
    raw.selector.is_some() || !key.variant.is_empty()
}

impl SharedView {
    pub fn key(&self, kind: ResourceType, name: &Arc<str>) -> ResourceKey {
        if !self.selection.is_empty()
            && let Some(Some(variant)) = self.selection.get(&(kind, name.clone()))
        {
            return ResourceKey { kind, name: name.clone(), scope: Scope::Variant(variant.clone()) };
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
            Some(chosen) => chosen.is_some(),
            None => {
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
        };
        let one = views.share(&view("a"), Selection::new());
        assert_eq!(views.share(&view("a"), Selection::new()).id, one.id);
        let name: Arc<str> = "web".into();
        let other = Selection::from([((ResourceType::Cluster, name), None)]);
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
        let selection = select(&Node::default(), &snapshot);
        assert_eq!(selection.len(), 1, "what is for everybody needs no choice");
        assert_eq!(selection[&(ResourceType::Cluster, "named".into())].as_deref(), Some("v"));
    }
}
