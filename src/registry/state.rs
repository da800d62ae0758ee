//! The registry's state: what follows from the store's commits, and nothing else.
//!
//! Pure: no task, lock, clock or socket; the same commits make the same state on every replica. What readers see is a
//! `Snapshot`: immutable, of one revision, and cheap to take, since its maps share what did not change. One instance
//! changed costs O(log n) of its service's instances and of the services, whatever else there is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use imbl::{HashMap as SharedHashMap, OrdMap};

use super::{
    command::Versioned,
    digest::Digest,
    virtual_service::{MAX_MEMBERS, Virtuals},
};
use crate::{
    model::{
        Exports, Instance, InstanceId, InstanceKey, Lease, LeaseId, Node, RawKey, RawResource, RemovalCause, Replica,
        ReplicaId, ResourceType, Revision, Service, ServiceKey, Tombstone, UnixMillis, Verdict, replica::share_of,
    },
    prehashed::Sharded,
    storage::{Change, Commit, Key, Record},
};

/// Of a record that is not in the store.
pub(super) const ABSENT: Revision = Revision(0);

/// All services at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub revision: Revision,
    pub services: OrdMap<ServiceKey, Arc<ServiceState>>,
    /// Resources that somebody wrote.
    pub raw: OrdMap<RawKey, Versioned<RawResource>>,
    /// Those that left, as far as they are remembered.
    pub gone: SharedHashMap<InstanceKey, Versioned<Tombstone>>,
    /// All that are there, this one too; none where the store has one writer.
    pub replicas: OrdMap<ReplicaId, Arc<Replica>>,
}

impl Snapshot {
    pub fn instance(&self, key: &InstanceKey) -> Option<&Versioned<Instance>> {
        self.services.get(&key.service)?.instances.get(&key.id)
    }

    /// Whether a replica is the one that probes an instance.
    pub fn is_probed_by(&self, key: &InstanceKey, replica: ReplicaId) -> bool {
        self.is_share_of(key, replica)
    }

    /// Whether something is shared out to a replica.
    pub fn is_share_of(&self, something: &impl fmt::Display, replica: ReplicaId) -> bool {
        if self.replicas.len() < 2 {
            return true;
        }
        let here = self.replicas.keys().copied();
        share_of(something.to_string().as_bytes(), here).is_none_or(|one| one == replica)
    }

    /// All variants of a resource that somebody wrote, by name.
    pub fn variants(&self, kind: ResourceType, name: &str) -> impl Iterator<Item = (&RawKey, &Versioned<RawResource>)> {
        let first = RawKey { kind, name: name.into(), variant: "".into() };
        let name = first.name.clone();
        self.raw.range(first..).take_while(move |(key, _)| key.kind == kind && key.name == name)
    }

    /// The variant that a node gets: the first whose selector matches it, in the order of their names; those without a
    /// selector come last.
    pub fn variant_for(
        &self,
        kind: ResourceType,
        name: &str,
        node: &Node,
    ) -> Option<(&RawKey, &Versioned<RawResource>)> {
        let selects = |raw: &RawResource| raw.selector.as_ref().is_some_and(|selector| selector.matches(node));
        let chosen = self.variants(kind, name).find(|(_, raw)| selects(&raw.value));
        chosen.or_else(|| self.variants(kind, name).find(|(_, raw)| raw.value.selector.is_none()))
    }
}

/// One service with its instances.
#[derive(Clone, Debug)]
pub struct ServiceState {
    pub key: ServiceKey,
    pub service: Versioned<Service>,
    /// Of the last change to the service or to one of its instances.
    pub revision: Revision,
    pub instances: OrdMap<InstanceId, Versioned<Instance>>,
    /// Of a virtual service: who matches its selector, of whichever service.
    pub members: OrdMap<InstanceKey, Versioned<Instance>>,
}

impl ServiceState {
    fn new(key: ServiceKey, service: Versioned<Service>) -> Self {
        let revision = service.revision;
        let (instances, members) = Default::default();
        Self { key, service, revision, instances, members }
    }

    fn mark_checked(&self, effects: &mut Effects) {
        if !self.service.value.checks.is_empty() {
            effects.checked.push(self.key.clone());
        }
    }

    /// Who may see the service.
    pub fn owner(&self) -> (ServiceKey, Exports) {
        (self.key.clone(), self.service.value.exports.clone())
    }

    /// Those that it leads to: its own instances, or the members of a virtual service.
    pub fn all(&self) -> impl Iterator<Item = &Versioned<Instance>> {
        self.instances.values().chain(self.members.values().take(MAX_MEMBERS))
    }

    /// How many match a virtual service's selector and are not led to.
    pub fn left_out(&self) -> usize {
        self.members.len().saturating_sub(MAX_MEMBERS)
    }

    pub fn healthy(&self) -> usize {
        self.all().filter(|instance| instance.value.health().verdict == Verdict::Healthy).count()
    }
}

/// Who of a service has which address and port.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(HashMap<(IpAddr, u16), InstanceId, RandomState>);

impl Addresses {
    fn take(&mut self, instance: &Instance) {
        for port in &*instance.spec.ports {
            self.0.insert((instance.spec.address, port.number), instance.key.id.clone());
        }
    }

    fn leave(&mut self, instance: &Instance) {
        for port in &*instance.spec.ports {
            let place = (instance.spec.address, port.number);
            if self.0.get(&place) == Some(&instance.key.id) {
                self.0.remove(&place);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&(IpAddr, u16), &InstanceId)> {
        self.0.iter()
    }
}

#[derive(Clone, Debug)]
pub(super) struct LeaseState {
    pub(super) lease: Lease,
    pub(super) revision: Revision,
    pub(super) members: Members,
    /// Of what the agent said of the members.
    pub(super) digest: Digest,
}

/// The instances of a lease, in order. Most leases have one, and there are a million of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(Vec<InstanceKey>);

impl Members {
    pub(super) fn contains(&self, key: &InstanceKey) -> bool {
        self.0.binary_search(key).is_ok()
    }

    fn insert(&mut self, key: InstanceKey) {
        if let Err(at) = self.0.binary_search(&key) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, key);
        }
    }

    fn remove(&mut self, key: &InstanceKey) {
        if let Ok(at) = self.0.binary_search(key) {
            self.0.remove(at);
        }
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, InstanceKey> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What happened to one instance.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    Added,
    Changed,
    Removed(RemovalCause),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    pub revision: Revision,
    /// As it was before; of a new one nothing.
    pub before: Option<Versioned<Instance>>,
    /// As it is now; of a removed one, as it was last.
    pub instance: Versioned<Instance>,
}

impl Event {
    pub fn cause(&self) -> Option<RemovalCause> {
        match self.kind {
            EventKind::Removed(cause) => Some(cause),
            _ => None,
        }
    }
}

/// Something that resources are made of, and that has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirty {
    /// The service's definition, or its instances.
    Service(ServiceKey),
    Raw(RawKey),
}

/// A lease that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSet {
    pub id: LeaseId,
    pub lease: Lease,
    /// Whose it was; none if it is new.
    pub was: Option<ReplicaId>,
}

/// What a commit asks of the shell: timers to set, readers to tell.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    pub events: Vec<Event>,
    /// Some more than once.
    pub dirty: Vec<Dirty>,
    /// The services among these that have checks, or had.
    pub checked: Vec<ServiceKey>,
    pub leases_set: Vec<LeaseSet>,
    pub leases_gone: Vec<LeaseId>,
    /// Deleted, though they have members: to be put back.
    pub leases_missed: Vec<LeaseId>,
    /// What the agent has said under a lease has another digest now; the last one counts.
    pub digests: Vec<(LeaseId, Digest)>,
    pub drains: Vec<(InstanceKey, Duration)>,
    /// A replica has come or gone.
    pub replicas_changed: bool,
}

#[derive(Debug, Default)]
pub struct State {
    /// Which replica this is.
    pub(super) me: ReplicaId,
    pub(super) snapshot: Snapshot,
    pub(super) virtuals: Virtuals,
    leases: Sharded<LeaseId, LeaseState>,
    addresses: HashMap<ServiceKey, Addresses, RandomState>,
    tombstones_by_age: BTreeSet<(UnixMillis, InstanceKey)>,
    /// Services without instances, in the order in which they became so.
    empty_services: BTreeMap<ServiceKey, UnixMillis>,
}

impl State {
    /// The state of a store as it was opened.
    pub fn load(revision: Revision, mut records: Vec<(Key, Revision, Record)>, now: UnixMillis) -> (Self, Effects) {
        // What instances hang on goes first; then by age, as they came.
        let rank = |key: &Key| match key {
            Key::Service(_) | Key::Raw(_) | Key::Replica(_) => 0,
            Key::Lease(_) => 1,
            Key::Instance(_) => 2,
        };
        records.sort_by(|(a_key, a, _), (b_key, b, _)| (rank(a_key), a, a_key).cmp(&(rank(b_key), b, b_key)));
        let (mut state, mut effects) = (Self::default(), Effects::default());
        for (key, revision, record) in records {
            state.change(revision, Change { key, record: Some(record) }, now, &mut effects);
        }
        state.snapshot.revision = revision;
        (state, effects)
    }

    /// Applies one commit, whole. Commits come in order.
    pub fn apply(&mut self, commit: Commit, now: UnixMillis) -> Effects {
        let mut effects = Effects::default();
        self.snapshot.revision = commit.revision;
        for change in commit.changes {
            self.change(commit.revision, change, now, &mut effects);
        }
        effects
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn lease(&self, id: LeaseId) -> Option<&LeaseState> {
        self.leases.get(&id)
    }

    /// The instances of a lease.
    pub fn members(&self, id: LeaseId) -> impl Iterator<Item = &Versioned<Instance>> {
        let members = self.leases.get(&id).into_iter().flat_map(|lease| lease.members.iter());
        members.filter_map(|key| self.snapshot.instance(key))
    }

    pub fn lease_ttl(&self, id: LeaseId) -> Option<Duration> {
        self.leases.get(&id).map(|state| state.lease.ttl)
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = (&LeaseId, &LeaseState)> {
        self.leases.iter()
    }

    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// Who of a service has an address and port.
    pub(super) fn at(&self, service: &ServiceKey, address: IpAddr, port: u16) -> Option<&InstanceId> {
        self.addresses.get(service)?.0.get(&(address, port))
    }

    #[cfg(test)]
    pub(super) fn addresses(&self, service: &ServiceKey) -> Addresses {
        self.addresses.get(service).cloned().unwrap_or_default()
    }

    pub(super) fn tombstone(&self, key: &InstanceKey) -> Option<&Versioned<Tombstone>> {
        self.snapshot.gone.get(key)
    }

    /// Tombstones older than `before`, and the oldest of those over `limit`; at most `count`.
    pub fn tombstones_due(&self, before: UnixMillis, limit: usize, count: usize) -> Vec<InstanceKey> {
        let over = self.tombstones_by_age.len().saturating_sub(limit);
        let due = |(index, (at, _)): &(usize, &(UnixMillis, InstanceKey))| *index < over || *at < before;
        self.tombstones_by_age.iter().enumerate().take_while(due).take(count).map(|(_, (_, key))| key.clone()).collect()
    }

    /// Services that have had no instance since before `before`.
    pub fn services_abandoned(&self, before: UnixMillis) -> Vec<ServiceKey> {
        self.empty_services.iter().filter(|(_, since)| **since < before).map(|(key, _)| key.clone()).collect()
    }

    fn change(&mut self, revision: Revision, change: Change, now: UnixMillis, effects: &mut Effects) {
        match (change.key, change.record) {
            (Key::Service(key), Some(Record::Service(service))) => {
                self.put_service(key, Versioned { revision, value: service }, now, effects);
            }
            (Key::Service(key), _) => self.delete_service(&key, revision, now, effects),
            (Key::Lease(id), Some(Record::Lease(lease))) => {
                let was = match self.leases.entry(id) {
                    Entry::Occupied(held) => {
                        let held = held.into_mut();
                        held.revision = revision;
                        Some(std::mem::replace(&mut held.lease, lease).owner)
                    }
                    Entry::Vacant(new) => {
                        let (members, digest) = Default::default();
                        new.insert(LeaseState { lease, revision, members, digest });
                        None
                    }
                };
                effects.leases_set.push(LeaseSet { id, lease, was });
            }
            // Somebody joined it by way of another replica just when it was taken for empty: it goes on.
            (Key::Lease(id), _) if self.leases.get(&id).is_some_and(|state| !state.members.is_empty()) => {
                if let Some(state) = self.leases.get_mut(&id) {
                    state.revision = ABSENT;
                    effects.leases_missed.push(id);
                }
            }
            (Key::Lease(id), _) => {
                self.leases.remove(&id);
                effects.leases_gone.push(id);
            }
            (Key::Replica(id), record) => {
                match record {
                    Some(Record::Replica(replica)) => self.snapshot.replicas.insert(id, replica),
                    _ => self.snapshot.replicas.remove(&id),
                };
                effects.replicas_changed = true;
            }
            (Key::Raw(key), record) => {
                match record {
                    Some(Record::Raw(value)) => self.snapshot.raw.insert(key.clone(), Versioned { revision, value }),
                    _ => self.snapshot.raw.remove(&key),
                };
                effects.dirty.push(Dirty::Raw(key));
            }
            (Key::Instance(key), Some(Record::Instance(instance))) => {
                self.forget(&key);
                self.put_instance(Versioned { revision, value: instance }, effects);
            }
            (Key::Instance(key), Some(Record::Tombstone(tombstone))) => {
                self.forget(&key);
                self.tombstones_by_age.insert((tombstone.removed_at, key.clone()));
                self.remove_instance(&key, revision, tombstone.cause, now, effects);
                self.snapshot.gone.insert(key, Versioned { revision, value: Arc::new(tombstone) });
            }
            (Key::Instance(key), _) => {
                self.forget(&key);
                self.remove_instance(&key, revision, RemovalCause::Deregistered, now, effects);
            }
        }
    }

    fn put_service(&mut self, key: ServiceKey, service: Versioned<Service>, now: UnixMillis, effects: &mut Effects) {
        let revision = service.revision;
        match self.snapshot.services.get_mut(&key) {
            Some(state) => {
                let state = Arc::make_mut(state);
                state.mark_checked(effects);
                state.service = service;
                state.revision = revision;
                state.mark_checked(effects);
            }
            None => {
                if !service.value.is_virtual() {
                    self.empty_services.insert(key.clone(), now);
                }
                let state = ServiceState::new(key.clone(), service);
                state.mark_checked(effects);
                self.snapshot.services.insert(key.clone(), Arc::new(state));
            }
        }
        effects.dirty.push(Dirty::Service(key.clone()));
        self.service_selects(&key, revision, effects);
    }

    fn delete_service(&mut self, key: &ServiceKey, revision: Revision, now: UnixMillis, effects: &mut Effects) {
        let Some(state) = self.snapshot.services.get(key).cloned() else { return };
        state.mark_checked(effects);
        for instance in state.instances.values() {
            self.remove_instance(&instance.value.key, revision, RemovalCause::Deregistered, now, effects);
        }
        self.snapshot.services.remove(key);
        self.addresses.remove(key);
        self.virtuals.remove(key);
        self.empty_services.remove(key);
        effects.dirty.push(Dirty::Service(key.clone()));
    }

    fn put_instance(&mut self, mut instance: Versioned<Instance>, effects: &mut Effects) {
        // A store whose service record is gone has no place for the instance; `delete_service` is why.
        let Some(state) = self.snapshot.services.get_mut(&instance.value.key.service) else { return };
        let state = Arc::make_mut(state);
        // A long name's text is its service's: nobody else has this record, and nothing is copied.
        if let Some(own) = Arc::get_mut(&mut instance.value) {
            own.key.service = state.key.clone();
        }
        let key = instance.value.key.clone();
        state.revision = instance.revision;
        state.mark_checked(effects);
        let before = state.instances.insert(key.id.clone(), instance.clone());
        let addresses = self.addresses.entry(key.service.clone()).or_default();
        before.iter().for_each(|before| addresses.leave(&before.value));
        addresses.take(&instance.value);
        self.empty_services.remove(&key.service);
        self.move_member(before.as_ref().map(|before| &*before.value), Some(&instance.value), effects);
        if let Some(drain) = instance.value.drain
            && before.as_ref().is_none_or(|before| before.value.drain != instance.value.drain)
        {
            effects.drains.push((key.clone(), drain.time));
        }
        effects.dirty.push(Dirty::Service(key.service));
        self.member_changed(before.as_ref(), Some(&instance), effects);
        let kind = if before.is_some() { EventKind::Changed } else { EventKind::Added };
        effects.events.push(Event { kind, revision: instance.revision, before, instance });
    }

    fn remove_instance(
        &mut self,
        key: &InstanceKey,
        revision: Revision,
        cause: RemovalCause,
        now: UnixMillis,
        effects: &mut Effects,
    ) {
        let Some(state) = self.snapshot.services.get_mut(&key.service) else { return };
        if !state.instances.contains_key(&key.id) {
            return;
        }
        let state = Arc::make_mut(state);
        state.revision = revision;
        state.mark_checked(effects);
        let Some(instance) = state.instances.remove(&key.id) else { return };
        if let Some(addresses) = self.addresses.get_mut(&key.service) {
            addresses.leave(&instance.value);
        }
        if state.instances.is_empty() {
            self.empty_services.insert(key.service.clone(), now);
        }
        self.move_member(Some(&instance.value), None, effects);
        effects.dirty.push(Dirty::Service(key.service.clone()));
        self.member_changed(Some(&instance), None, effects);
        let before = Some(instance.clone());
        effects.events.push(Event { kind: EventKind::Removed(cause), revision, before, instance });
    }

    /// Keeps the members of leases, and the digest of what was said of them.
    fn move_member(&mut self, before: Option<&Instance>, after: Option<&Instance>, effects: &mut Effects) {
        let stays = before.map(|before| before.lease) == after.map(|after| after.lease);
        if let (Some(before), Some(after)) = (before, after)
            && stays
            && before.incarnation == after.incarnation
            && Arc::ptr_eq(&before.spec, &after.spec)
        {
            // The agent said nothing: most changes are to health.
            return;
        }
        let said = |instance: &Instance| (instance.lease, Digest::of(instance));
        let (was, is) = (before.map(said), after.map(said));
        if was == is {
            return;
        }
        if let (Some((lease, digest)), Some(before)) = (was, before)
            && let Some(state) = self.leases.get_mut(&lease)
        {
            state.digest.subtract(digest);
            if !stays {
                state.members.remove(&before.key);
                effects.digests.push((lease, state.digest));
            }
        }
        if let (Some((lease, digest)), Some(after)) = (is, after)
            && let Some(state) = self.leases.get_mut(&lease)
        {
            state.digest.add(digest);
            if !stays {
                state.members.insert(after.key.clone());
            }
            effects.digests.push((lease, state.digest));
        }
    }

    fn forget(&mut self, key: &InstanceKey) {
        // To look is cheaper than to take away what is not there.
        if self.snapshot.gone.contains_key(key)
            && let Some(tombstone) = self.snapshot.gone.remove(key)
        {
            self.tombstones_by_age.remove(&(tombstone.value.removed_at, key.clone()));
        }
    }
}
