//! Watches: what there is, then every change, resumable by revision.
//!
//! The log of recent events is bounded; a watcher holds a position in it and no queue of its own, so that a slow one
//! costs nothing. One that has fallen out of the log is told to start again, and what there is follows.

use std::{
    collections::VecDeque,
    ops::Bound,
    sync::{Arc, RwLock},
};

use tokio::sync::watch;

use super::{
    Registry,
    command::{Error, Versioned},
    state::{Event, Snapshot},
};
use crate::model::{Instance, Namespace, Revision, ServiceKey, ServiceName};

/// How many events are kept to resume from.
const KEPT_EVENTS: usize = 65_536;

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub namespace: Option<Namespace>,
    pub service: Option<ServiceName>,
}

impl Filter {
    fn matches(&self, key: &ServiceKey) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.service.as_ref().is_none_or(|service| *service == key.name)
    }
}

/// Recent events, in order. `complete_after` is the revision after which none is missing.
#[derive(Debug)]
struct Log {
    complete_after: Revision,
    events: VecDeque<Event>,
}

#[derive(Debug)]
pub(super) struct EventLog {
    log: RwLock<Log>,
    revision: watch::Sender<Revision>,
}

impl EventLog {
    pub(super) fn new(revision: Revision) -> Self {
        let log = RwLock::new(Log { complete_after: revision, events: VecDeque::new() });
        Self { log, revision: watch::Sender::new(revision) }
    }

    pub(super) fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut log = self.log.write().expect("nothing panics while it holds this lock");
        log.events.extend(events);
        while log.events.len() > KEPT_EVENTS {
            if let Some(event) = log.events.pop_front() {
                // A write's events leave together: a part of them is no place to resume from.
                log.complete_after = event.revision;
            }
        }
    }

    /// Wakes the watchers: everything up to this revision is in the log and in the snapshot.
    pub(super) fn publish(&self, revision: Revision) {
        self.revision.send_replace(revision);
    }

    pub(super) fn published(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    fn after(&self, revision: Revision, limit: usize) -> Option<Vec<Event>> {
        let log = self.log.read().expect("nothing panics while it holds this lock");
        if revision < log.complete_after {
            return None;
        }
        let first = log.events.partition_point(|event| event.revision <= revision);
        let mut events: Vec<Event> = log.events.iter().skip(first).take(limit).cloned().collect();
        // The rest of the last write, whole.
        if let Some(last) = events.last().map(|event| event.revision) {
            let rest = log.events.iter().skip(first + events.len()).take_while(|event| event.revision == last);
            events.extend(rest.cloned());
        }
        Some(events)
    }
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Forget what was told: what there is follows.
    Reset,
    /// It was there when the watch began.
    Present(Versioned<Instance>),
    /// All that there was has been told.
    Synced,
    Happened(Event),
}

#[derive(Debug)]
enum Position {
    Reset,
    /// Telling what there is, service by service; this one is next.
    Listing {
        snapshot: Arc<Snapshot>,
        after: Option<ServiceKey>,
    },
    Following,
}

/// How many events are taken from the log at once.
const BATCH: usize = 256;

/// One watcher. It counts against the limit until it is dropped.
#[derive(Debug)]
pub struct Watch {
    registry: Registry,
    filter: Filter,
    position: Position,
    cursor: Revision,
    steps: VecDeque<(Step, Option<Revision>)>,
    changed: watch::Receiver<Revision>,
    _place: Arc<()>,
}

impl Registry {
    /// Watches from the token of an event, or from what there is.
    pub fn watch(&self, filter: Filter, resume: Option<&str>) -> Result<Watch, Error> {
        let place = self.inner.watchers.clone();
        let limit = self.inner.limits.watchers;
        if Arc::strong_count(&place) > limit + 1 {
            return Err(Error::LimitReached { what: "the number of watchers".into(), limit });
        }
        let snapshot = self.snapshot();
        let cursor = resume.and_then(|token| self.parse_token(token)).filter(|at| *at <= snapshot.revision);
        let position = match (resume, cursor) {
            (_, Some(_)) => Position::Following,
            (Some(_), None) => Position::Reset,
            (None, None) => Position::Listing { snapshot, after: None },
        };
        let changed = self.inner.events.revision.subscribe();
        Ok(Watch {
            registry: self.clone(),
            filter,
            position,
            cursor: cursor.unwrap_or_default(),
            steps: VecDeque::new(),
            changed,
            _place: place,
        })
    }

    /// The token that resumes after a revision: of this store only. None is the token of a watch that has not yet told
    /// all that there is: there is nothing to resume from but the start.
    pub fn token(&self, revision: Option<Revision>) -> String {
        let revision = revision.map(|revision| revision.to_string()).unwrap_or_default();
        format!("{}.{revision}", self.inner.store_id)
    }

    fn parse_token(&self, token: &str) -> Option<Revision> {
        let (store, revision) = token.rsplit_once('.')?;
        (store == &*self.inner.store_id).then(|| revision.parse().ok().map(Revision)).flatten()
    }
}

impl Watch {
    /// The next step, and the revision to resume after, if there is one. Cancel-safe. None when the registry has stopped.
    pub async fn next(&mut self) -> Option<(Step, Option<Revision>)> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            self.changed.mark_unchanged();
            if !self.refill() {
                self.changed.changed().await.ok()?;
            }
        }
    }

    /// Takes what is ready into `steps`; false if there is nothing now.
    fn refill(&mut self) -> bool {
        match &mut self.position {
            Position::Reset => {
                self.steps.push_back((Step::Reset, None));
                self.position = Position::Listing { snapshot: self.registry.snapshot(), after: None };
                true
            }
            Position::Listing { snapshot, after } => {
                let next = match after {
                    None => snapshot.services.iter().next(),
                    Some(key) => {
                        snapshot.services.range::<_, ServiceKey>((Bound::Excluded(&*key), Bound::Unbounded)).next()
                    }
                };
                match next {
                    Some((key, service)) if self.filter.matches(key) => {
                        // Until it is all told there is nothing to resume from but the start.
                        let present = |instance: &Versioned<Instance>| (Step::Present(instance.clone()), None);
                        self.steps.extend(service.instances.values().map(present));
                        *after = Some(key.clone());
                    }
                    Some((key, _)) => *after = Some(key.clone()),
                    None => {
                        self.cursor = snapshot.revision;
                        self.steps.push_back((Step::Synced, Some(self.cursor)));
                        self.position = Position::Following;
                    }
                }
                true
            }
            Position::Following => self.follow(),
        }
    }

    fn follow(&mut self) -> bool {
        let Some(events) = self.registry.inner.events.after(self.cursor, BATCH) else {
            self.position = Position::Reset;
            return true;
        };
        let Some(last) = events.last() else { return false };
        self.cursor = last.revision;
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            // Only the last event of a write is a place to resume after; before that, the write before.
            let more = events.peek().is_some_and(|next| next.revision == event.revision);
            let resume = Revision(event.revision.0 - u64::from(more));
            if self.filter.matches(&event.instance.value.key.service) {
                self.steps.push_back((Step::Happened(event), Some(resume)));
            }
        }
        true
    }
}
