//! Leases: renewing one is one atomic operation on its deadline. No lock shared with writers, no revision, no disk, no
//! push.
//!
//! The table is a `papaya` map: a look-up takes no lock (a `dashmap` shard's would be shared with registrations), and a
//! lease's own state is atomics behind an `Arc` that its timer holds too, so that timers look nothing up.
//!
//! A lease is told of three times (`timers::Notice`): when two heartbeats are missed (`overdue`), when its deadline has
//! passed (`lapsed`), and when it is heard again after either. Between `lapsed` and what the registry makes of it the
//! lease cannot be renewed, and its agent is told to register again. Then the registry removes it (`remove`), or keeps it
//! though it lapsed (`keep_lapsed`), or could not decide (`postpone`); in the latter two it can be renewed.
//!
//! Only the registry's task decides of a lapsed lease, and revives it; heartbeats do not touch it.
//!
//! A lease has one timer at most: in the wheel, or on its way into it (`TIMED`).
//!
//! Of several replicas each times its own leases. One that is another's (`THEIRS`) is answered here as well, has no timer
//! here, and who hears it notes it down, for its owner to be told (`take_heard`).

use std::{
    sync::Arc,
    sync::Mutex,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use convoy_client::proto::Load;
use papaya::HashMap;

use super::{digest::Digest, pace};
use crate::{
    model::{LeaseId, ReplicaId, Revision},
    prehashed::Prehashed,
};

/// The deadline of a lease that lapsed, and of which the registry has not decided: it cannot be renewed.
const LAPSED: u64 = u64::MAX;
/// The deadline of a lease that lapsed and is kept: every heartbeat is later.
const KEPT_LAPSED: u64 = 0;

/// Marks of a lease. In the normal case none but `TIMED` is set, and a heartbeat looks no further.
mod mark {
    pub const TIMED: u8 = 1;
    /// Two heartbeats are missed, or the lease lapsed and is held on: whoever hears it tells.
    pub const OVERDUE: u8 = 2;
    /// It lapsed and is kept. It has no timer.
    pub const KEPT: u8 = 4;
    /// The next answer spreads its agents over an interval.
    pub const SPREAD: u8 = 8;
    /// Removed, or set anew.
    pub const GONE: u8 = 16;
    /// Another replica's.
    pub const THEIRS: u8 = 32;
    /// Another replica's, and noted down to be told. Of an own one: another replica heard it last.
    pub const HEARD: u8 = 64;
    /// Its report is new, and the other replicas have yet to be told.
    pub const REPORTED: u8 = 128;
}

/// What an agent reported of its load.
#[derive(Debug)]
pub struct Report {
    /// When it was heard, in observed time.
    pub at_ms: u64,
    pub load: Load,
}

/// Whose a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Ours {
        /// From when it has its TTL: later than now for one that was adopted, whose agent has to find its way here.
        from_ms: u64,
        /// Its first heartbeat is answered so that agents that came together do not go on together.
        spread: bool,
    },
    Theirs(ReplicaId),
}

/// Another replica's lease that was heard here.
#[derive(Clone, Debug)]
pub struct HeardHere {
    pub lease: LeaseId,
    pub owner: ReplicaId,
    pub load: Option<Arc<Report>>,
}

#[derive(Debug)]
pub struct Entry {
    id: LeaseId,
    ttl_ms: u64,
    whose: Whose,
    deadline_ms: AtomicU64,
    /// Of what its agent said; see `digest`.
    digest: AtomicU64,
    /// What the agent reported last.
    load: ArcSwapOption<Report>,
    marks: AtomicU8,
    /// How often in a row another replica's lease was heard here, and not there.
    hearings: AtomicU8,
}

impl Entry {
    pub fn id(&self) -> LeaseId {
        self.id
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    fn begins_ms(&self) -> u64 {
        match self.whose {
            Whose::Ours { from_ms, .. } => from_ms,
            Whose::Theirs(_) => 0,
        }
    }

    /// When two heartbeats are missed, if nothing is heard before the deadline. Of leases with one TTL that fall silent at
    /// once, none lapses before all are overdue: the last was heard at most an interval after the first.
    fn overdue_at(&self, deadline_ms: u64) -> u64 {
        let interval = millis(pace::longest_interval(self.ttl()));
        let after = (interval * 2).min(self.ttl_ms.saturating_sub(interval));
        deadline_ms.saturating_sub(self.ttl_ms) + after
    }

    /// Looks at a lease whose timer is due.
    pub fn look(&self, now_ms: u64) -> Look {
        if self.marks.load(SeqCst) & mark::GONE != 0 {
            return Look::Stale;
        }
        // A heartbeat that came just after a pause, before that was taken out of time, set it too far ahead.
        let furthest = now_ms.max(self.begins_ms()) + self.ttl_ms;
        let clamp = |deadline: u64| (deadline != LAPSED && deadline > furthest).then_some(furthest);
        let deadline = match self.deadline_ms.fetch_update(SeqCst, SeqCst, clamp) {
            Ok(_) => furthest,
            Err(deadline) => deadline,
        };
        if deadline == LAPSED || deadline == KEPT_LAPSED {
            self.marks.fetch_and(!mark::TIMED, SeqCst);
            return Look::Stale;
        }
        if deadline <= now_ms {
            return self.lapse(deadline);
        }
        let overdue_at = self.overdue_at(deadline);
        if now_ms < overdue_at {
            return Look::At(overdue_at);
        }
        if self.marks.fetch_or(mark::OVERDUE, SeqCst) & mark::OVERDUE != 0 {
            return Look::At(deadline);
        }
        // A heartbeat that came between the two saw no mark. Either it is seen here, or it saw the mark and tells.
        let heard = self.deadline_ms.load(SeqCst) != deadline;
        if heard && self.marks.fetch_and(!mark::OVERDUE, SeqCst) & mark::OVERDUE != 0 {
            return Look::At(overdue_at.max(now_ms));
        }
        Look::Overdue(deadline)
    }

    fn lapse(&self, deadline: u64) -> Look {
        // Before it lapses: who revives it from then on sets its timer.
        self.marks.fetch_and(!mark::TIMED, SeqCst);
        match self.deadline_ms.compare_exchange(deadline, LAPSED, SeqCst, SeqCst) {
            Ok(_) => {
                self.marks.fetch_and(!mark::OVERDUE, SeqCst);
                Look::Lapsed
            }
            Err(renewed) if self.marks.fetch_or(mark::TIMED, SeqCst) & mark::TIMED == 0 => {
                Look::At(self.overdue_at(renewed))
            }
            Err(_) => Look::Stale,
        }
    }
}

/// What there is to a lease whose timer is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It was heard: look again then.
    At(u64),
    /// Two heartbeats are missed. Look again at its deadline.
    Overdue(u64),
    /// Its deadline has passed. It has no timer any more.
    Lapsed,
    /// It needs no timer, or has another.
    Stale,
}

/// What the agent said last, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub digest: Digest,
    /// At which revision it had that digest.
    pub revision: Revision,
}

/// A heartbeat's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed for one TTL; `spread` says that its agents are to be spread over an interval.
    Kept { ttl: Duration, spread: bool },
    /// Renewed, but what stands is not what the agent said.
    Differs,
    /// Not known here, or over.
    Unknown,
}

#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: HashMap<LeaseId, Arc<Entry>, Prehashed>,
    /// Up to which revision the digests are those of the state.
    applied: AtomicU64,
    /// When anybody was heard last.
    heard_ms: AtomicU64,
    /// Whether any load was ever reported.
    loaded: AtomicBool,
    /// Those that need a timer. Rarely touched by heartbeats: each lease is in it once at most.
    untimed: Mutex<Vec<Arc<Entry>>>,
    /// Those that were heard after they were told overdue or lapsed; each once for each telling.
    returned: Mutex<Vec<LeaseId>>,
    /// Other replicas' that were heard here; each once until it is taken.
    heard: Mutex<Vec<Arc<Entry>>>,
    /// Whether there are other replicas, and own leases with reports of which they have yet to be told.
    shared: AtomicBool,
    reported: Mutex<Vec<Arc<Entry>>>,
}

impl LeaseTable {
    /// Makes a lease, or gives it another TTL or owner. An own one holds for one TTL.
    pub fn set(&self, id: LeaseId, ttl: Duration, whose: Whose) {
        let leases = self.leases.pin();
        let before = leases.get(&id);
        let ttl_ms = millis(ttl);
        let (deadline_ms, marks) = match whose {
            Whose::Ours { from_ms, spread } => (from_ms + ttl_ms, mark::TIMED | if spread { mark::SPREAD } else { 0 }),
            Whose::Theirs(_) => (0, mark::THEIRS),
        };
        let entry = Arc::new(Entry {
            id,
            ttl_ms,
            whose,
            deadline_ms: AtomicU64::new(deadline_ms),
            digest: AtomicU64::new(before.map_or(0, |before| before.digest.load(Relaxed))),
            load: ArcSwapOption::from(before.and_then(|before| before.load.load_full())),
            marks: AtomicU8::new(marks),
            hearings: AtomicU8::new(0),
        });
        if marks & mark::TIMED != 0 {
            lock(&self.untimed).push(entry.clone());
        }
        if let Some(before) = leases.insert(id, entry) {
            let marks = before.marks.fetch_or(mark::GONE, SeqCst);
            if marks & (mark::OVERDUE | mark::KEPT) != 0 || before.deadline_ms.load(SeqCst) == LAPSED {
                lock(&self.returned).push(id);
            }
        }
    }

    pub fn remove(&self, id: LeaseId) {
        if let Some(entry) = self.leases.pin().remove(&id) {
            entry.marks.fetch_or(mark::GONE, SeqCst);
        }
    }

    /// Renews for one TTL.
    pub fn renew(&self, id: LeaseId, now_ms: u64, known: Option<Known>, load: Option<Load>) -> Renewal {
        let leases = self.leases.pin();
        let Some(entry) = leases.get(&id) else { return Renewal::Unknown };
        if entry.deadline_ms.fetch_max(now_ms + entry.ttl_ms, SeqCst) == LAPSED {
            return Renewal::Unknown;
        }
        self.heard_ms.store(now_ms, Relaxed);
        let marks = entry.marks.load(SeqCst);
        let spread = marks & mark::SPREAD != 0;
        if marks != mark::TIMED {
            self.heard(entry);
        }
        if let Some(load) = load {
            entry.load.store(Some(Arc::new(Report { at_ms: now_ms, load })));
            if !self.loaded.load(Relaxed) {
                self.loaded.store(true, Relaxed);
            }
            if self.shared.load(Relaxed) && marks & (mark::THEIRS | mark::REPORTED) == 0 {
                entry.marks.fetch_or(mark::REPORTED, SeqCst);
                lock(&self.reported).push(entry.clone());
            }
        }
        // The digests go first: one that is read after the revision is at least as new.
        if let Some(known) = known
            && self.applied.load(SeqCst) >= known.revision.0
            && entry.digest.load(SeqCst) != known.digest.0
        {
            return Renewal::Differs;
        }
        Renewal::Kept { ttl: entry.ttl(), spread }
    }

    /// One that was marked is heard.
    fn heard(&self, entry: &Arc<Entry>) {
        if entry.marks.load(SeqCst) & mark::THEIRS != 0 {
            if entry.marks.fetch_or(mark::HEARD, SeqCst) & mark::HEARD == 0 {
                lock(&self.heard).push(entry.clone());
            }
            return;
        }
        let marks = entry.marks.fetch_and(!(mark::OVERDUE | mark::KEPT | mark::SPREAD | mark::HEARD), SeqCst);
        if marks & (mark::OVERDUE | mark::KEPT) != 0 {
            lock(&self.returned).push(entry.id);
        }
        if marks & mark::KEPT != 0 {
            self.arm(entry);
        }
    }

    /// Renews an own lease that another replica has heard. Whether nobody has heard it here since it was last renewed so.
    pub fn renew_for(&self, id: LeaseId, now_ms: u64, load: Option<Load>) -> bool {
        let leases = self.leases.pin();
        let Some(entry) = leases.get(&id) else { return false };
        let only_there = entry.marks.load(SeqCst) & mark::HEARD != 0;
        if self.renew(id, now_ms, None, load) == Renewal::Unknown || entry.marks.load(SeqCst) & mark::THEIRS != 0 {
            return false;
        }
        entry.marks.fetch_or(mark::HEARD, SeqCst);
        only_there
    }

    /// Takes other replicas' leases that were heard here.
    pub fn take_heard(&self) -> Vec<HeardHere> {
        let taken = std::mem::take(&mut *lock(&self.heard));
        let still = |entry: Arc<Entry>| {
            let Whose::Theirs(owner) = entry.whose else { return None };
            let is_gone = entry.marks.fetch_and(!mark::HEARD, SeqCst) & mark::GONE != 0;
            (!is_gone).then(|| HeardHere { lease: entry.id, owner, load: entry.load.load_full() })
        };
        taken.into_iter().filter_map(still).collect()
    }

    /// Takes the own leases that have new reports, if there are others to be told.
    pub fn take_reported(&self, are_others: bool) -> Vec<(LeaseId, Arc<Report>)> {
        self.shared.store(are_others, Relaxed);
        let taken = std::mem::take(&mut *lock(&self.reported));
        let report = |entry: Arc<Entry>| {
            // The mark goes first: a report that comes now is told with the next ones.
            entry.marks.fetch_and(!mark::REPORTED, SeqCst);
            entry.load.load_full().map(|report| (entry.id, report))
        };
        taken.into_iter().filter_map(report).collect()
    }

    /// Keeps what another replica's agent reported there.
    pub fn reported(&self, id: LeaseId, at_ms: u64, load: Load) {
        if let Some(entry) = self.leases.pin().get(&id)
            && entry.marks.load(SeqCst) & mark::THEIRS != 0
        {
            entry.load.store(Some(Arc::new(Report { at_ms, load })));
            self.loaded.store(true, Relaxed);
        }
    }

    /// Counts how often in a row another replica's lease was heard here and not there; the answer has this one.
    pub fn count_hearing(&self, id: LeaseId, only_here: bool) -> u8 {
        let leases = self.leases.pin();
        let Some(entry) = leases.get(&id) else { return 0 };
        let next = if only_here { entry.hearings.load(Relaxed).saturating_add(1) } else { 0 };
        entry.hearings.store(next, Relaxed);
        next
    }

    /// Renews even a lease that has lapsed: its agent has just registered again.
    pub fn revive(&self, id: LeaseId, now_ms: u64) {
        let leases = self.leases.pin();
        let ours = |entry: &&Arc<Entry>| entry.marks.load(SeqCst) & mark::THEIRS == 0;
        let Some(entry) = leases.get(&id).filter(ours) else { return };
        let before = entry.deadline_ms.swap(now_ms + entry.ttl_ms, SeqCst);
        let marks = entry.marks.fetch_and(!(mark::OVERDUE | mark::KEPT), SeqCst);
        if before == LAPSED || marks & (mark::OVERDUE | mark::KEPT) != 0 {
            lock(&self.returned).push(id);
        }
        self.arm(entry);
    }

    /// When a heartbeat of any lease came last.
    pub fn last_heard_ms(&self) -> u64 {
        self.heard_ms.load(Relaxed)
    }

    /// Has it told when a lease is next heard: its instances were kept before a restart.
    pub fn tell_when_heard(&self, id: LeaseId) {
        if let Some(entry) = self.leases.pin().get(&id) {
            entry.marks.fetch_or(mark::OVERDUE, SeqCst);
        }
    }

    /// Lets a lapsed lease hold until then: what its lapse leads to could not be written.
    pub fn postpone(&self, id: LeaseId, deadline_ms: u64) {
        self.hold_lapsed(id, deadline_ms, mark::OVERDUE);
    }

    /// Keeps a lapsed lease, without a deadline: until it is heard, or `expire_kept`. A lease that is not lapsed stays
    /// as it is.
    pub fn keep_lapsed(&self, id: LeaseId) {
        self.hold_lapsed(id, KEPT_LAPSED, mark::KEPT);
    }

    fn hold_lapsed(&self, id: LeaseId, deadline_ms: u64, mark: u8) {
        let leases = self.leases.pin();
        let Some(entry) = leases.get(&id) else { return };
        if entry.deadline_ms.load(SeqCst) != LAPSED {
            return;
        }
        // The mark goes first: who renews it then sees it.
        entry.marks.fetch_or(mark, SeqCst);
        entry.deadline_ms.store(deadline_ms, SeqCst);
        if mark != mark::KEPT {
            self.arm(entry);
        }
    }

    /// Ends the keeping of a lapsed lease: true if it was not heard meanwhile, and can now not be renewed any more.
    pub fn expire_kept(&self, id: LeaseId) -> bool {
        let leases = self.leases.pin();
        let Some(entry) = leases.get(&id) else { return false };
        let expired = entry.deadline_ms.compare_exchange(KEPT_LAPSED, LAPSED, SeqCst, SeqCst).is_ok();
        if expired {
            entry.marks.fetch_and(!mark::KEPT, SeqCst);
        }
        expired
    }

    /// Whether the lease lapsed, and nothing has been made of it so far.
    pub fn is_lapsed(&self, id: LeaseId) -> bool {
        self.leases.pin().get(&id).is_some_and(|entry| entry.deadline_ms.load(SeqCst) == LAPSED)
    }

    fn arm(&self, entry: &Arc<Entry>) {
        if entry.marks.fetch_or(mark::TIMED, SeqCst) & mark::TIMED == 0 {
            lock(&self.untimed).push(entry.clone());
        }
    }

    /// Takes those that need a timer. A due one is looked at by `Entry::look`.
    pub fn take_untimed(&self) -> Vec<Arc<Entry>> {
        std::mem::take(&mut lock(&self.untimed))
    }

    /// Takes those that were heard after they were told overdue or lapsed.
    pub fn take_returned(&self) -> Vec<LeaseId> {
        std::mem::take(&mut lock(&self.returned))
    }

    /// What the agent said, as the state has it.
    pub fn set_digest(&self, id: LeaseId, digest: Digest) {
        if let Some(entry) = self.leases.pin().get(&id) {
            entry.digest.store(digest.0, SeqCst);
        }
    }

    /// The digests are those of this revision.
    pub fn set_applied(&self, revision: Revision) {
        self.applied.store(revision.0, SeqCst);
    }

    pub fn load(&self, id: LeaseId) -> Option<Load> {
        self.report(id).map(|report| report.load.clone())
    }

    pub fn report(&self, id: LeaseId) -> Option<Arc<Report>> {
        self.leases.pin().get(&id)?.load.load_full()
    }

    /// Whether any load was ever reported.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

/// However long a limit lets a lease be, a deadline stays a number, and below `LAPSED`.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests;
