//! Leaving: deregistered, drained, expired, and at last forgotten.

use std::time::Duration;

use super::{Plan, check_newer, tombstone};
use crate::{
    model::{
        CheckKind, CheckState, CheckStatus, Drain, Incarnation, Instance, InstanceKey, LeaseId, Limits, RemovalCause,
        UnixMillis, service::DEFAULT_DRAIN_TIME,
    },
    registry::{
        command::Error,
        state::{ABSENT, State},
    },
    storage::{Key, Record},
};

impl State {
    pub(super) fn plan_deregister(
        &self,
        key: &InstanceKey,
        incarnation: Option<Incarnation>,
        now: UnixMillis,
    ) -> Result<Plan, Error> {
        let Some(current) = self.snapshot().instance(key) else {
            // Said twice is said once: an outcome that was not heard may be asked for again.
            return self.tombstone(key).map(|_| Plan::default()).ok_or_else(|| Error::no_instance(key));
        };
        if let Some(given) = incarnation {
            check_newer(key, given, Some(current.value.incarnation))?;
        }
        Ok(self.remove([key], RemovalCause::Deregistered, now))
    }

    /// Removes an instance whose liveness check has failed for so long; not one that has recovered meanwhile.
    pub(super) fn plan_evict(&self, key: &InstanceKey, incarnation: Incarnation, now: UnixMillis) -> Plan {
        let fails = |check: &CheckState| check.kind == CheckKind::Liveness && check.status == CheckStatus::Failing;
        let of = self.snapshot().instance(key).filter(|of| of.value.incarnation == incarnation);
        match of {
            Some(current) if current.value.checks.iter().any(fails) => self.remove([key], RemovalCause::Evicted, now),
            _ => Plan::default(),
        }
    }

    pub(super) fn plan_drain(
        &self,
        key: &InstanceKey,
        incarnation: Option<Incarnation>,
        time: Option<Duration>,
        now: UnixMillis,
    ) -> Result<Plan, Error> {
        let current = self.snapshot().instance(key).ok_or_else(|| Error::no_instance(key))?;
        if let Some(given) = incarnation {
            check_newer(key, given, Some(current.value.incarnation))?;
        }
        let of_service = self.snapshot().services.get(&key.service).map(|state| state.service.value.drain_time);
        let time = time.or(of_service).unwrap_or(DEFAULT_DRAIN_TIME);
        let mut plan = Plan { instances: vec![key.clone()], ..Plan::default() };
        plan.expect(Key::Instance(key.clone()), current.revision);
        if current.value.drain.is_none() {
            let drain = Some(Drain { since: now, time });
            plan.change(&current.value, Instance { drain, ..Instance::clone(&current.value) }, now);
        }
        Ok(plan)
    }

    /// Removes as many of the lease's instances as one write may, and the lease with the last of them. Only its owner
    /// does, and only if it still is.
    pub(super) fn plan_expire(&self, id: LeaseId, now: UnixMillis, limits: &Limits) -> Plan {
        let Some(state) = self.own_lease(id) else { return Plan::default() };
        if state.members.is_empty() {
            let mut plan = Plan::default();
            plan.expect(Key::Lease(id), state.lease.revision);
            plan.delete(Key::Lease(id));
            return plan;
        }
        self.remove(state.members.iter().take(limits.instances_per_call), RemovalCause::Expired, now)
    }

    pub(super) fn plan_mend_lease(&self, id: LeaseId) -> Plan {
        let mut plan = Plan::default();
        if let Some(state) = self.lease(id).filter(|state| state.lease.revision == ABSENT) {
            plan.expect(Key::Lease(id), ABSENT);
            plan.put(Key::Lease(id), Record::Lease(*state.lease.value));
        }
        plan
    }

    pub(super) fn plan_finish_drain(&self, key: &InstanceKey, incarnation: Incarnation, now: UnixMillis) -> Plan {
        match self.snapshot().instance(key) {
            Some(current) if current.value.drain.is_some() && current.value.incarnation == incarnation => {
                self.remove([key], RemovalCause::Drained, now)
            }
            _ => Plan::default(),
        }
    }

    pub(super) fn plan_forget(&self, keys: &[InstanceKey]) -> Plan {
        let mut plan = Plan::default();
        for key in keys {
            let Some(gone) = self.tombstone(key) else { continue };
            plan.expect(Key::Instance(key.clone()), gone.revision);
            plan.delete(Key::Instance(key.clone()));
        }
        plan
    }

    fn remove<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a InstanceKey>,
        cause: RemovalCause,
        now: UnixMillis,
    ) -> Plan {
        let (mut plan, mut left) = (Plan::default(), Vec::new());
        for key in keys {
            let Some(current) = self.snapshot().instance(key) else { continue };
            plan.expect(Key::Instance(key.clone()), current.revision);
            plan.put(Key::Instance(key.clone()), tombstone(&current.value, cause, now));
            left.push((key.clone(), current.value.lease));
        }
        // No lease is kept for its own sake: the id of none is zero.
        self.delete_leases_left(&left, LeaseId(0), &mut plan);
        plan
    }
}
