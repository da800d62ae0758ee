//! The resources in being, and who is subscribed to them.
//!
//! A resource is built when somebody asks for it, and again when what it is made of has changed and somebody is
//! subscribed; if its content is equal, that is the end of it. Else the index leads to the sessions subscribed, and
//! only these are told: a name in their set of dirty names. Nobody else pays, and nobody is waited for. What nobody
//! follows any more is dropped; a wildcard's resources stay until they change.
//!
//! A slot's lock covers its building and its list of subscribers, so that a session that subscribes and then looks
//! misses no change. No lock is held while another is taken, but for the map's own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use dashmap::{DashMap, Entry};
use tokio::sync::watch;

use super::{
    protocol::{Interest, Readiness},
    resource::Resource,
    session::Session,
};
use crate::{
    dirty::DirtySet,
    model::{Revision, ServiceKey},
    registry::{Registry, state::Snapshot},
    translate::{self, Dependency, ResourceKey, ResourceType, View, names::clusters_of},
};

/// One stream's place in the index.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// The stream's number.
    pub id: u64,
    /// Names that may have changed for it.
    pub dirty: DirtySet<(ResourceType, Arc<str>)>,
}

type Subscribers = HashMap<u64, Arc<Mailbox>>;

#[derive(Debug, Default)]
struct Slot {
    resource: Option<Arc<Resource>>,
    /// Built from the newest state that was there when it was last dirty.
    fresh: bool,
    subscribers: Subscribers,
}

#[derive(Debug)]
pub struct Cache {
    registry: Registry,
    slots: DashMap<ResourceKey, Arc<Mutex<Slot>>>,
    by_service: DashMap<ServiceKey, BTreeSet<ResourceKey>>,
    by_definitions: Mutex<BTreeSet<ResourceKey>>,
    wildcards: Mutex<HashMap<ResourceType, Subscribers>>,
    readiness: watch::Sender<Readiness>,
    told: watch::Sender<Revision>,
}

impl Cache {
    pub fn new(registry: Registry, readiness: Readiness) -> Self {
        Self {
            registry,
            slots: DashMap::new(),
            by_service: DashMap::new(),
            by_definitions: Mutex::default(),
            wildcards: Mutex::default(),
            readiness: watch::Sender::new(readiness),
            told: watch::Sender::default(),
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
    }

    /// Up to which revision every change has been marked in the mailboxes of those whom it concerns.
    pub fn told(&self) -> watch::Receiver<Revision> {
        self.told.subscribe()
    }

    pub fn set_told(&self, revision: Revision) {
        self.told.send_if_modified(|told| std::mem::replace(told, revision) != revision);
    }

    /// The resource as it is now; built if it is not.
    pub fn get(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        {
            let slot = self.slot(key);
            let mut slot = lock(&slot);
            self.freshen(key, &mut slot);
            if slot.resource.is_some() || !slot.subscribers.is_empty() {
                return slot.resource.clone();
            }
        }
        // There is nothing of that name, and nobody waits for it: a client may ask for any number of such.
        self.drop_slot(key);
        None
    }

    pub fn subscribe(&self, key: &ResourceKey, subscriber: &Arc<Mailbox>) {
        let slot = self.slot(key);
        lock(&slot).subscribers.insert(subscriber.id, subscriber.clone());
    }

    pub fn unsubscribe(&self, key: &ResourceKey, subscriber: &Arc<Mailbox>) {
        let Some(slot) = self.slots.get(key).map(|slot| slot.clone()) else { return };
        let empty = {
            let mut slot = lock(&slot);
            slot.subscribers.remove(&subscriber.id);
            slot.subscribers.is_empty()
        };
        // Who holds a slot is about to use it: only one that nobody holds is dropped.
        drop(slot);
        if empty {
            self.drop_slot(key);
        }
    }

    pub fn subscribe_wildcard(&self, kind: ResourceType, subscriber: &Arc<Mailbox>) {
        lock(&self.wildcards).entry(kind).or_default().insert(subscriber.id, subscriber.clone());
    }

    pub fn unsubscribe_wildcard(&self, kind: ResourceType, subscriber: &Arc<Mailbox>) {
        if let Some(subscribers) = lock(&self.wildcards).get_mut(&kind) {
            subscribers.remove(&subscriber.id);
        }
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

    /// Builds what is stale; true if the content is another than before.
    fn freshen(&self, key: &ResourceKey, slot: &mut Slot) -> bool {
        if slot.fresh {
            return false;
        }
        slot.fresh = true;
        let built = translate::build(key, &self.registry.snapshot());
        let resource = built.map(|built| Arc::new(Resource::new(key.kind, key.name.clone(), built)));
        let version = |resource: &Option<Arc<Resource>>| resource.as_ref().map(|resource| resource.version);
        if version(&resource) == version(&slot.resource) {
            return false;
        }
        slot.resource = resource;
        true
    }

    /// Something that a resource is made of has changed.
    fn touch(&self, key: &ResourceKey) {
        let Some(slot) = self.slots.get(key).map(|slot| slot.clone()) else { return };
        {
            let mut slot = lock(&slot);
            slot.fresh = false;
            if !slot.subscribers.is_empty() {
                if self.freshen(key, &mut slot) {
                    tell(&slot.subscribers, key.kind, std::slice::from_ref(&key.name));
                }
                return;
            }
        }
        drop(slot);
        self.drop_slot(key);
    }

    /// A service's instances or its definition have changed.
    pub fn service_changed(&self, service: &ServiceKey) {
        let keys = self.by_service.get(service).map(|keys| keys.clone()).unwrap_or_default();
        for key in &keys {
            self.touch(key);
        }
    }

    /// A service's definition has changed: its clusters may have come, gone or changed.
    pub fn definition_changed(&self, clusters: &[Arc<str>]) {
        let subscribers = lock(&self.wildcards).get(&ResourceType::Cluster).cloned().unwrap_or_default();
        tell(&subscribers, ResourceType::Cluster, clusters);
    }

    /// Some definitions have changed: so have the resources that hold all of them.
    pub fn definitions_changed(&self) {
        let keys = lock(&self.by_definitions).clone();
        for key in &keys {
            self.touch(key);
        }
    }
}

fn tell(subscribers: &Subscribers, kind: ResourceType, names: &[Arc<str>]) {
    for subscriber in subscribers.values() {
        subscriber.dirty.mark(names.iter().map(|name| (kind, name.clone())));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

/// Which of the services that changed have another definition than before: their clusters, then and now.
#[derive(Debug, Default)]
pub struct Definitions {
    known: BTreeMap<ServiceKey, Vec<Arc<str>>>,
    revisions: HashMap<ServiceKey, Revision>,
}

impl Definitions {
    /// The names of the service's clusters that may have come, gone or changed; empty if its definition has not.
    pub fn changed(&mut self, key: &ServiceKey, snapshot: &Snapshot) -> Vec<Arc<str>> {
        let state = snapshot.services.get(key);
        let revision = state.map(|state| state.service.revision);
        if revision == self.revisions.get(key).copied() {
            return Vec::new();
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
        let names: BTreeSet<Arc<str>> = before.into_iter().flatten().chain(now).collect();
        names.into_iter().collect()
    }
}

/// A cache as one proxy sees it.
#[derive(Debug)]
pub struct ViewCatalog {
    pub cache: Arc<Cache>,
    pub view: View,
}

impl ViewCatalog {
    /// Brings the index in line with what a client asks for. This goes before anything is looked up for it: then no
    /// change between the two is lost.
    pub fn follow(&self, Interest { kind, changed }: &Interest, subscriber: &Arc<Mailbox>) {
        for name in &changed.added {
            self.cache.subscribe(&self.view.key(*kind, name), subscriber);
        }
        for name in &changed.removed {
            self.cache.unsubscribe(&self.view.key(*kind, name), subscriber);
        }
        if changed.wildcard_began {
            self.cache.subscribe_wildcard(*kind, subscriber);
        }
        if changed.wildcard_ended {
            self.cache.unsubscribe_wildcard(*kind, subscriber);
        }
    }

    /// Takes a stream that has ended out of the index.
    pub fn leave(&self, session: &Session, subscriber: &Arc<Mailbox>) {
        for (kind, names, wildcard) in session.subscriptions() {
            for name in &names {
                self.cache.unsubscribe(&self.view.key(kind, name), subscriber);
            }
            if wildcard {
                self.cache.unsubscribe_wildcard(kind, subscriber);
            }
        }
    }
}

impl super::protocol::Catalog for ViewCatalog {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Resource>> {
        self.cache.get(&self.view.key(kind, name))
    }

    fn wildcard(&self, kind: ResourceType) -> Vec<Arc<str>> {
        self.view.wildcard(kind, &self.cache.registry.snapshot())
    }

    fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool {
        match kind {
            ResourceType::Cluster => true,
            ResourceType::Listener => name == translate::names::OUTBOUND,
            _ => false,
        }
    }
}
