//! What a stream has asked for of one type: names, the wildcard, or both. Pure.
//!
//! The wildcard has two spellings: `*`, and (the older one) a first request that names nothing. The older one holds
//! until the client names something in the state-of-the-world dialect; in the incremental one it ends only by
//! unsubscribing `*`.

use std::{collections::BTreeSet, sync::Arc};

use crate::translate::ResourceType;

pub const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub struct Subscription {
    wildcard: bool,
    /// The client has named something of this type on this stream, so that no names means nothing.
    explicit: bool,
    started: bool,
    names: BTreeSet<Arc<str>>,
}

/// What a request changed.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
    pub wildcard_began: bool,
    pub wildcard_ended: bool,
}

impl Subscription {
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    pub fn has_started(&self) -> bool {
        self.started
    }

    /// State of the world: the names are the whole subscription.
    pub fn replace(&mut self, kind: ResourceType, names: &[String]) -> Changed {
        let was_wildcard = self.wildcard;
        self.explicit |= !names.is_empty();
        self.started = true;
        // Endpoints, routes and secrets have no wildcard; Envoy does ask for none of them.
        self.wildcard = if self.explicit { names.iter().any(|name| name == WILDCARD) } else { kind.is_full_set() };
        let new: BTreeSet<Arc<str>> =
            names.iter().filter(|name| *name != WILDCARD).map(|name| name.as_str().into()).collect();
        let changed = Changed {
            added: new.difference(&self.names).cloned().collect(),
            removed: self.names.difference(&new).cloned().collect(),
            wildcard_began: self.wildcard && !was_wildcard,
            wildcard_ended: was_wildcard && !self.wildcard,
        };
        self.names = new;
        changed
    }

    /// Incremental: names come and go. A name that is subscribed again counts as added: the client wants an answer.
    pub fn update(&mut self, kind: ResourceType, subscribe: &[String], unsubscribe: &[String]) -> Changed {
        let was_wildcard = self.wildcard;
        if !self.started {
            self.started = true;
            self.wildcard = subscribe.is_empty() && kind.is_full_set();
        }
        let mut changed = Changed::default();
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else if let Some(name) = self.names.take(name.as_str()) {
                changed.removed.push(name);
            }
        }
        for name in subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            self.names.insert(name.clone());
            changed.removed.retain(|removed| *removed != name);
            changed.added.push(name);
        }
        changed.wildcard_began = self.wildcard && !was_wildcard;
        changed.wildcard_ended = was_wildcard && !self.wildcard;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Endpoint};

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
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
                subscription.replace(kind, &strings(names));
            }
            assert_eq!(subscribed(&subscription), (wildcard, names), "{requests:?}");
        }
    }

    #[test]
    fn rule_31_no_names_of_endpoints_are_nothing() {
        let mut subscription = Subscription::default();
        assert_eq!(subscription.replace(Endpoint, &[]), Changed::default());
        assert!(!subscription.is_wildcard());
        let mut subscription = Subscription::default();
        assert_eq!(subscription.update(Endpoint, &[], &[]), Changed::default());
        assert!(!subscription.is_wildcard());
    }

    #[test]
    fn rule_41_incremental_wildcard_ends_only_by_name() {
        let mut subscription = Subscription::default();
        assert!(subscription.update(Cluster, &[], &[]).wildcard_began);
        let changed = subscription.update(Cluster, &strings(&["a"]), &[]);
        assert_eq!(changed.added, ["a".into()]);
        assert!(subscription.is_wildcard());
        assert!(subscription.update(Cluster, &[], &strings(&["*"])).wildcard_ended);
        assert_eq!(subscribed(&subscription), (false, vec!["a"]));
    }

    #[test]
    fn rule_29_and_37_unsubscribe_and_subscribe_again() {
        let mut subscription = Subscription::default();
        subscription.update(Cluster, &strings(&["a"]), &[]);
        let changed = subscription.update(Cluster, &strings(&["a"]), &strings(&["a", "unknown"]));
        assert_eq!((changed.added, changed.removed), (vec!["a".into()], vec![]));
    }
}
