//! A copy of everything that a store has to hold, of one revision. The registry's task hands it out between two writes: what
//! it has is shared with the state, but for the list of leases.

use std::sync::Mutex;

use tokio::sync::oneshot;

use super::state::{Snapshot, State};
use crate::{
    model::{Lease, LeaseId, ReplicaId, Revision},
    storage::{Key, Record},
};

/// As a store would hold it.
#[derive(Debug)]
pub struct Copy {
    snapshot: Snapshot,
    leases: Vec<(LeaseId, Revision, Lease)>,
}

impl Copy {
    fn of(state: &State) -> Self {
        let leases = state.leases().map(|(id, state)| (*id, state.revision, state.lease)).collect();
        Self { snapshot: state.snapshot().clone(), leases }
    }

    pub fn revision(&self) -> Revision {
        self.snapshot.revision
    }

    pub fn records(&self) -> impl Iterator<Item = (Key, Revision, Record)> {
        let Snapshot { services, raw, gone, .. } = &self.snapshot;
        let instances = services.values().flat_map(|service| service.instances.values()).map(|instance| {
            (Key::Instance(instance.value.key.clone()), instance.revision, Record::Instance(instance.value.clone()))
        });
        let services = services.values().map(|state| {
            let service = &state.service;
            (Key::Service(state.key.clone()), service.revision, Record::Service(service.value.clone()))
        });
        // Whoever begins with them has all of them.
        let owned = |lease: &Lease| Record::Lease(Lease { owner: ReplicaId::ONLY, ..*lease });
        let leases = self.leases.iter().map(move |(id, revision, of)| (Key::Lease(*id), *revision, owned(of)));
        let raw = raw.iter().map(|(key, raw)| (Key::Raw(key.clone()), raw.revision, Record::Raw(raw.value.clone())));
        let gone = gone.iter().map(|(key, gone)| {
            (Key::Instance(key.clone()), gone.revision, Record::Tombstone(Clone::clone(&*gone.value)))
        });
        services.chain(leases).chain(instances).chain(raw).chain(gone)
    }
}

/// Who waits for a copy.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<Vec<oneshot::Sender<Copy>>>);

impl Copies {
    pub(super) fn ask(&self) -> oneshot::Receiver<Copy> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().push(sender);
        receiver
    }

    pub(super) fn hand_out(&self, state: &State) {
        for waiting in std::mem::take(&mut *self.waiting()) {
            // Whoever asked may have gone.
            let _ = waiting.send(Copy::of(state));
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<Copy>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}
