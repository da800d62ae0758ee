//! Whose a lease is. Its owner times it, and it alone writes what becomes of it; each such write is made on the lease's own
//! revision, so that a replica that has lost a lease without knowing writes nothing.

use super::Plan;
use crate::{
    model::{Lease, LeaseId, ReplicaId, replica::share_of_lease},
    registry::state::{LeaseState, State},
    storage::{Key, Record},
};

impl State {
    /// A lease that is this replica's.
    pub(in crate::registry) fn own_lease(&self, id: LeaseId) -> Option<&LeaseState> {
        self.lease(id).filter(|state| state.lease.owner == self.me)
    }

    pub(super) fn plan_adopt(&self, leases: &[LeaseId]) -> Plan {
        let mut plan = Plan::default();
        for id in leases {
            let Some(state) = self.lease(*id).filter(|state| state.lease.owner != self.me) else { continue };
            plan.expect(Key::Lease(*id), state.revision);
            plan.put(Key::Lease(*id), Record::Lease(Lease { owner: self.me, ..state.lease }));
        }
        plan
    }

    fn is_here(&self, owner: ReplicaId) -> bool {
        owner == self.me || self.snapshot().replicas.contains_key(&owner)
    }

    /// Leases whose owner is gone, as far as they are this replica's to adopt: each is shared out to one of those that are
    /// here.
    pub fn orphans(&self) -> Vec<LeaseId> {
        let here = || self.snapshot().replicas.keys().copied();
        let is_mine = |id: &LeaseId| share_of_lease(*id, here()).is_none_or(|replica| replica == self.me);
        let orphan = |(id, state): (&LeaseId, &LeaseState)| (!self.is_here(state.lease.owner)).then_some(*id);
        let mut orphans: Vec<LeaseId> = self.leases().filter_map(orphan).filter(is_mine).collect();
        orphans.sort_unstable();
        orphans
    }

    /// Whether this replica does what one alone has to do.
    pub fn is_first(&self) -> bool {
        self.snapshot().replicas.keys().next().is_none_or(|first| *first == self.me)
    }
}
