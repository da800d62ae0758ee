//! The shell of the brake: what has become of leases → who is kept, restored or expired. The rules are `brake`'s.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    brake::{Braked, Braking, Decision, Group, Now, Release},
    command::Command,
    pace,
    task::Task,
    timers::Notice,
};
use crate::model::{CheckStatus, InstanceKey, LeaseId};

impl Task {
    /// What has become of leases.
    pub(super) fn note(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.metrics.lease_notice(notice.as_str());
            match notice {
                Notice::Overdue(lease) => self.brake.overdue(lease, &self.state),
                Notice::Returned(lease) => self.restore(lease),
                Notice::Lapsed(lease) => self.lapse(lease),
                // What was said of one that is this replica's by now is over.
                Notice::OverdueElsewhere(lease) | Notice::ReturnedElsewhere(lease)
                    if self.state.own_lease(lease).is_some() => {}
                Notice::OverdueElsewhere(lease) => self.brake.overdue(lease, &self.state),
                Notice::ReturnedElsewhere(lease) => drop(self.brake.returned(lease, &self.state)),
            }
        }
        self.show_brake();
    }

    fn lapse(&mut self, lease: LeaseId) {
        // Another replica has it since the notice was on its way.
        if self.state.own_lease(lease).is_none() {
            return;
        }
        let (observed_ms, heard_ms) = (self.clock.handled_ms(), self.leases.last_heard_ms());
        let interval = self.state.lease_ttl(lease).map(pace::longest_interval).unwrap_or_default();
        let silent = u128::from(observed_ms.saturating_sub(heard_ms)) > interval.as_millis() * 3 / 2;
        let confirms = self.trust.confirms();
        let snapshot = self.state.snapshot();
        let fails = |key: &InstanceKey| {
            let instance = snapshot.instance(key);
            instance.is_some_and(|of| of.value.checks.iter().any(|check| check.status == CheckStatus::Failing))
        };
        let now = Now { observed_ms, unix: self.clock.unix() };
        match self.brake.lapse(lease, &self.state, now, silent, |key| confirms && fails(key)) {
            Decision::Expire => self.enqueue_own(Command::Expire(lease)),
            Decision::Keep(scope) => {
                self.leases.keep_lapsed(lease);
                self.enqueue_own(Command::Lapse { lease, scope });
            }
        }
    }

    /// One that was overdue or had lapsed is heard.
    fn restore(&mut self, lease: LeaseId) {
        let kept = self.brake.returned(lease, &self.state);
        if self.state.own_lease(lease).is_none() {
            return;
        }
        if kept || self.state.members(lease).any(|instance| instance.value.lapsed.is_some()) {
            self.enqueue_own(Command::Restore(lease));
        }
    }

    /// Looks at those that are kept, every second or so.
    pub(super) fn look_at_kept(&mut self) {
        let now_ms = self.clock.handled_ms();
        for (lease, scope) in std::mem::take(&mut self.unkept) {
            self.enqueue_own(Command::Lapse { lease, scope });
        }
        let going = self.brake.tick(&self.state, now_ms);
        self.let_go(&going);
        // Whose probes are another replica's, that one believes.
        let mut believed = self.brake.believe(self.trust.believed(), now_ms);
        believed.retain(|(key, _)| self.state.snapshot().is_probed_by(key, self.state.me));
        for some in believed.chunks(self.limits.instances_per_call) {
            self.enqueue_own(Command::Believe(some.to_vec()));
        }
        self.show_brake();
    }

    /// An operator ends it; how many leases go.
    pub(super) fn release_brake(&mut self, release: &Release) -> usize {
        let going = self.brake.release(release);
        tracing::info!(leases = going.len(), ?release, "an operator ends the brake");
        self.let_go(&going);
        self.show_brake();
        going.len()
    }

    fn let_go(&mut self, leases: &[LeaseId]) {
        for lease in leases {
            // One that was heard just now has told so already.
            if self.leases.expire_kept(*lease) {
                self.enqueue_own(Command::Expire(*lease));
            }
        }
    }

    /// Shows what is being braked, if that has changed.
    pub(super) fn show_brake(&mut self) {
        let groups = self.brake.status(&self.state);
        let shown = self.braking.load();
        let (leases, overdue) = (self.state.lease_count(), self.brake.overdue_count());
        if shown.groups == groups && (shown.leases, shown.overdue) == (leases, overdue) {
            return;
        }
        let of = |groups: &[Braked]| groups.iter().map(|of| of.group.clone()).collect::<BTreeSet<Group>>();
        let (before, after) = (of(&shown.groups), of(&groups));
        for group in groups.iter().filter(|group| !before.contains(&group.group)) {
            let (scope, name) = (group.group.scope().as_str(), &group.group);
            tracing::warn!(scope, %name, overdue = group.overdue, of = group.of,
                "too many fell silent at once: those whose lease lapses are kept, as suspects");
        }
        for group in shown.groups.iter().filter(|group| !after.contains(&group.group)) {
            let (scope, name) = (group.group.scope().as_str(), &group.group);
            tracing::info!(scope, %name, "the brake has ended");
        }
        self.metrics.braking(groups.iter().map(|group| (group.group.scope().as_str(), group.leases)));
        self.braking.store(Arc::new(Braking { groups, leases, overdue, at_ms: self.clock.handled_ms() }));
    }
}
