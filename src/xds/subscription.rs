//! What a stream has asked for of one type: names, the wildcard, or both. Pure.
//!
//! The wildcard has two spellings: `*`, and (the older one) a first request that names nothing. The older one holds
//! until the client names something in the state-of-the-world dialect; in the incremental one it ends only by
//! unsubscribing `*`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    name_set::{NameSet, name_digest},
    protocol::Catalog,
    request::text,
};
use crate::translate::ResourceType;

pub const WILDCARD: &str = "*";
/// Sets of so many names are worth sharing.
const SHARED: usize = 16;

#[derive(Debug, Default)]
pub struct Subscription {
    wildcard: bool,
    /// The client has named something of this type on this stream, so that no names means nothing.
    explicit: bool,
    started: bool,
    names: Arc<NameSet>,
}

/// What a request changed.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
    /// There were no names before: all that there are now are new. They are not in `added`.
    pub all_new: bool,
    pub wildcard_began: bool,
    pub wildcard_ended: bool,
}

impl Subscription {
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub fn names(&self) -> &Arc<NameSet> {
        &self.names
    }

    /// Whether the client may want a name: it has asked for it, or for all that there are.
    pub fn follows(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub fn has_started(&self) -> bool {
        self.started
    }

    /// State of the world: the names are the whole subscription.
    pub fn replace(&mut self, kind: ResourceType, names: &[Bytes], catalog: &dyn Catalog) -> Changed {
        let was_wildcard = self.wildcard;
        self.explicit |= !names.is_empty();
        self.started = true;
        // Endpoints, routes and secrets have no wildcard; Envoy does ask for none of them.
        self.wildcard = if self.explicit { has_wildcard(names) } else { kind.is_full_set() };
        let mut changed = Changed {
            wildcard_began: self.wildcard && !was_wildcard,
            wildcard_ended: was_wildcard && !self.wildcard,
            ..Changed::default()
        };
        let named = names.len() - usize::from(has_wildcard(names));
        if named == self.names.len() && digest(names) == self.names.digest() {
            return changed;
        }
        let new = shared(kind, names, catalog).unwrap_or_else(|| Arc::new(named_in(names).collect()));
        if self.names.is_empty() {
            changed.all_new = true;
        } else {
            changed.added = new.iter().filter(|name| !self.names.contains(name)).cloned().collect();
            changed.removed = self.names.iter().filter(|name| !new.contains(name)).cloned().collect();
        }
        self.names = new;
        self.share(kind, catalog);
        changed
    }

    /// Incremental: names come and go. A name that is subscribed again counts as added: the client wants an answer.
    pub fn update(
        &mut self,
        kind: ResourceType,
        subscribe: &[Bytes],
        unsubscribe: &[Bytes],
        catalog: &dyn Catalog,
    ) -> Changed {
        let was_wildcard = self.wildcard;
        if !self.started {
            self.started = true;
            self.wildcard = subscribe.is_empty() && kind.is_full_set();
        }
        let mut changed = Changed::default();
        if has_wildcard(unsubscribe) {
            self.wildcard = false;
        }
        if has_wildcard(subscribe) {
            self.wildcard = true;
        }
        changed.wildcard_began = self.wildcard && !was_wildcard;
        changed.wildcard_ended = was_wildcard && !self.wildcard;
        let had_none = self.names.is_empty();
        if had_none && let Some(names) = shared(kind, subscribe, catalog) {
            self.names = names;
            changed.all_new = true;
            return changed;
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return changed;
        }
        let names = Arc::make_mut(&mut self.names);
        changed.removed.extend(named_in(unsubscribe).filter_map(|name| names.take(name)));
        for name in named_in(subscribe) {
            let name: Arc<str> = name.into();
            names.insert(name.clone());
            if !had_none {
                changed.added.push(name);
            }
        }
        changed.removed.retain(|removed| !names.contains(removed));
        changed.all_new = had_none && !names.is_empty();
        self.share(kind, catalog);
        changed
    }

    fn share(&mut self, kind: ResourceType, catalog: &dyn Catalog) {
        if self.names.len() >= SHARED {
            catalog.share_names(kind, &mut self.names);
        }
    }
}

fn has_wildcard(names: &[Bytes]) -> bool {
    names.iter().any(|name| name == WILDCARD)
}

fn named_in(names: &[Bytes]) -> impl Iterator<Item = &str> {
    names.iter().filter_map(text).filter(|name| *name != WILDCARD)
}

fn digest(names: &[Bytes]) -> u128 {
    named_in(names).fold(0, |sum: u128, name| sum.wrapping_add(name_digest(name)))
}

/// The set of these names, if others have asked for the same. A name that stands twice finds none.
fn shared(kind: ResourceType, names: &[Bytes], catalog: &dyn Catalog) -> Option<Arc<NameSet>> {
    if names.len() < SHARED {
        return None;
    }
    catalog.shared_names(kind, digest(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Endpoint};

    struct Nothing;

    impl Catalog for Nothing {
        fn get(&self, _: ResourceType, _: &Arc<str>) -> Option<Arc<crate::xds::resource::Resource>> {
            None
        }

        fn wildcard(&self, _: ResourceType) -> Vec<Arc<str>> {
            Vec::new()
        }

        fn in_wildcard(&self, _: ResourceType, _: &str) -> bool {
            false
        }
    }

    fn strings(names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
    }

    fn subscribed(subscription: &Subscription) -> (bool, Vec<&str>) {
        (subscription.wildcard, subscription.names.iter().map(|name| &**name).collect())
    }

    #[test]
    fn rule_27_and_30_state_of_the_world() {
        for (kind, requests, wildcard, names) in [
            (Cluster, vec![vec![]], true, vec![]),
            (Cluster, vec![vec![], vec![]], true, vec![]),
            (Cluster, vec![vec!["*"]], true, vec![]),
            (Cluster, vec![vec!["a"]], false, vec!["a"]),
            (Cluster, vec![vec![], vec!["a"]], false, vec!["a"]),
            // After any explicit name an empty list means nothing.
            (Cluster, vec![vec!["a"], vec![]], false, vec![]),
            (Cluster, vec![vec!["*", "a"], vec!["a"]], false, vec!["a"]),
            (Cluster, vec![vec!["*"], vec![]], false, vec![]),
        ] {
            let mut subscription = Subscription::default();
            for names in &requests {
                subscription.replace(kind, &strings(names), &Nothing);
            }
            assert_eq!(subscribed(&subscription), (wildcard, names), "{requests:?}");
        }
    }

    #[test]
    fn rule_31_no_names_of_endpoints_are_nothing() {
        let mut subscription = Subscription::default();
        assert_eq!(subscription.replace(Endpoint, &[], &Nothing), Changed::default());
        assert!(!subscription.is_wildcard());
        let mut subscription = Subscription::default();
        assert_eq!(subscription.update(Endpoint, &[], &[], &Nothing), Changed::default());
        assert!(!subscription.is_wildcard());
    }

    #[test]
    fn rule_41_incremental_wildcard_ends_only_by_name() {
        let mut subscription = Subscription::default();
        assert!(subscription.update(Cluster, &[], &[], &Nothing).wildcard_began);
        let changed = subscription.update(Cluster, &strings(&["a"]), &[], &Nothing);
        assert!(changed.all_new);
        assert!(subscription.is_wildcard());
        assert!(subscription.update(Cluster, &[], &strings(&["*"]), &Nothing).wildcard_ended);
        assert_eq!(subscribed(&subscription), (false, vec!["a"]));
    }

    #[test]
    fn rule_29_and_37_unsubscribe_and_subscribe_again() {
        let mut subscription = Subscription::default();
        subscription.update(Cluster, &strings(&["a"]), &[], &Nothing);
        let changed = subscription.update(Cluster, &strings(&["a"]), &strings(&["a", "unknown"]), &Nothing);
        assert_eq!((changed.added, changed.removed), (vec!["a".into()], vec![]));
    }
}
