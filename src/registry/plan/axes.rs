//! What others than its agent say of an instance: probes, operators, its load, the brake. Each says it of one incarnation;
//! of another, or of an instance that is gone, it means nothing and changes nothing.

use std::sync::Arc;

use super::Plan;
use crate::{
    model::{
        Brake, BrakeScope, CheckState, CheckStatus, Incarnation, Instance, InstanceId, InstanceKey, LeaseId, Limits,
        Override, OverrideHealth, ServiceKey, Share, UnixMillis,
    },
    registry::{
        command::{CheckReport, Error, Versioned},
        state::State,
    },
    storage::Key,
};

impl State {
    pub(super) fn plan_override(
        &self,
        key: &InstanceKey,
        say: Option<&(OverrideHealth, Arc<str>)>,
        now: UnixMillis,
    ) -> Result<Plan, Error> {
        let current = self.snapshot().instance(key).ok_or_else(|| Error::no_instance(key))?;
        let mut plan = Plan { instances: vec![key.clone()], ..Plan::default() };
        let said = current.value.operator.as_ref().map(|said| (said.health, &said.reason));
        if said != say.map(|(health, reason)| (*health, reason)) {
            let of = |(health, reason): &(OverrideHealth, Arc<str>)| Override {
                health: *health,
                reason: reason.clone(),
                since: now,
            };
            let operator = say.map(of).map(Arc::new);
            plan.alter(current, |instance| Instance { operator, ..instance }, now);
        }
        Ok(plan)
    }

    pub(super) fn plan_checks(&self, reports: &[CheckReport], now: UnixMillis) -> Plan {
        let mut plan = Plan::default();
        for report in reports {
            let Some(current) = self.of_incarnation(&report.key, report.incarnation) else { continue };
            // Another replica probes it by now, and says it.
            if !self.snapshot().is_probed_by(&report.key, self.me) {
                continue;
            }
            let checks = with_check(&current.value.checks, report.gone, &report.state);
            let fails = report.state.status == CheckStatus::Failing && !report.gone;
            let disbelieved = match current.value.disbelieved {
                since if fails && report.braked => since.or(Some(now)),
                // Another one that fails is believed no sooner than its own prober says so.
                since if !fails && checks.iter().any(|check| check.status == CheckStatus::Failing) => since,
                _ => None,
            };
            plan.alter(current, |instance| Instance { checks, disbelieved, ..instance }, now);
        }
        plan
    }

    /// One batch of a service's weight steps. A crash may lose the last second of them: they come again.
    pub(super) fn plan_shares(
        &self,
        service: &ServiceKey,
        shares: &[(InstanceId, Incarnation, Share)],
        now: UnixMillis,
    ) -> Plan {
        let mut plan = Plan::default();
        plan.transaction.lazy = true;
        for (id, incarnation, share) in shares {
            let key = InstanceKey { service: service.clone(), id: id.clone() };
            let Some(current) = self.of_incarnation(&key, *incarnation) else { continue };
            plan.alter(current, |instance| Instance { share: *share, ..instance }, now);
        }
        plan
    }

    /// What fails counts from now on.
    pub(super) fn plan_believe(&self, instances: &[(InstanceKey, Incarnation)], now: UnixMillis) -> Plan {
        let mut plan = Plan::default();
        for (key, incarnation) in instances {
            let Some(current) = self.of_incarnation(key, *incarnation) else { continue };
            plan.alter(current, |instance| Instance { disbelieved: None, ..instance }, now);
        }
        plan
    }

    /// Keeps those whose lease lapsed; as many as one write may.
    pub(super) fn plan_lapse(&self, id: LeaseId, scope: BrakeScope, now: UnixMillis, limits: &Limits) -> Plan {
        let lapse = |instance| Instance { lapsed: Some(Brake { scope, since: now }), ..instance };
        self.alter_members(id, |instance| instance.lapsed.is_none(), lapse, now, limits)
    }

    /// The agent is heard again; as many of its instances as one write may.
    pub(super) fn plan_restore(&self, id: LeaseId, now: UnixMillis, limits: &Limits) -> Plan {
        let restore = |instance| Instance { lapsed: None, ..instance };
        self.alter_members(id, |instance| instance.lapsed.is_some(), restore, now, limits)
    }

    fn alter_members(
        &self,
        id: LeaseId,
        concerns: impl Fn(&Instance) -> bool,
        change: impl Fn(Instance) -> Instance,
        now: UnixMillis,
        limits: &Limits,
    ) -> Plan {
        let mut plan = Plan::default();
        let Some(state) = self.own_lease(id) else { return plan };
        plan.expect(Key::Lease(id), state.revision);
        let members = state.members.iter().filter_map(|key| self.snapshot().instance(key));
        for current in members.filter(|current| concerns(&current.value)).take(limits.instances_per_call) {
            plan.alter(current, &change, now);
        }
        plan
    }

    fn of_incarnation(&self, key: &InstanceKey, incarnation: Incarnation) -> Option<&Versioned<Instance>> {
        self.snapshot().instance(key).filter(|current| current.value.incarnation == incarnation)
    }
}

impl Plan {
    /// Changes an instance as it stands. One that the plan changes already is left to the next.
    fn alter(&mut self, current: &Versioned<Instance>, change: impl FnOnce(Instance) -> Instance, now: UnixMillis) {
        let key = Key::Instance(current.value.key.clone());
        if self.transaction.changes.iter().any(|planned| planned.key == key) {
            return;
        }
        self.expect(key, current.revision);
        self.change(&current.value, change(Instance::clone(&current.value)), now);
    }
}

/// The checks' states with one said anew, by name. Since when is when its status changed.
fn with_check(checks: &Arc<[CheckState]>, gone: bool, said: &CheckState) -> Arc<[CheckState]> {
    let known = checks.iter().find(|check| check.name == said.name);
    let since = known.filter(|known| known.status == said.status).map_or(said.since, |known| known.since);
    let said = (!gone).then(|| CheckState { since, ..said.clone() });
    let mut next: Vec<CheckState> =
        checks.iter().filter(|check| known.is_none_or(|known| known.name != check.name)).cloned().chain(said).collect();
    next.sort_by(|a, b| a.name.cmp(&b.name));
    if *next == **checks { checks.clone() } else { next.into() }
}
