//! Leaving: deregistered, drained, expired, and at last forgotten.

use std::time::Duration;

use super::{Plan, check_newer, tombstone};
use crate::{
    model::{
        CheckKind, CheckState, CheckStatus, Drain, Incarnation, Instance, InstanceKey, LeaseId, Limits, RemovalCause,
        Tombstone, Transition, Turn, UnixMillis, service::DEFAULT_DRAIN_TIME,
    },
    registry::{
        command::{Error, Versioned},
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
            let gone = self.tombstone(key).ok_or_else(|| Error::no_instance(key))?;
            return Ok(plan_fence(key, gone, incarnation, now));
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
            plan.expect(Key::Lease(id), state.revision);
            plan.delete(Key::Lease(id));
            return plan;
        }
        self.remove(state.members.iter().take(limits.instances_per_call), RemovalCause::Expired, now)
    }

    pub(super) fn plan_mend_lease(&self, id: LeaseId) -> Plan {
        let mut plan = Plan::default();
        if let Some(state) = self.lease(id).filter(|state| state.revision == ABSENT) {
            plan.expect(Key::Lease(id), ABSENT);
            plan.put(Key::Lease(id), Record::Lease(state.lease));
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

/// Deregisters what has gone already. Said twice is said once: an outcome that was not heard may be asked for again. But one
/// that expired might come back by a registration that is on its way, and of a newer incarnation nothing is known here: that
/// it is not to come (or that this replica is behind) is written.
fn plan_fence(
    key: &InstanceKey,
    gone: &Versioned<Tombstone>,
    incarnation: Option<Incarnation>,
    now: UnixMillis,
) -> Plan {
    let known = gone.value.incarnation;
    let given = incarnation.unwrap_or(known);
    let mut plan = Plan::default();
    if given > known || (given == known && gone.value.cause.may_return()) {
        let turn = Transition { at: now, turn: Turn::Removed(RemovalCause::Deregistered), reason: "".into() };
        let history = gone.value.history.with(turn);
        let fence = Tombstone { incarnation: given, cause: RemovalCause::Deregistered, removed_at: now, history };
        plan.expect(Key::Instance(key.clone()), gone.revision);
        plan.put(Key::Instance(key.clone()), Record::Tombstone(fence));
    }
    plan
}
