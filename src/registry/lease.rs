//! Leases: renewing one stores one atomic deadline. No lock shared with writers, no revision, no disk, no push.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use convoy_client::proto::Load;
use dashmap::DashMap;

use crate::model::LeaseId;

/// Heartbeats are never further apart than this, so that a server can pace its agents.
const LONGEST_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// The deadline of a lease whose expiry is under way: it cannot be renewed any more.
const EXPIRING: u64 = u64::MAX;

/// When the next heartbeat is due: three fit into a TTL.
pub fn heartbeat_interval(ttl: Duration) -> Duration {
    // Whole milliseconds, which people can read.
    Duration::from_millis(millis(ttl / 3)).min(LONGEST_HEARTBEAT_INTERVAL)
}

#[derive(Debug)]
struct Entry {
    ttl: Duration,
    deadline_ms: AtomicU64,
    /// What the agent reported last.
    load: ArcSwapOption<Load>,
}

/// A lease whose time to look at has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// It was renewed: look again then.
    At(u64),
    /// It is over, and cannot be renewed any more.
    Expired,
    /// Not the timer of this lease any more.
    Stale,
}

/// Points at one setting of a lease; stale when the lease is gone or was set anew.
#[derive(Clone, Debug)]
pub struct LeaseTimer {
    pub id: LeaseId,
    entry: Arc<Entry>,
}

#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: DashMap<LeaseId, Arc<Entry>>,
}

impl LeaseTable {
    /// Makes a lease, or gives it another TTL; it holds for one TTL from now. Answers with the deadline.
    pub fn set(&self, id: LeaseId, ttl: Duration, now_ms: u64) -> (u64, LeaseTimer) {
        let deadline = now_ms + millis(ttl);
        let load = self.leases.get(&id).and_then(|entry| entry.load.load_full());
        let entry = Arc::new(Entry { ttl, deadline_ms: AtomicU64::new(deadline), load: ArcSwapOption::from(load) });
        self.leases.insert(id, entry.clone());
        (deadline, LeaseTimer { id, entry })
    }

    pub fn remove(&self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Renews for one TTL, and answers with it; none if the lease is not known or over.
    pub fn renew(&self, id: LeaseId, now_ms: u64, load: Option<Load>) -> Option<Duration> {
        let entry = self.leases.get(&id)?;
        let deadline = now_ms + millis(entry.ttl);
        let renew = |present: u64| (present != EXPIRING).then_some(deadline.max(present));
        entry.deadline_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, renew).ok()?;
        if let Some(load) = load {
            entry.load.store(Some(Arc::new(load)));
        }
        Some(entry.ttl)
    }

    /// Renews even a lease whose expiry is under way: its agent has just registered again.
    pub fn revive(&self, id: LeaseId, now_ms: u64) {
        if let Some(entry) = self.leases.get(&id) {
            entry.deadline_ms.store(now_ms + millis(entry.ttl), Ordering::Relaxed);
        }
    }

    /// Lets a lease hold until then, whose expiry could not be carried out.
    pub fn postpone(&self, id: LeaseId, deadline_ms: u64) {
        if let Some(entry) = self.leases.get(&id) {
            entry.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        }
    }

    /// Whether the lease's expiry is still to be carried out.
    pub fn is_expiring(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(|entry| entry.deadline_ms.load(Ordering::Relaxed) == EXPIRING)
    }

    /// A timer of a lease that holds: for one that was revived, or whose expiry could not be written.
    pub fn timer(&self, id: LeaseId) -> Option<(u64, LeaseTimer)> {
        let entry = self.leases.get(&id)?.clone();
        Some((entry.deadline_ms.load(Ordering::Relaxed), LeaseTimer { id, entry }))
    }

    /// Looks at a lease whose timer is due.
    pub fn look(&self, timer: &LeaseTimer, now_ms: u64) -> Due {
        let current = self.leases.get(&timer.id).is_some_and(|entry| Arc::ptr_eq(&entry, &timer.entry));
        if !current {
            return Due::Stale;
        }
        // A heartbeat that came just after a pause, before that was taken out of time, set it too far ahead.
        let furthest = now_ms + millis(timer.entry.ttl);
        let look = |deadline: u64| match deadline {
            EXPIRING => None,
            deadline if deadline <= now_ms => Some(EXPIRING),
            deadline => (deadline > furthest).then_some(furthest),
        };
        match timer.entry.deadline_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, look) {
            Ok(deadline) if deadline <= now_ms => Due::Expired,
            Ok(_) => Due::At(furthest),
            Err(EXPIRING) => Due::Stale,
            Err(deadline) => Due::At(deadline),
        }
    }

    pub fn load(&self, id: LeaseId) -> Option<Load> {
        self.leases.get(&id)?.load.load_full().map(|load| Load::clone(&load))
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

/// However long a limit lets a lease be, a deadline stays a number, and below `EXPIRING`.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const ID: LeaseId = LeaseId(7);

    #[test]
    fn a_renewed_lease_is_looked_at_later() {
        let table = LeaseTable::default();
        let (deadline, timer) = table.set(ID, TTL, 0);
        assert_eq!(deadline, 30_000);
        assert_eq!(table.renew(ID, 10_000, None), Some(TTL));
        assert_eq!(table.look(&timer, 30_000), Due::At(40_000));
        assert_eq!(table.look(&timer, 40_000), Due::Expired);
    }

    #[test]
    fn a_heartbeat_after_the_end_is_told_so_and_a_registration_revives() {
        let table = LeaseTable::default();
        let (_, timer) = table.set(ID, TTL, 0);
        assert_eq!(table.look(&timer, 30_000), Due::Expired);
        assert_eq!(table.renew(ID, 30_001, None), None);
        assert!(table.is_expiring(ID));
        table.revive(ID, 30_002);
        assert!(!table.is_expiring(ID));
        assert_eq!(table.renew(ID, 30_003, None), Some(TTL));
    }

    #[test]
    fn the_timer_of_an_earlier_setting_is_stale() {
        let table = LeaseTable::default();
        let (_, timer) = table.set(ID, TTL, 0);
        let (deadline, _) = table.set(ID, Duration::from_secs(1), 5_000);
        assert_eq!(deadline, 6_000);
        assert_eq!(table.look(&timer, 60_000), Due::Stale);
        table.remove(ID);
        assert_eq!(table.renew(ID, 0, None), None);
    }

    #[test]
    fn a_deadline_is_never_further_away_than_a_ttl() {
        let table = LeaseTable::default();
        let (_, timer) = table.set(ID, TTL, 0);
        // As after a pause of a minute that the clock has then taken out.
        table.renew(ID, 60_000, None);
        assert_eq!(table.look(&timer, 5_000), Due::At(35_000));
        assert_eq!(table.look(&timer, 35_000), Due::Expired);
    }

    #[test]
    fn a_load_report_is_the_last_one() {
        let table = LeaseTable::default();
        table.set(ID, TTL, 0);
        table.renew(ID, 1, Some(Load { cpu: Some(0.5), ..Load::default() }));
        table.renew(ID, 2, None);
        assert_eq!(table.load(ID).and_then(|load| load.cpu), Some(0.5));
    }
}
