//! When to probe what, and what the results mean.
//!
//! Pure: targets and results in, probes and findings out; time is a number of milliseconds, randomness comes from a seed.
//! A target is one check of one instance.
//!
//! - **Spread.** A target has a fixed place in its interval: the n-th that comes gets the fractional part of n times the
//!   golden ratio, which divides the interval evenly however many there are. It is probed at that place of every
//!   interval, late by its jitter. What was late is not made up for.
//! - **First.** A target that nothing is known of is probed at once, and, while that stays so, after one second, two, four
//!   and so on up to the interval. One whose status was stored goes on from it, at its place.
//! - **Thresholds.** A status changes when so many of the last so many results say so, counted since it last changed.
//! - **Bounds.** At most `concurrency` probes are under way. Those that are due longest go first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::model::{Check, CheckKind, CheckStatus, Incarnation, InstanceId, InstanceKey, ServiceKey, Threshold};

const FIRST_RETRY_MS: u64 = 1_000;
/// The fractional part of the golden ratio, in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    pub instance: InstanceId,
    pub check: Arc<str>,
}

/// One check of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub instance: InstanceKey,
    pub incarnation: Incarnation,
    pub check: Arc<Check>,
    pub address: SocketAddr,
    /// Whether the port speaks HTTP/2 and nothing else.
    pub http2: bool,
}

/// What is known of a target when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub status: CheckStatus,
    /// For how long that has been its status.
    pub lasts_ms: u64,
    /// For how long this incarnation has been registered.
    pub registered_ms: u64,
}

/// Names a probe under way; of a target that has gone or changed meanwhile, nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    index: usize,
    generation: u64,
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Good,
    /// It answers, and says that it is not well.
    Degraded,
    Bad,
}

/// What follows from a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The status is another.
    To(CheckStatus),
    /// A liveness check has failed for so long that its instance is to be removed. It is said again with every failure.
    Evict,
}

/// How many targets are probed whose status is known, and how many of these answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub targets: usize,
    pub passing: usize,
}

impl Counts {
    fn count(&mut self, status: CheckStatus, comes: bool) {
        let step = |count: &mut usize| *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        if status != CheckStatus::Pending {
            step(&mut self.targets);
        }
        if answers(status) {
            step(&mut self.passing);
        }
    }
}

fn answers(status: CheckStatus) -> bool {
    matches!(status, CheckStatus::Passing | CheckStatus::Degraded)
}

/// The last results since the status changed, the newest in the lowest bit.
#[derive(Clone, Copy, Debug, Default)]
struct Results {
    count: u32,
    bad: u32,
    degraded: u32,
}

impl Results {
    fn push(&mut self, finding: Finding) {
        self.count = (self.count + 1).min(u32::BITS);
        self.bad = (self.bad << 1) | u32::from(finding == Finding::Bad);
        self.degraded = (self.degraded << 1) | u32::from(finding == Finding::Degraded);
    }

    fn reaches(self, threshold: Threshold, which: impl Fn(Self) -> u32) -> bool {
        let seen = self.count.min(threshold.of.into());
        let window = if seen == u32::BITS { u32::MAX } else { (1 << seen) - 1 };
        (which(self) & window).count_ones() >= threshold.count.into()
    }
}

#[derive(Debug)]
struct Slot {
    target: Arc<Target>,
    generation: u64,
    status: CheckStatus,
    /// In the schedule's time; it may lie before its beginning.
    since_ms: i64,
    grace_until_ms: i64,
    results: Results,
    /// Its place in the interval, as a fraction of 2^64.
    place: u64,
    /// The moment, before jitter, of its last regular probe.
    turn_ms: u64,
    attempts: u32,
    under_way: bool,
}

impl Slot {
    /// When an instance that goes on failing is to be removed.
    fn evict_at_ms(&self) -> Option<i64> {
        let check = &self.target.check;
        let after = check.deregister_after.filter(|_| check.kind == CheckKind::Liveness)?;
        (self.status == CheckStatus::Failing).then(|| self.since_ms.saturating_add(millis(after) as i64))
    }

    /// Whoever is to be removed is asked once more, just then.
    fn or_eviction(&self, at_ms: u64, now_ms: u64) -> u64 {
        let evict_at = self.evict_at_ms().and_then(|at| u64::try_from(at).ok()).filter(|at| *at > now_ms);
        evict_at.map_or(at_ms, |evict_at| evict_at.min(at_ms))
    }

    /// The status that the results lead to, if it is another.
    fn judge(&mut self, finding: Finding, now_ms: u64) -> Option<CheckStatus> {
        let forgiven = self.status == CheckStatus::Pending && (now_ms as i64) < self.grace_until_ms;
        if finding == Finding::Bad && forgiven {
            return None;
        }
        self.results.push(finding);
        let (check, results) = (&self.target.check, self.results);
        let fails = results.reaches(check.unhealthy, |results| results.bad);
        let next = match (self.status, finding) {
            (CheckStatus::Failing, Finding::Bad) => return None,
            (_, Finding::Bad) if fails => CheckStatus::Failing,
            (_, Finding::Bad) => return None,
            (CheckStatus::Passing, Finding::Degraded) if results.reaches(check.healthy, |results| results.degraded) => {
                CheckStatus::Degraded
            }
            (CheckStatus::Degraded, Finding::Good)
                if results.reaches(check.healthy, |results| !results.bad & !results.degraded) =>
            {
                CheckStatus::Passing
            }
            (CheckStatus::Pending | CheckStatus::Failing, Finding::Good | Finding::Degraded)
                if results.reaches(check.healthy, |results| !results.bad) =>
            {
                if finding == Finding::Good {
                    CheckStatus::Passing
                } else {
                    CheckStatus::Degraded
                }
            }
            _ => return None,
        };
        self.results = Results::default();
        Some(next)
    }
}

#[derive(Debug)]
pub struct Schedule {
    concurrency: usize,
    random: SmallRng,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    services: HashMap<ServiceKey, BTreeMap<TargetKey, usize>>,
    /// The next probe of each target that has none under way; entries of other generations are left over.
    due: BinaryHeap<Reverse<(u64, usize, u64)>>,
    /// Probes whose result is owed, also those of targets that have changed or gone meanwhile: each holds a socket.
    under_way: HashSet<Ticket>,
    generations: u64,
    /// How many places have been given.
    places: u64,
    counts: Counts,
}

impl Schedule {
    pub fn new(seed: u64, concurrency: usize) -> Self {
        Self {
            concurrency,
            random: SmallRng::seed_from_u64(seed),
            slots: Vec::new(),
            free: Vec::new(),
            services: HashMap::new(),
            due: BinaryHeap::new(),
            under_way: HashSet::new(),
            generations: 0,
            places: seed,
            counts: Counts::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Over all targets; what the brake asks.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is held to be the status of a target.
    pub fn status(&self, service: &ServiceKey, key: &TargetKey) -> Option<CheckStatus> {
        let index = *self.services.get(service)?.get(key)?;
        self.slots[index].as_ref().map(|slot| slot.status)
    }

    /// Those that fail.
    pub fn failing(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.slots.iter().flatten().filter(|slot| slot.status == CheckStatus::Failing).map(|slot| &slot.target)
    }

    pub fn targets_of(&self, service: &ServiceKey) -> impl Iterator<Item = &TargetKey> {
        self.services.get(service).into_iter().flat_map(BTreeMap::keys)
    }

    /// A target as it is now. One that is as it was stays undisturbed; one that changed keeps its status and its place, but a
    /// new incarnation is a new target.
    pub fn set(&mut self, target: Target, known: Known, now_ms: u64) {
        let key = TargetKey { instance: target.instance.id.clone(), check: target.check.name.clone() };
        let of_service = self.services.entry(target.instance.service.clone()).or_default();
        self.generations += 1;
        let generation = self.generations;
        if let Some(&index) = of_service.get(&key)
            && let Some(slot) = self.slots[index].as_mut()
        {
            if *slot.target == target {
                return;
            }
            if slot.target.incarnation == target.incarnation {
                slot.under_way = false;
                slot.generation = generation;
                slot.target = Arc::new(target);
                slot.results = Results::default();
                slot.attempts = 0;
                // What is asked now is another question: it is asked soon.
                let at = now_ms + if slot.status == CheckStatus::Pending { 0 } else { FIRST_RETRY_MS };
                self.due.push(Reverse((at, index, generation)));
                return;
            }
            self.remove(&target.instance.service, &key);
            return self.set(target, known, now_ms);
        }
        self.places = self.places.wrapping_add(1);
        let before = |ms: u64| now_ms as i64 - i64::try_from(ms).unwrap_or(i64::MAX / 4);
        let mut slot = Slot {
            generation,
            status: known.status,
            since_ms: before(known.lasts_ms),
            grace_until_ms: before(known.registered_ms).saturating_add(millis(target.check.grace) as i64),
            results: Results::default(),
            place: self.places.wrapping_mul(GOLDEN),
            turn_ms: 0,
            attempts: 0,
            under_way: false,
            target: Arc::new(target),
        };
        self.counts.count(slot.status, true);
        let mut first = now_ms;
        if slot.status != CheckStatus::Pending {
            slot.turn_ms = next_place(&slot, now_ms);
            first = slot.or_eviction(slot.turn_ms, now_ms);
        }
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        of_service.insert(key, index);
        self.due.push(Reverse((first, index, generation)));
    }

    pub fn remove(&mut self, service: &ServiceKey, key: &TargetKey) {
        let Some(of_service) = self.services.get_mut(service) else { return };
        let Some(index) = of_service.remove(key) else { return };
        if of_service.is_empty() {
            self.services.remove(service);
        }
        if let Some(slot) = self.slots[index].take() {
            self.counts.count(slot.status, false);
            self.free.push(index);
        }
    }

    /// When the next probe is due; none while as many are under way as may be, or there is no target.
    pub fn next_ms(&mut self) -> Option<u64> {
        while let Some(Reverse((at, index, generation))) = self.due.peek() {
            if self.slots[*index].as_ref().is_some_and(|slot| slot.generation == *generation) {
                return (self.under_way.len() < self.concurrency).then_some(*at);
            }
            self.due.pop();
        }
        None
    }

    /// The next probe to make now. Its result is owed to `done`.
    pub fn take_due(&mut self, now_ms: u64) -> Option<(Ticket, Arc<Target>)> {
        self.next_ms().filter(|at| *at <= now_ms)?;
        let Reverse((_, index, generation)) = self.due.pop()?;
        let slot = self.slots[index].as_mut()?;
        slot.under_way = true;
        let ticket = Ticket { index, generation };
        self.under_way.insert(ticket);
        Some((ticket, slot.target.clone()))
    }

    /// No result: the probe says nothing of its target, which is probed again in its turn.
    pub fn put_off(&mut self, ticket: Ticket, now_ms: u64) {
        if !self.under_way.remove(&ticket) {
            return;
        }
        let slot = self.slots.get_mut(ticket.index).and_then(Option::as_mut);
        if let Some(slot) = slot.filter(|slot| slot.generation == ticket.generation) {
            slot.under_way = false;
            let at = next_after(slot, now_ms, &mut self.random);
            self.due.push(Reverse((at, ticket.index, ticket.generation)));
        }
    }

    /// A result. None of a target that is gone or has changed: its answer was to another question.
    pub fn done(&mut self, ticket: Ticket, finding: Finding, now_ms: u64) -> Option<(Arc<Target>, Option<Turn>)> {
        if !self.under_way.remove(&ticket) {
            return None;
        }
        let slot = self.slots.get_mut(ticket.index)?.as_mut().filter(|slot| slot.generation == ticket.generation)?;
        slot.under_way = false;
        let mut turn = None;
        if let Some(status) = slot.judge(finding, now_ms) {
            self.counts.count(slot.status, false);
            self.counts.count(status, true);
            slot.status = status;
            slot.since_ms = now_ms as i64;
            turn = Some(Turn::To(status));
        } else if finding == Finding::Bad && slot.evict_at_ms().is_some_and(|at| at <= now_ms as i64) {
            turn = Some(Turn::Evict);
        }
        let at = next_after(slot, now_ms, &mut self.random);
        self.due.push(Reverse((at, ticket.index, ticket.generation)));
        Some((slot.target.clone(), turn))
    }
}

/// When a target that has just been probed is probed again.
fn next_after(slot: &mut Slot, now_ms: u64, random: &mut SmallRng) -> u64 {
    let interval = millis(slot.target.check.interval);
    if slot.status == CheckStatus::Pending {
        slot.attempts += 1;
        let pause = FIRST_RETRY_MS << (slot.attempts - 1).min(20);
        if pause < interval {
            return now_ms + pause;
        }
    }
    let most = interval * u64::from(slot.target.check.jitter_percent) / 100;
    // One probe an interval, however late the last one came; those missed are not made up for.
    slot.turn_ms = next_place(slot, now_ms.max(slot.turn_ms + 1));
    let jitter = if most == 0 { 0 } else { random.random_range(0..=most) };
    slot.or_eviction(slot.turn_ms + jitter, now_ms)
}

/// The target's place in the interval that holds `soonest`, or in the next.
fn next_place(slot: &Slot, soonest_ms: u64) -> u64 {
    let interval = millis(slot.target.check.interval).max(1);
    let place = ((u128::from(slot.place) * u128::from(interval)) >> 64) as u64;
    place + soonest_ms.saturating_sub(place).div_ceil(interval) * interval
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests;
