//! One query, run to its end on one snapshot, or until its time or its cost is over.

use std::{
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use convoy_client::proto::Load;
use tokio::time::Instant;

use super::{
    Failure, Found, Question,
    facets::{Counting, Facet},
    order::{Order, Place},
};
use crate::{
    model::{Instance, LeaseId},
    registry::command::Versioned,
};

/// How often the clock is looked at.
const BETWEEN_LOOKS: u64 = 256;
/// What one query may cost: a scan of a million instances by ten comparisons takes a third of it.
pub const MAX_STEPS: u64 = 100_000_000;

/// What ends a query from outside.
#[derive(Clone, Debug)]
pub struct Limits {
    pub deadline: Instant,
    /// Whoever asked is gone.
    pub cancelled: Arc<AtomicBool>,
}

impl Limits {
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancelled.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(Failure::TooSlow);
        }
        Ok(())
    }
}

/// An instance in its place. The last one comes first off the heap.
#[derive(Debug)]
struct Placed {
    place: Place,
    score: f32,
    instance: Versioned<Instance>,
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

pub struct Run<'a, L> {
    question: &'a Question,
    load: L,
    limits: Limits,
    heap: BinaryHeap<Placed>,
    facets: Vec<Counting>,
    matched: u64,
    pub examined: u64,
    pub steps: u64,
}

impl<'a, L: Fn(LeaseId) -> Option<Load>> Run<'a, L> {
    pub fn new(question: &'a Question, load: L, limits: Limits) -> Self {
        let facets = question.facets.iter().cloned().map(Counting::new).collect();
        Self { question, load, limits, heap: BinaryHeap::new(), facets, matched: 0, examined: 0, steps: 0 }
    }

    /// Looks at one more instance.
    pub fn look(&mut self, instance: &Versioned<Instance>, score: f32) -> Result<(), Failure> {
        if self.examined.is_multiple_of(BETWEEN_LOOKS) {
            self.limits.check()?;
        }
        self.examined += 1;
        let value = &instance.value;
        let by_load = self.question.order == Order::Load;
        let filter = self.question.filter.as_ref();
        let load =
            (by_load || filter.is_some_and(|filter| filter.uses_load())).then(|| (self.load)(value.lease)).flatten();
        if let Some(filter) = filter {
            let looked = filter.look(value, load.as_ref());
            self.steps += u64::from(looked.steps);
            if self.steps > MAX_STEPS {
                return Err(Failure::TooExpensive);
            }
            if !looked.matches {
                return Ok(());
            }
        }
        self.matched += 1;
        self.facets.iter_mut().for_each(|facet| facet.add(value));
        let rank = self.question.order.rank(value, load.as_ref(), score);
        let after = |place: &Place| (rank, &value.key) > (place.rank, &place.key);
        if self.question.after.as_ref().is_some_and(|place| !after(place)) {
            return Ok(());
        }
        // One more than the page tells that there is another.
        if self.heap.len() > self.question.page_size {
            if self.heap.peek().is_some_and(|last| after(&last.place)) {
                return Ok(());
            }
            self.heap.pop();
        }
        let place = Place { rank, key: value.key.clone() };
        self.heap.push(Placed { place, score, instance: instance.clone() });
        Ok(())
    }

    /// Whether those that come later by name can change nothing.
    pub fn is_settled(&self) -> bool {
        let by_name = self.question.order == Order::Name;
        by_name && self.facets.is_empty() && !self.question.count && self.heap.len() > self.question.page_size
    }

    /// `whole`: whether all was looked at that could match.
    pub fn finish(self, whole: bool) -> (Found, Vec<Facet>) {
        let mut placed = self.heap.into_sorted_vec();
        let more = placed.len() > self.question.page_size;
        placed.truncate(self.question.page_size);
        let last = placed.last().filter(|_| more);
        let next = last.map(|last| last.place.token(self.question.digest()));
        let found = Found {
            instances: placed.into_iter().map(|placed| (placed.instance, placed.score)).collect(),
            next,
            total: whole.then_some(self.matched),
        };
        (found, self.facets.into_iter().map(Counting::finish).collect())
    }
}
