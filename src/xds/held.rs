//! What a client holds of one type: what it was sent, and what of that it has accepted.
//!
//! Most clients, most of the time, hold exactly what others hold too. So what was accepted is a `Base`, an immutable
//! table that streams share, and a stream keeps of its own only what differs from it. When enough has gathered there
//! and all of it is accepted, the stream moves on to the next base, which it finds by its digest if another stream was
//! there before. A base is a persistent map: the next one costs what has changed.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    sync::Arc,
};

use imbl::OrdMap;
use xxhash_rust::xxh3::xxh3_128;

use super::{protocol::Catalog, resource::Resource, resource::Version};
use crate::model::{ResourceType, Revision};

/// How many differences a stream keeps before it looks for another base.
const DIFFERENCES: usize = 16;

/// Resources that a client holds, by name.
#[derive(Clone, Debug, Default)]
pub struct Base {
    resources: OrdMap<Arc<str>, Arc<Resource>>,
    digest: u128,
    /// How many of them have a TTL.
    with_ttl: usize,
}

/// What a resource adds to the digest of a table: equal on every replica and after every restart, since it makes the
/// versions of sets. Sums do not depend on the order.
pub fn held_digest(name: &str, version: Version) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mixed = (xxh3_128(name.as_bytes()) ^ version.0).wrapping_mul(ODD);
    (mixed ^ (mixed >> 61)).wrapping_mul(ODD)
}

impl Base {
    pub fn digest(&self) -> u128 {
        self.digest
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Resource>)> {
        self.resources.iter()
    }

    /// Whether a client may not keep all of it for ever.
    pub fn has_ttl(&self) -> bool {
        self.with_ttl > 0
    }

    fn set(&mut self, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        if let Some(resource) = &resource {
            self.with_ttl += usize::from(resource.ttl.is_some());
            self.digest = self.digest.wrapping_add(held_digest(name, resource.version));
        }
        let before = match resource {
            Some(resource) => self.resources.insert(name.clone(), resource),
            None => self.resources.remove(name),
        };
        if let Some(before) = before {
            self.with_ttl -= usize::from(before.ttl.is_some());
            self.digest = self.digest.wrapping_sub(held_digest(name, before.version));
        }
    }
}

impl FromIterator<Arc<Resource>> for Base {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        let mut base = Self::default();
        for resource in resources {
            base.set(&resource.name.clone(), Some(resource));
        }
        base
    }
}

/// One name that differs from the base.
#[derive(Clone, Debug, Default)]
struct Difference {
    sent: Option<Arc<Resource>>,
    acked: Option<Arc<Resource>>,
    /// It was refused in this version, and is represented by what was ACKed until its content changes. And the revision
    /// from which the client is behind for that.
    rejected: Option<(Version, Revision)>,
    /// It was sent again while its removal was on its way: what was accepted is gone before that comes.
    returns: bool,
}

fn version(resource: &Option<Arc<Resource>>) -> Option<Version> {
    resource.as_ref().map(|resource| resource.version)
}

#[derive(Debug, Default)]
pub(super) struct Held {
    /// Sent and accepted.
    base: Arc<Base>,
    /// Sent whole to a client that had nothing, and not yet accepted.
    offered: Option<Arc<Base>>,
    differences: HashMap<Arc<str>, Difference>,
    /// Of all that was sent: the version of the set.
    digest: u128,
}

impl Held {
    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.base.is_empty() && self.offered.is_none() && self.differences.is_empty()
    }

    /// How many names the stream keeps for itself.
    pub(super) fn own(&self) -> usize {
        self.differences.len()
    }

    pub(super) fn sent(&self, name: &str) -> Option<&Arc<Resource>> {
        match self.differences.get(name) {
            Some(difference) => difference.sent.as_ref(),
            None => self.offered.as_ref().unwrap_or(&self.base).get(name),
        }
    }

    pub(super) fn acked(&self, name: &str) -> Option<&Arc<Resource>> {
        match self.differences.get(name) {
            Some(difference) => difference.acked.as_ref(),
            None => self.base.get(name),
        }
    }

    /// What was refused of a name, and the revision from which the client is behind for that.
    pub(super) fn rejected(&self, name: &str) -> Option<(Version, Revision)> {
        self.differences.get(name)?.rejected
    }

    /// The oldest revision from which the client is behind because of a refusal.
    pub(super) fn rejected_since(&self) -> Option<Revision> {
        self.differences.values().filter_map(|difference| difference.rejected).map(|(_, since)| since).min()
    }

    /// Whether the client may not keep all of it for ever.
    pub(super) fn has_ttl(&self) -> bool {
        let has_ttl = |difference: &Difference| difference.sent.as_ref().is_some_and(|sent| sent.ttl.is_some());
        self.base.has_ttl() || self.differences.values().any(has_ttl)
    }

    /// All names that were sent, accepted or refused.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let tables = [Some(&self.base), self.offered.as_ref()];
        let in_tables = tables.into_iter().flatten().flat_map(|base| base.iter().map(|(name, _)| name));
        let same = in_tables.filter(|name| !self.differences.contains_key(*name));
        let other = |(name, difference): (&Arc<str>, &Difference)| {
            let known = difference.sent.is_some() || difference.acked.is_some() || difference.rejected.is_some();
            known.then(|| name.clone())
        };
        let mut names: Vec<_> = same.cloned().chain(self.differences.iter().filter_map(other)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn difference(&mut self, name: &Arc<str>) -> &mut Difference {
        match self.differences.entry(name.clone()) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(entry) => {
                let sent = self.offered.as_ref().unwrap_or(&self.base).get(name).cloned();
                let acked = self.base.get(name).cloned();
                entry.insert(Difference { sent, acked, rejected: None, returns: false })
            }
        }
    }

    pub(super) fn set_sent(&mut self, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        if let Some(resource) = &resource {
            self.digest = self.digest.wrapping_add(held_digest(name, resource.version));
        }
        let before = std::mem::replace(&mut self.difference(name).sent, resource);
        if let Some(before) = before {
            self.digest = self.digest.wrapping_sub(held_digest(name, before.version));
        }
    }

    /// It is sent again while its removal is on its way.
    pub(super) fn return_to(&mut self, name: &Arc<str>) {
        self.difference(name).returns = true;
    }

    /// Whether the client has it, and it is not on its way out.
    pub(super) fn has(&self, name: &str) -> bool {
        let returns = self.differences.get(name).is_some_and(|difference| difference.returns);
        self.acked(name).is_some() && self.sent(name).is_some() && !returns
    }

    /// All that were accepted, and are not what the client was sent last.
    pub(super) fn leaving(&self) -> Vec<(Arc<str>, Arc<Resource>)> {
        let leaving = |(name, difference): (&Arc<str>, &Difference)| match difference {
            Difference { sent: None, acked: Some(acked), .. } => Some((name.clone(), acked.clone())),
            _ => None,
        };
        self.differences.iter().filter_map(leaving).collect()
    }

    /// Whether it was accepted, and is not what the client was sent last.
    pub(super) fn is_leaving(&self, name: &str) -> bool {
        self.sent(name).is_none() && self.acked(name).is_some()
    }

    /// The client has accepted a resource, or its absence.
    pub(super) fn accept(&mut self, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        let difference = self.difference(name);
        // What it had already stands for what it has refused: that is not over.
        if resource.is_none() || version(&difference.acked) != version(&resource) {
            difference.rejected = None;
        }
        difference.acked = resource;
        difference.returns = false;
        self.tidy(name);
    }

    /// There is another content than what was refused, and if the client has that, it has nothing to do.
    pub(super) fn absolve(&mut self, name: &Arc<str>, now: Option<Version>) {
        let Some(difference) = self.differences.get_mut(name) else { return };
        if difference.rejected.is_some_and(|(refused, _)| Some(refused) != now) && version(&difference.acked) == now {
            difference.rejected = None;
            self.tidy(name);
        }
    }

    /// What was refused of a name is no matter any more.
    pub(super) fn forgive(&mut self, name: &Arc<str>) {
        let Some(difference) = self.differences.get_mut(name) else { return };
        difference.rejected = None;
        self.tidy(name);
    }

    /// A name without anything is no difference, unless a table has it.
    fn tidy(&mut self, name: &Arc<str>) {
        let nothing = |difference: &Difference| {
            difference.sent.is_none() && difference.acked.is_none() && difference.rejected.is_none()
        };
        let tables = [Some(&self.base), self.offered.as_ref()];
        if self.differences.get(name).is_some_and(nothing)
            && tables.into_iter().flatten().all(|base| base.get(name).is_none())
        {
            self.differences.remove(name);
        }
    }

    pub(super) fn reject(&mut self, name: &Arc<str>, version: Version, since: Revision) {
        self.difference(name).rejected = Some((version, since));
    }

    /// What was refused may be tried once more.
    pub(super) fn pardon(&mut self) -> Vec<Arc<str>> {
        let refused =
            |(name, difference): (&Arc<str>, &mut Difference)| difference.rejected.take().map(|_| name.clone());
        self.differences.iter_mut().filter_map(refused).collect()
    }

    pub(super) fn forget(&mut self, name: &Arc<str>) {
        self.set_sent(name, None);
        self.accept(name, None);
    }

    /// The client has nothing, and is sent all of this.
    pub(super) fn offer(&mut self, base: Arc<Base>) {
        self.digest = base.digest();
        self.offered = Some(base);
    }

    /// The client has accepted what it was sent whole, and has kept of it what it still follows.
    pub(super) fn accept_offer(&mut self, follows: impl Fn(&str) -> bool) {
        let Some(base) = self.offered.take() else { return };
        for (name, difference) in &mut self.differences {
            if difference.acked.is_none() && follows(name) {
                difference.acked = base.get(name).cloned();
            }
        }
        self.base = base;
    }

    /// The client has refused what it was sent whole: it has nothing of it.
    pub(super) fn withdraw_offer(&mut self) {
        let Some(offered) = self.offered.take() else { return };
        for (name, resource) in offered.iter() {
            if !self.differences.contains_key(name) {
                self.digest = self.digest.wrapping_sub(held_digest(name, resource.version));
            }
        }
        // What only hid something of it.
        self.differences.retain(|name, difference| {
            difference.sent.is_some() || difference.acked.is_some() || self.base.get(name).is_some()
        });
    }

    /// The client has exactly this.
    pub(super) fn adopt(&mut self, base: Arc<Base>) {
        self.digest = base.digest();
        self.base = base;
        self.offered = None;
        self.differences.clear();
        self.differences.shrink_to_fit();
    }

    /// Moves on to the next base if that saves something and everything is accepted.
    pub(super) fn settle(&mut self, kind: ResourceType, catalog: &dyn Catalog) {
        // What a client only says that it has is known by its version, and is nothing for others to hold.
        let known = |resource: &Option<Arc<Resource>>| resource.as_ref().is_none_or(|resource| resource.is_known());
        let settled = |difference: &Difference| {
            known(&difference.acked)
                && difference.rejected.is_none()
                && version(&difference.sent) == version(&difference.acked)
        };
        if self.differences.len() < DIFFERENCES || self.offered.is_some() || !self.differences.values().all(settled) {
            return;
        }
        if let Some(base) = catalog.shared_base(kind, self.digest) {
            return self.adopt(base);
        }
        let mut base = Base::clone(&self.base);
        for (name, difference) in &self.differences {
            base.set(name, difference.acked.clone());
        }
        let base = Arc::new(base);
        catalog.share_base(kind, &base);
        self.adopt(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::Built;

    /// Nothing but the bases that are shared.
    #[derive(Default)]
    struct Bases(std::cell::RefCell<Vec<Arc<Base>>>);

    impl Catalog for Bases {
        fn get(&self, _: ResourceType, _: &Arc<str>) -> Option<Arc<Resource>> {
            None
        }

        fn wildcard(&self, _: ResourceType) -> Vec<Arc<str>> {
            Vec::new()
        }

        fn in_wildcard(&self, _: ResourceType, _: &str) -> bool {
            false
        }

        fn shared_base(&self, _: ResourceType, digest: u128) -> Option<Arc<Base>> {
            self.0.borrow().iter().find(|base| base.digest() == digest).cloned()
        }

        fn share_base(&self, _: ResourceType, base: &Arc<Base>) {
            self.0.borrow_mut().push(base.clone());
        }
    }

    const KIND: ResourceType = ResourceType::Endpoint;

    fn resource(number: usize) -> Arc<Resource> {
        let name: Arc<str> = number.to_string().into();
        Arc::new(Resource::new(KIND, name.clone(), Built { bytes: name.as_bytes().to_vec(), ..Built::default() }))
    }

    fn take(held: &mut Held, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        held.set_sent(name, resource.clone());
        held.accept(name, resource);
    }

    fn settled(catalog: &Bases) -> Held {
        let mut held = Held::default();
        (0..DIFFERENCES).map(resource).for_each(|one| take(&mut held, &one.name.clone(), Some(one)));
        held.settle(KIND, catalog);
        held
    }

    #[test]
    fn who_holds_the_same_shares_it_and_keeps_what_differs() {
        let catalog = Bases::default();
        let (mut one, other) = (settled(&catalog), settled(&catalog));
        assert!(Arc::ptr_eq(&one.base, &other.base));
        assert_eq!((one.own(), one.digest(), one.names().len()), (0, other.digest(), DIFFERENCES));
        let name: Arc<str> = "1".into();
        take(&mut one, &name, None);
        assert_eq!((one.own(), one.sent(&name).is_some(), one.names().len()), (1, false, DIFFERENCES - 1));
        take(&mut one, &name, Some(resource(1)));
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn what_a_client_only_says_that_it_has_is_not_shared() {
        let catalog = Bases::default();
        let mut held = Held::default();
        for number in 0..DIFFERENCES {
            let one = resource(number);
            let said = Resource::of_version(KIND, one.name.clone(), one.version);
            take(&mut held, &one.name, Some(Arc::new(said)));
        }
        held.settle(KIND, &catalog);
        assert_eq!(catalog.0.borrow().len(), 0);
        let known = settled(&catalog);
        assert!(known.base.iter().all(|(_, resource)| resource.is_known()));
    }
}
