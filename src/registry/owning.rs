//! Which leases this replica times: those that it wrote, and those of replicas that are gone, shared out among those that
//! are here. What others have to know of its own is shown for them (`peers` tells it).

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{command::Command, lease::Whose, pace, state::LeaseSet, task::Task};
use crate::{model::LeaseId, storage::Health};

/// How long a replica may be gone before its leases are adopted: it may only have lost its key, and come back.
const ORPHANED_FOR: Duration = Duration::from_secs(2);
/// How much longer than its TTL an adopted lease holds: its agent has to find another replica.
const FAILOVER_MS: u64 = 10_000;
/// How many leases are adopted in one look; the next is a second later.
const ADOPTED_AT_ONCE: usize = 10_000;
/// How often others are told at most who is overdue; and how many so often. More than that every ten times as long.
const SHOW_OVERDUE: Duration = Duration::from_millis(100);
const OVERDUE_OFTEN: usize = 10_000;

impl Task {
    /// A lease was written.
    pub(super) fn own_or_not(&mut self, set: &LeaseSet, now_ms: u64) {
        let (ttl, me) = (set.lease.ttl, self.state.me);
        if set.lease.owner != me {
            self.leases.set(set.id, ttl, Whose::Theirs(set.lease.owner));
            if set.was != Some(set.lease.owner) {
                // Its new owner says whether it is overdue.
                self.brake.returned(set.id, &self.state);
                if !self.state.snapshot().replicas.contains_key(&set.lease.owner) {
                    self.look_for_orphans();
                }
            }
            return;
        }
        let adopted = set.was.is_some_and(|was| was != me);
        let from_ms = if adopted { now_ms + FAILOVER_MS } else { now_ms };
        self.leases.set(set.id, ttl, Whose::Ours { from_ms, spread: now_ms < pace::YOUNG_MS });
        if adopted {
            self.brake.returned(set.id, &self.state);
            if self.state.members(set.id).any(|instance| instance.value.lapsed.is_some()) {
                self.take_over_kept(set.id);
            }
        }
    }

    /// Who was kept before is overdue from the start: no timer tells of it again.
    pub(super) fn take_over_kept(&mut self, lease: LeaseId) {
        if self.state.own_lease(lease).is_some() {
            self.leases.tell_when_heard(lease);
            self.brake.overdue(lease, &self.state);
        }
    }

    pub(super) fn look_for_orphans(&mut self) {
        self.orphans_at = Some(Instant::now() + ORPHANED_FOR);
    }

    pub(super) fn adopt_orphans(&mut self) {
        let away = *self.storage.health().borrow() != Health::Live;
        if away || self.orphans_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let orphans = self.state.orphans();
        if orphans.is_empty() {
            self.orphans_at = None;
            return;
        }
        tracing::info!(leases = orphans.len(), "the replica that had them is gone: adopting its leases");
        for some in orphans[..orphans.len().min(ADOPTED_AT_ONCE)].chunks(self.limits.instances_per_call) {
            self.enqueue_own(Command::Adopt(some.to_vec()));
        }
    }

    /// Shows who is overdue here, for the other replicas' brakes.
    pub(super) fn show_overdue(&mut self) {
        let (shown, at) = self.overdue_shown;
        let (changes, now) = (self.brake.changes(), Instant::now());
        let often = if self.overdue.load().len() <= OVERDUE_OFTEN { SHOW_OVERDUE } else { SHOW_OVERDUE * 10 };
        if shown == changes || now < at + often || self.state.snapshot().replicas.is_empty() {
            return;
        }
        self.overdue_shown = (changes, now);
        let own = self.brake.overdue_leases().filter(|lease| self.state.own_lease(*lease).is_some());
        self.overdue.store(Arc::new(own.collect()));
    }
}
