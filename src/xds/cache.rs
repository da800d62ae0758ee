//! The resources in being, and who is subscribed to them.
//!
//! A resource is built when somebody asks for it, and again when what it is made of has changed and somebody is
//! subscribed; if its content is equal, that is the end of it. Else its subscribers are told, and only these: a name in
//! their set of names. Nobody else pays, and nobody is waited for. What nobody follows any more is dropped; a
//! wildcard's resources stay until they change.
//!
//! A slot's lock covers its building and its list of subscribers; these are told after it. A session subscribes and
//! then looks: so it finds what was built before, and is told of what comes after. One that moves from a group to another
//! joins, waits until who is being told has been told, and leaves: so it is in one of those that are told. No lock is held
//! while another is taken, but for the map's own and that of telling.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use tokio::sync::watch;

use super::{
    index::{Group, Mailbox, Subscriber, lock},
    name_set::NameSet,
    protocol::Readiness,
    resource::Resource,
    shared_view::{Failovers, Selection, SharedView, Views, failover_clusters, is_chosen, select},
    sharing::Sharing,
};
use crate::{
    model::{Exports, Node, RawKey, ResourceType, Revision, ServiceKey},
    registry::{
        Registry,
        state::{ServiceState, Snapshot},
    },
    translate::{self, Dependency, ResourceKey, Scope, names::clusters_of},
};

#[derive(Debug, Default)]
struct Slot {
    resource: Option<Arc<Resource>>,
    /// Who may see it.
    owner: Option<(ServiceKey, Exports)>,
    /// Built from the newest state that was there when it was last dirty.
    fresh: bool,
    /// Of a variant, that of what it was built from.
    raw: Option<Revision>,
    /// Somebody got what it is now before its subscribers were told.
    untold: bool,
    subscribers: HashMap<u64, Subscriber>,
}

/// What a group's streams have in common: type, view, and the digest of the names.
type GroupKey = (ResourceType, u64, u128);

#[derive(Debug)]
pub struct Cache {
    registry: Registry,
    slots: DashMap<ResourceKey, Arc<Mutex<Slot>>>,
    by_service: DashMap<ServiceKey, BTreeSet<ResourceKey>>,
    by_definitions: Mutex<BTreeSet<ResourceKey>>,
    groups: DashMap<GroupKey, Arc<Group>>,
    wildcards: Mutex<HashMap<(ResourceType, u64), Arc<Group>>>,
    /// Held from looking who is to be told until they have been.
    telling: Mutex<()>,
    last_group: AtomicU64,
    /// All streams, for what concerns everybody.
    streams: DashMap<u64, Arc<Mailbox>>,
    /// Raw resources that are not for everybody. Only of these a stream has a choice: of one that came and went before
    /// anybody was told, no stream would be told that it went.
    chosen: Mutex<BTreeSet<RawKey>>,
    /// Assignments that depend on where one looks from.
    failovers: Mutex<Failovers>,
    pub(super) views: Views,
    pub(super) sharing: Sharing,
    readiness: watch::Sender<Readiness>,
    told: watch::Sender<Revision>,
}

impl Cache {
    pub fn new(registry: Registry, readiness: Readiness) -> Self {
        let snapshot = registry.snapshot();
        let chosen = snapshot.raw.iter().filter(|(key, raw)| is_chosen(key, &raw.value)).map(|(key, _)| key.clone());
        let chosen = Mutex::new(chosen.collect());
        let depends = |state: &Arc<ServiceState>| {
            Some((state.key.clone(), failover_clusters(state))).filter(|(_, of)| !of.is_empty())
        };
        let failovers = Mutex::new(snapshot.services.values().filter_map(depends).collect());
        Self {
            registry,
            slots: DashMap::new(),
            by_service: DashMap::new(),
            by_definitions: Mutex::default(),
            groups: DashMap::new(),
            wildcards: Mutex::default(),
            telling: Mutex::default(),
            last_group: AtomicU64::new(0),
            streams: DashMap::new(),
            chosen,
            failovers,
            views: Views::default(),
            sharing: Sharing::default(),
            readiness: watch::Sender::new(readiness),
            told: watch::Sender::new(Revision(0)),
        }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    pub fn set_readiness(&self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
        self.wake_all();
    }

    /// Lets every stream look at what concerns everybody.
    pub fn wake_all(&self) {
        self.streams.iter().for_each(|stream| stream.wake());
    }

    /// The revision up to which everybody has been told of what concerns him.
    pub fn told(&self) -> watch::Receiver<Revision> {
        self.told.subscribe()
    }

    pub(super) fn set_told(&self, revision: Revision) {
        self.told.send_if_modified(|told| std::mem::replace(told, revision) != revision);
    }

    pub(super) fn enter(&self, stream: &Arc<Mailbox>) {
        self.streams.insert(stream.id, stream.clone());
    }

    pub(super) fn has_no_streams(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn exit(&self, stream: &Mailbox) {
        self.streams.remove(&stream.id);
    }

    /// The resource as it is now, built if it is not; none if there is none, or if it is not for this view.
    pub(super) fn get(&self, key: &ResourceKey, view: &SharedView) -> Option<Arc<Resource>> {
        {
            let slot = self.slot(key);
            let mut slot = lock(&slot);
            self.renew_variant(key, &mut slot);
            self.freshen(key, &mut slot);
            if slot.resource.is_some() || !slot.subscribers.is_empty() {
                return slot.resource.as_ref().filter(|_| view.sees(&slot.owner)).cloned();
            }
        }
        // There is nothing of that name, and nobody waits for it: a client may ask for any number of such.
        self.drop_slot(key);
        None
    }

    pub(super) fn subscribe(&self, key: &ResourceKey, subscriber: Subscriber) {
        let slot = self.slot(key);
        lock(&slot).subscribers.insert(subscriber.id(), subscriber);
    }

    pub(super) fn unsubscribe(&self, key: &ResourceKey, subscriber: &Subscriber) {
        let Some(slot) = self.slots.get(key).map(|slot| slot.clone()) else { return };
        let empty = {
            let mut slot = lock(&slot);
            slot.subscribers.remove(&subscriber.id());
            slot.subscribers.is_empty()
        };
        // Who holds a slot is about to use it: only one that nobody holds is dropped.
        drop(slot);
        if empty {
            self.drop_slot(key);
        }
    }

    /// Makes a stream one of those of its view that ask for these names, if there are such.
    pub(super) fn join(
        &self,
        kind: ResourceType,
        view: &SharedView,
        names: &NameSet,
        stream: &Arc<Mailbox>,
    ) -> Option<Arc<Group>> {
        let group = self.groups.get(&(kind, view.id, names.digest()))?.clone();
        group.join(stream).then_some(group)
    }

    /// Makes a group for names that nobody else asks for so far.
    pub(super) fn found(
        &self,
        kind: ResourceType,
        view: &Arc<SharedView>,
        names: &Arc<NameSet>,
        stream: &Arc<Mailbox>,
    ) -> Arc<Group> {
        let group = Arc::new(self.new_group(kind, view, Some(names.clone())));
        group.join(stream);
        for name in names.iter() {
            self.subscribe(&view.key(kind, name), Subscriber::Group(group.clone()));
        }
        // Another may have done the same: then each keeps his own, and the later one takes who comes.
        self.groups.insert((kind, view.id, names.digest()), group.clone());
        group
    }

    fn new_group(&self, kind: ResourceType, view: &Arc<SharedView>, names: Option<Arc<NameSet>>) -> Group {
        let id = self.last_group.fetch_add(1, Ordering::Relaxed);
        Group::new(id, kind, view.clone(), names)
    }

    /// Takes a stream out of a group, after it has joined another if it is to miss nothing.
    pub(super) fn leave(&self, group: &Arc<Group>, stream: &Mailbox) {
        drop(lock(&self.telling));
        if !group.leave(stream) {
            return;
        }
        let Some(names) = &group.names else {
            let mut wildcards = lock(&self.wildcards);
            let key = (group.kind, group.view.id);
            if wildcards.get(&key).is_some_and(|known| Arc::ptr_eq(known, group)) {
                wildcards.remove(&key);
            }
            drop(wildcards);
            return self.drop_own_slots(group);
        };
        let key = (group.kind, group.view.id, names.digest());
        self.groups.remove_if(&key, |_, known| Arc::ptr_eq(known, group));
        let subscriber = Subscriber::Group(group.clone());
        for name in names.iter() {
            self.unsubscribe(&group.view.key(group.kind, name), &subscriber);
        }
    }

    /// What is built for one view only, and for the wildcard, is followed by nobody when its last stream has left, and
    /// may never change.
    fn drop_own_slots(&self, group: &Group) {
        for name in group.view.wildcard(group.kind, &self.registry.snapshot()) {
            let key = group.view.key(group.kind, &name);
            if key.scope != Scope::Shared {
                self.drop_slot(&key);
            }
        }
    }

    /// How many resources are kept, or waited for.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many groups there have been.
    #[cfg(test)]
    pub(super) fn founded(&self) -> u64 {
        self.last_group.load(Ordering::Relaxed)
    }

    pub(super) fn join_wildcard(
        &self,
        kind: ResourceType,
        view: &Arc<SharedView>,
        stream: &Arc<Mailbox>,
    ) -> Arc<Group> {
        let mut wildcards = lock(&self.wildcards);
        let known = wildcards.get(&(kind, view.id)).filter(|group| group.join(stream));
        if let Some(group) = known {
            return group.clone();
        }
        let group = Arc::new(self.new_group(kind, view, None));
        group.join(stream);
        wildcards.insert((kind, view.id), group.clone());
        group
    }

    fn slot(&self, key: &ResourceKey) -> Arc<Mutex<Slot>> {
        if let Some(slot) = self.slots.get(key) {
            return slot.clone();
        }
        let insert = || self.slots.entry(key.clone()).or_default().clone();
        // Slot and dependency come and go together: once the slot can be found, changes find it.
        match translate::depends_on(key) {
            Dependency::Service(service) => {
                let mut keys = self.by_service.entry(service).or_default();
                keys.insert(key.clone());
                insert()
            }
            Dependency::Definitions => {
                let mut keys = lock(&self.by_definitions);
                keys.insert(key.clone());
                insert()
            }
            Dependency::Nothing => insert(),
        }
    }

    /// Forgets a slot that nobody is subscribed to.
    fn drop_slot(&self, key: &ResourceKey) {
        let unused = |_: &ResourceKey, slot: &Arc<Mutex<Slot>>| {
            // Whoever holds the slot is about to use it.
            Arc::strong_count(slot) == 1 && lock(slot).subscribers.is_empty()
        };
        let remove = || self.slots.remove_if(key, unused).is_some();
        match translate::depends_on(key) {
            Dependency::Service(service) => {
                let Entry::Occupied(mut keys) = self.by_service.entry(service) else { return };
                if remove() {
                    keys.get_mut().remove(key);
                }
                if keys.get().is_empty() {
                    keys.remove();
                }
            }
            Dependency::Definitions => {
                let mut keys = lock(&self.by_definitions);
                if remove() {
                    keys.remove(key);
                }
            }
            Dependency::Nothing => drop(remove()),
        }
    }

    /// Builds what is stale; true if the content is another than before, or is for others.
    fn freshen(&self, key: &ResourceKey, slot: &mut Slot) -> bool {
        if slot.fresh {
            return false;
        }
        let snapshot = self.registry.snapshot();
        let mut built = translate::build(key, &snapshot);
        (slot.fresh, slot.raw) = (true, variant(key, &snapshot));
        let owner = built.as_mut().and_then(|built| built.service.take());
        let same_owner = owner == std::mem::replace(&mut slot.owner, owner.clone());
        let resource = built.map(|built| Arc::new(Resource::new(key.kind, key.name.clone(), built)));
        let version = |resource: &Option<Arc<Resource>>| resource.as_ref().map(|resource| resource.version);
        if version(&resource) == version(&slot.resource) {
            return !same_owner;
        }
        slot.resource = resource;
        true
    }

    /// Whom a variant is for changes with the state, at once. Who gets it only now must not get what it was for others,
    /// though those have yet to be told.
    fn renew_variant(&self, key: &ResourceKey, slot: &mut Slot) {
        if slot.fresh && matches!(key.scope, Scope::Variant(_)) && variant(key, &self.registry.snapshot()) != slot.raw {
            slot.fresh = false;
            slot.untold |= self.freshen(key, slot);
        }
    }

    /// Something that a resource is made of has changed.
    fn touch(&self, key: &ResourceKey, revision: Revision) {
        let _telling = lock(&self.telling);
        let Some(slot) = self.slots.get(key).map(|slot| slot.clone()) else { return };
        let subscribers: Vec<Subscriber> = {
            let mut slot = lock(&slot);
            slot.fresh = false;
            let changed = slot.subscribers.is_empty() || self.freshen(key, &mut slot);
            match changed | std::mem::take(&mut slot.untold) {
                true => slot.subscribers.values().cloned().collect(),
                false => return,
            }
        };
        drop(slot);
        if subscribers.is_empty() {
            return self.drop_slot(key);
        }
        for subscriber in &subscribers {
            subscriber.tell(key.kind, std::slice::from_ref(&key.name), revision);
        }
    }

    /// Which resources a node gets, of names of which there are several.
    pub(super) fn select(&self, node: &Node) -> Selection {
        // The state may be newer than these: then there will be another selection.
        let failovers = lock(&self.failovers).clone();
        let chosen = lock(&self.chosen).iter().map(|key| (key.kind, key.name.clone())).collect();
        select(node, &failovers, chosen, &self.registry.snapshot())
    }

    /// Whether it depends on where one looks from has changed for a service.
    fn failover_changed(&self, service: &ServiceKey) -> bool {
        let now = self.registry.snapshot().services.get(service).map(|state| failover_clusters(state));
        let now = now.unwrap_or_default();
        let mut failovers = lock(&self.failovers);
        let before = failovers.get(service).cloned().unwrap_or_default();
        match now.is_empty() {
            true => drop(failovers.remove(service)),
            false => drop(failovers.insert(service.clone(), now.clone())),
        }
        before != now
    }

    /// The clusters of a service that somebody has looked at.
    pub(super) fn clusters_seen(&self, service: &ServiceKey) -> Vec<Arc<str>> {
        let keys = self.by_service.get(service).map(|keys| keys.clone()).unwrap_or_default();
        keys.iter().filter(|key| key.kind == ResourceType::Cluster).map(|key| key.name.clone()).collect()
    }

    /// A service's instances have changed, and its definition if these are its clusters, then and now.
    pub(super) fn service_changed(&self, service: &ServiceKey, clusters: &BTreeSet<Arc<str>>, revision: Revision) {
        // Who is meant goes before what is said.
        if !clusters.is_empty() && self.failover_changed(service) {
            self.streams.iter().for_each(|stream| stream.tell_selection(revision));
        }
        let keys = self.by_service.get(service).map(|keys| keys.clone()).unwrap_or_default();
        for key in keys.iter().filter(|key| key.kind == ResourceType::Endpoint || !clusters.is_empty()) {
            self.touch(key, revision);
        }
        if !clusters.is_empty() {
            self.tell_wildcards(ResourceType::Cluster, revision, |group| {
                let imported = |name: &&Arc<str>| group.view.view.in_wildcard(ResourceType::Cluster, name);
                clusters.iter().filter(imported).cloned().collect()
            });
        }
    }

    /// Some definitions have changed: so have the resources that hold all of them.
    pub(super) fn definitions_changed(&self, revision: Revision) {
        let keys = lock(&self.by_definitions).clone();
        for key in &keys {
            self.touch(key, revision);
        }
    }

    /// Somebody wrote, changed or deleted these.
    pub(super) fn raw_changed(&self, changed: &BTreeSet<RawKey>, revision: Revision) {
        // Who is meant goes before what is said: else one would be told what is now for others.
        if self.choice_changed(changed) {
            self.streams.iter().for_each(|stream| stream.tell_selection(revision));
        }
        let names: HashSet<(ResourceType, &str)> = changed.iter().map(|key| (key.kind, &*key.name)).collect();
        let of_name = |key: &ResourceKey| names.contains(&(key.kind, &*key.name));
        let keys: Vec<ResourceKey> =
            self.slots.iter().filter(|slot| of_name(slot.key())).map(|slot| slot.key().clone()).collect();
        for key in &keys {
            self.touch(key, revision);
        }
        for kind in ResourceType::ALL.into_iter().filter(|kind| kind.is_full_set()) {
            let of_kind = changed.iter().filter(|key| key.kind == kind).map(|key| key.name.clone());
            let names: Vec<Arc<str>> = of_kind.collect();
            self.tell_wildcards(kind, revision, |_| names.clone());
        }
    }

    /// Whether some of these are, or were, one of several for different proxies.
    fn choice_changed(&self, changed: &BTreeSet<RawKey>) -> bool {
        let snapshot = self.registry.snapshot();
        let mut chosen = lock(&self.chosen);
        let mut choice = false;
        for key in changed {
            let is_chosen = snapshot.raw.get(key).is_some_and(|raw| is_chosen(key, &raw.value));
            // One for everybody is what those get whom no variant of it selects.
            let first = RawKey { variant: "".into(), ..key.clone() };
            let same = |other: &RawKey| (other.kind, &other.name) == (key.kind, &key.name);
            choice |= is_chosen || chosen.range(first..).next().is_some_and(same);
            if is_chosen {
                chosen.insert(key.clone());
            } else {
                chosen.remove(key);
            }
        }
        choice
    }

    /// Tells those who follow all of a type what of it concerns them.
    fn tell_wildcards(&self, kind: ResourceType, revision: Revision, names: impl Fn(&Group) -> Vec<Arc<str>>) {
        let _telling = lock(&self.telling);
        let groups: Vec<Arc<Group>> = {
            let wildcards = lock(&self.wildcards);
            wildcards.iter().filter(|((of, _), _)| *of == kind).map(|(_, group)| group.clone()).collect()
        };
        groups.iter().for_each(|group| group.tell(&names(group), revision));
    }
}

/// The revision of the raw resource that a variant is; none if it is no variant, or there is none.
fn variant(key: &ResourceKey, snapshot: &Snapshot) -> Option<Revision> {
    let Scope::Variant(variant) = &key.scope else { return None };
    let raw = RawKey { kind: key.kind, name: key.name.clone(), variant: variant.clone() };
    snapshot.raw.get(&raw).map(|raw| raw.revision)
}

/// Which of the services that changed have another definition than before: their clusters, then and now.
#[derive(Debug, Default)]
pub struct Definitions {
    known: BTreeMap<ServiceKey, Vec<Arc<str>>>,
    revisions: HashMap<ServiceKey, crate::model::Revision>,
}

impl Definitions {
    /// The names of the service's clusters that have come, gone or may have changed; none if its definition has not.
    pub fn changed(&mut self, key: &ServiceKey, snapshot: &Snapshot) -> Option<BTreeSet<Arc<str>>> {
        let state = snapshot.services.get(key);
        let revision = state.map(|state| state.service.revision);
        // One that is not there, and was not, came and went.
        if revision.is_some() && revision == self.revisions.get(key).copied() {
            return None;
        }
        let now: Vec<Arc<str>> = state.map(|state| clusters_of(state).collect()).unwrap_or_default();
        let before = match revision {
            Some(revision) => {
                self.revisions.insert(key.clone(), revision);
                self.known.insert(key.clone(), now.clone())
            }
            None => {
                self.revisions.remove(key);
                self.known.remove(key)
            }
        };
        Some(before.into_iter().flatten().chain(now).collect())
    }
}
