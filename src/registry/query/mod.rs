//! Queries: which instances match a condition, in an order, page by page, with counts by field; and search by words.
//!
//! A query reads one snapshot and waits for nobody. It finds candidates by `index`, if there is one and an equality of the
//! condition helps, and looks at everything if not. Both say the same: the condition is evaluated on every candidate.
//!
//! - Queries run on threads of their own, so many at a time; more wait, so many and no longer than their deadline. A query
//!   that takes too long, or costs too much, ends with an error that says so.
//! - The index is made when a query first could have used it (that one scans), is brought up to date by each query, and
//!   once in a while in between, and is dropped when nobody has asked for ten minutes: it holds on to a snapshot.

mod facets;
mod index;
mod order;
mod run;
mod text;

#[cfg(test)]
mod tests;

use std::{
    hash::Hasher,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use convoy_client::proto::Load;
use tokio::{sync::Semaphore, time::Instant};
use xxhash_rust::xxh3::Xxh3Default;

pub use self::{
    facets::{Facet, FacetField},
    order::{Order, Place},
};
use self::{
    index::Index,
    run::{Limits, Run},
};
use super::{Registry, command::Versioned, state::Snapshot};
use crate::model::{Instance, InstanceSelector, LeaseId, Namespace, Revision, ServiceKey, selector::Terms};

/// Queries that run, at least, and that wait for their turn.
const LEAST_RUNNING: usize = 2;
const MAX_WAITING: usize = 64;
/// Candidates that are taken out of the index; with more a scan is as good.
const MAX_CANDIDATES: u64 = 200_000;
/// How often an index is brought up to date that nobody asks, and after which time it is dropped.
const REFRESH: Duration = Duration::from_secs(5);
const FORGET: Duration = Duration::from_secs(10 * 60);

/// What somebody wants to know.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub filter: Option<InstanceSelector>,
    pub namespace: Option<Namespace>,
    /// Words, of which an instance has at least one.
    pub text: String,
    pub order: Order,
    pub page_size: usize,
    /// Where the page before ended.
    pub after: Option<Place>,
    pub facets: Vec<FacetField>,
    /// Whether all that match are to be counted.
    pub count: bool,
}

impl Question {
    /// Of what a page token goes with.
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        let (near, filter) = match &self.order {
            Order::Nearest(to) => ([to.region.as_str(), &to.zone, &to.sub_zone], &self.filter),
            _ => ([""; 3], &self.filter),
        };
        let filter = filter.as_ref().map_or("", InstanceSelector::as_str);
        let namespace = self.namespace.as_ref().map_or("", Namespace::as_str);
        for text in [filter, namespace, &self.text, self.order.as_str()].into_iter().chain(near) {
            hasher.write_u64(text.len() as u64);
            hasher.write(text.as_bytes());
        }
        hasher.finish()
    }

    fn terms(&self) -> Option<&Terms> {
        self.filter.as_ref().map(InstanceSelector::terms)
    }
}

/// A page.
#[derive(Debug)]
pub struct Found {
    /// With how well each fits the words.
    pub instances: Vec<(Versioned<Instance>, f32)>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
    /// How many match in all, if that is known.
    pub total: Option<u64>,
}

#[derive(Debug)]
pub struct Answer {
    pub found: Found,
    pub facets: Vec<Facet>,
    pub revision: Revision,
    /// Instances looked at, and what that took.
    pub examined: u64,
    pub steps: u64,
    pub by_index: bool,
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("too many queries wait already")]
    TooMany,
    #[error("the query took too long")]
    TooSlow,
    #[error("the query costs too much: it evaluates a long condition on too many instances")]
    TooExpensive,
}

/// The handle that everybody holds.
#[derive(Clone, Debug)]
pub struct Queries {
    registry: Registry,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    index: Mutex<Slot>,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Somebody is making the index.
    building: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    index: Option<Index>,
    used: Option<Instant>,
}

/// Tells a query that nobody waits for its answer any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts a query as waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Option<Self> {
        let more = |count: usize| (count < MAX_WAITING).then_some(count + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queries {
    pub fn new(registry: Registry) -> Self {
        let cores = std::thread::available_parallelism().map_or(LEAST_RUNNING, usize::from);
        let shared = Shared {
            index: Mutex::default(),
            running: Arc::new(Semaphore::new((cores / 2).max(LEAST_RUNNING))),
            waiting: AtomicUsize::new(0),
            building: AtomicBool::new(false),
        };
        Self { registry, shared: Arc::new(shared) }
    }

    /// Answers within `time`, or says why not.
    pub async fn ask(&self, question: Question, time: Duration) -> Result<Answer, Failure> {
        let started = Instant::now();
        let deadline = started + time;
        let waiting = Waiting::join(&self.shared.waiting).ok_or(Failure::TooMany)?;
        let place = tokio::time::timeout(time, self.shared.running.clone().acquire_owned()).await;
        let place = place.map_err(|_| Failure::TooSlow)?.map_err(|_| Failure::TooMany)?;
        drop(waiting);
        let cancel = CancelOnDrop(Arc::default());
        let limits = Limits { deadline, cancelled: cancel.0.clone() };
        let queries = self.clone();
        let running = tokio::task::spawn_blocking(move || {
            let _place = place;
            queries.answer(&question, &limits, started)
        });
        // A query looks at its deadline itself; what is behind schedule is not waited for.
        let patience = (deadline + time).saturating_duration_since(Instant::now());
        match tokio::time::timeout(patience, running).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failure::TooSlow),
        }
    }

    fn answer(&self, question: &Question, limits: &Limits, started: Instant) -> Result<Answer, Failure> {
        let load = |lease: LeaseId| -> Option<Load> { self.registry.load(lease) };
        let mut run = Run::new(question, load, limits.clone());
        let (snapshot, candidates) = self.candidates(question, limits)?;
        let by_index = candidates.is_some();
        let whole = match candidates {
            Some(candidates) => {
                candidates.iter().try_for_each(|(instance, score)| run.look(instance, *score))?;
                true
            }
            None => scan(&snapshot, question, &mut run)?,
        };
        let (examined, steps) = (run.examined, run.steps);
        let (found, facets) = run.finish(whole);
        Ok(Answer { found, facets, revision: snapshot.revision, examined, steps, by_index, took: started.elapsed() })
    }

    /// The state to look at, and whom; none means everybody.
    #[allow(clippy::type_complexity)]
    fn candidates(
        &self,
        question: &Question,
        limits: &Limits,
    ) -> Result<(Arc<Snapshot>, Option<Vec<(Versioned<Instance>, f32)>>), Failure> {
        let nothing = Terms::default();
        let terms = question.terms().unwrap_or(&nothing);
        let by_words = !question.text.is_empty();
        if !by_words && (terms.is_empty() && question.namespace.is_none()) {
            return Ok((self.registry.snapshot(), None));
        }
        if !by_words && self.shared.building.load(Ordering::Relaxed) {
            return Ok((self.registry.snapshot(), None));
        }
        let mut slot = self.lock();
        let Slot { index, used } = &mut *slot;
        *used = Some(Instant::now());
        if index.is_none() && !by_words {
            drop(slot);
            self.build();
            return Ok((self.registry.snapshot(), None));
        }
        // Words cannot be searched without: this one waits, and those that can do without scan.
        let index = index.get_or_insert_default();
        let _building = index.is_empty().then(|| Building::begin(&self.shared.building));
        index.advance(&self.registry.snapshot());
        let snapshot = index.snapshot().clone();
        let allowed = index.candidates(terms, question.namespace.as_ref().map(Namespace::as_str));
        let mut found = Vec::new();
        if by_words {
            limits.check()?;
            let _building = (!index.has_text()).then(|| Building::begin(&self.shared.building));
            index.text();
            limits.check()?;
            let scored: Vec<(f32, roaring::RoaringBitmap)> = index
                .text()
                .search(&question.text)
                .map(|(score, slots)| {
                    (score, allowed.as_ref().map_or_else(|| slots.clone(), |allowed| allowed & slots))
                })
                .collect();
            for (score, slots) in scored {
                found.extend(slots.iter().filter_map(|slot| Some((index.at(slot)?.clone(), score))));
            }
            return Ok((snapshot, Some(found)));
        }
        let Some(allowed) = allowed else { return Ok((snapshot, None)) };
        if allowed.len() > MAX_CANDIDATES.min(index.len() as u64 / 2) {
            return Ok((snapshot, None));
        }
        found.extend(allowed.iter().filter_map(|slot| Some((index.at(slot)?.clone(), 0.0))));
        Ok((snapshot, Some(found)))
    }

    /// Makes the index, without anybody waiting for it.
    fn build(&self) {
        if self.shared.building.swap(true, Ordering::Relaxed) {
            return;
        }
        let queries = self.clone();
        tokio::task::spawn_blocking(move || {
            let _building = Building(&queries.shared.building);
            let mut index = Index::default();
            index.advance(&queries.registry.snapshot());
            queries.lock().index.get_or_insert(index);
        });
    }

    /// Keeps the index near the present, and drops one that nobody uses. For ever.
    pub async fn maintain(self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            if self.lock().index.is_none() {
                continue;
            }
            let queries = self.clone();
            // It ends by itself, and its end is all there is to know of it.
            let _ = tokio::task::spawn_blocking(move || queries.refresh(Instant::now())).await;
        }
    }

    fn refresh(&self, now: Instant) {
        let mut slot = self.lock();
        if slot.used.is_none_or(|used| now.saturating_duration_since(used) >= FORGET) {
            let forgotten = std::mem::take(&mut *slot);
            drop(slot);
            drop(forgotten);
        } else if let Some(index) = &mut slot.index {
            index.advance(&self.registry.snapshot());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.shared.index.lock().expect("nothing panics while it holds this lock")
    }
}

/// Says that the index is being made, which takes a while.
struct Building<'a>(&'a AtomicBool);

impl<'a> Building<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Looks at all there is; whether that was all that could match.
fn scan<L: Fn(LeaseId) -> Option<Load>>(
    snapshot: &Snapshot,
    question: &Question,
    run: &mut Run<'_, L>,
) -> Result<bool, Failure> {
    // Pages before this one need not be looked at, unless somebody counts.
    let skips = question.order == Order::Name && question.facets.is_empty() && !question.count;
    let after = question.after.as_ref().filter(|_| skips).map(|place| &place.key.service);
    let from = after.map_or(Bound::Unbounded, Bound::Included);
    let services = snapshot.services.range::<_, ServiceKey>((from, Bound::Unbounded));
    let inside = |key: &ServiceKey| question.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
    let services = services.skip_while(|(key, _)| !inside(key)).take_while(|(key, _)| inside(key));
    for (_, service) in services.filter(|(key, _)| question.terms().is_none_or(|terms| terms.may_hold_in(key))) {
        for instance in service.instances.values() {
            run.look(instance, 0.0)?;
            if run.is_settled() {
                return Ok(false);
            }
        }
    }
    Ok(after.is_none())
}
