//! Who is told of what. One task reads the log, finds the watches whose filters a change concerns, and puts it into their
//! inboxes: so a watch is woken only by what it has to tell, and the state's task knows of no watch.
//!
//! Watches with equal filters are one group, which is evaluated once. A change is evaluated for those groups whose terms
//! hold before it or after it (`SelectorIndex`). The task runs where the first watch is asked for, which is where watches
//! are served; if it ends, so do its watches.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    bell::{Bell, LOT},
    filter::Filter,
    inbox::Inbox,
    log::{Entry, EventLog, Log},
    pinned::Listings,
    position::Position,
    seen::Seen,
    sizes::WARM,
};
use crate::{
    model::Revision,
    registry::selector_index::{Facts, SelectorIndex},
};

/// How many events are read at once.
const BATCH: usize = 256;
/// How much is evaluated or put before others have their turn on this thread, and how long that may take.
const TURN: usize = 512;
const TURN_TIME: Duration = Duration::from_micros(500);

#[derive(Debug)]
enum Change {
    Join(u64, Filter, Arc<Inbox>),
    Leave(u64),
}

/// What watches and the matcher share.
#[derive(Debug)]
pub(super) struct Roster {
    /// Where watches are served; where the first is asked for if not said.
    served: Option<Handle>,
    changes: Mutex<Vec<Change>>,
    news: Notify,
    next: AtomicU64,
    /// Up to which revision everything is in the inboxes.
    done: AtomicU64,
    running: Mutex<Option<JoinHandle<()>>>,
    pub(super) listings: Listings,
}

impl Roster {
    pub(super) fn new(served: Option<Handle>) -> Self {
        let (changes, news, next, done) = Default::default();
        Self { served, changes, news, next, done, running: Mutex::default(), listings: Listings::default() }
    }

    /// Takes in a watch, whose inbox will be told of what happens from now on; it leaves with the place.
    pub(super) fn join(self: &Arc<Self>, events: &EventLog, filter: Filter, inbox: Arc<Inbox>) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.start(events);
        self.change(Change::Join(id, filter, inbox));
        Place { roster: self.clone(), id }
    }

    /// Everything up to this revision is in the inboxes.
    pub(super) fn done(&self) -> Position {
        Position::after(Revision(self.done.load(Ordering::Acquire)))
    }

    fn change(&self, change: Change) {
        self.changes.lock().expect("nothing panics while it holds this lock").push(change);
        self.news.notify_one();
    }

    fn start(self: &Arc<Self>, events: &EventLog) {
        let mut running = self.running.lock().expect("nothing panics while it holds this lock");
        if running.as_ref().is_none_or(JoinHandle::is_finished) {
            let published = events.published();
            let position = Position::after(events.log.published());
            let matcher = Matcher {
                roster: self.clone(),
                log: events.log.clone(),
                position,
                groups: Groups::default(),
                bell: Bell::hang(&self.served.clone().unwrap_or_else(Handle::current)),
                woken: Vec::new(),
                warm: VecDeque::new(),
                spent: 0,
                begun: Instant::now(),
            };
            *running = Some(tokio::spawn(matcher.run(published)));
        }
    }
}

/// A watch's place in the roster.
#[derive(Debug)]
pub(super) struct Place {
    roster: Arc<Roster>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.change(Change::Leave(self.id));
    }
}

/// The watches with one filter.
#[derive(Debug)]
struct Group {
    filter: Filter,
    members: BTreeMap<u64, Arc<Inbox>>,
}

/// All watches. Pure.
#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<u64, Group>,
    by_filter: HashMap<String, u64>,
    by_watch: HashMap<u64, u64>,
    index: SelectorIndex<u64>,
}

impl Groups {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Join(id, filter, inbox) => {
                let group = *self.by_filter.entry(name_of(&filter)).or_insert(id);
                let group_state = self.groups.entry(group).or_insert_with(|| {
                    self.index.insert_facts(group, filter.facts());
                    Group { filter, members: BTreeMap::new() }
                });
                group_state.members.insert(id, inbox);
                self.by_watch.insert(id, group);
            }
            Change::Leave(id) => {
                let Some(group) = self.by_watch.remove(&id) else { return };
                let Some(state) = self.groups.get_mut(&group) else { return };
                state.members.remove(&id);
                if state.members.is_empty() {
                    self.by_filter.remove(&name_of(&state.filter));
                    self.index.remove(&group);
                    self.groups.remove(&group);
                }
            }
        }
    }

    /// The groups that a change may concern.
    fn candidates(&self, entry: &Entry) -> Vec<u64> {
        let (before, after) = (&entry.event.before, &entry.event.instance.value);
        let mut groups: Vec<u64> = self.index.of_facts(&Facts::of(after)).copied().collect();
        if let Some(before) = before
            && !Arc::ptr_eq(&before.value.spec, &after.spec)
        {
            groups.extend(self.index.of_facts(&Facts::of(&before.value)));
            groups.sort_unstable();
            groups.dedup();
        }
        groups
    }
}

/// Two filters are equal if these are: only a selector may have more than one line, and it stands last.
fn name_of(filter: &Filter) -> String {
    let namespace = filter.namespace.as_ref().map_or("", |name| name.as_str());
    let service = filter.service.as_ref().map_or("", |name| name.as_str());
    let selector = filter.selector.as_ref().map_or("", |selector| selector.as_str());
    format!("{namespace}\n{service}\n{selector}")
}

struct Matcher {
    roster: Arc<Roster>,
    log: Arc<Log>,
    position: Position,
    groups: Groups,
    bell: Bell,
    /// Those whose inboxes have got something, until they are rung for.
    woken: Vec<Arc<Inbox>>,
    /// Events whose bytes are kept.
    warm: VecDeque<Arc<Entry>>,
    /// What was done in this turn, and when it began.
    spent: usize,
    begun: Instant,
}

impl Matcher {
    /// Ends with the registry, or when there is nobody to ring for.
    async fn run(mut self, mut published: watch::Receiver<Revision>) {
        loop {
            published.mark_unchanged();
            while self.batch().await {}
            if !self.ring().await {
                return;
            }
            self.roster.listings.sweep();
            let roster = self.roster.clone();
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = roster.news.notified() => {}
            }
        }
    }

    /// Reads and tells some events; false if there are no more.
    async fn batch(&mut self) -> bool {
        let slice = self.log.after(self.position, BATCH);
        // A watch that joins reads the log after it has joined: whatever it does not find there is not in this slice
        // yet, and whoever has joined by now is told of it.
        self.take_changes();
        let Some(slice) = slice else { return self.skip() };
        for entry in &slice.entries {
            self.tell(entry).await;
        }
        self.position = slice.end;
        if slice.complete {
            self.roster.done.store(slice.end.revision().0, Ordering::Release);
        }
        !slice.complete
    }

    /// So far behind that the log has gone on without it: each watch has to look for itself.
    fn skip(&mut self) -> bool {
        self.position = Position::after(self.log.published());
        for inbox in self.groups.groups.values().flat_map(|group| group.members.values()) {
            inbox.fall_behind();
        }
        true
    }

    fn take_changes(&mut self) {
        let changes =
            std::mem::take(&mut *self.roster.changes.lock().expect("nothing panics while it holds this lock"));
        changes.into_iter().for_each(|change| self.groups.apply(change));
    }

    async fn tell(&mut self, entry: &Arc<Entry>) {
        let mut told = false;
        for group in self.groups.candidates(entry) {
            self.turn(1).await;
            let Some(group) = self.groups.groups.get(&group) else { continue };
            let Some(seen) = Seen::of(entry, &group.filter) else { continue };
            told = true;
            self.spent += group.members.len();
            self.woken.extend(group.members.values().filter(|inbox| inbox.put(entry, seen)).cloned());
            if self.woken.len() >= LOT {
                self.ring().await;
            }
        }
        if told {
            self.warm.push_back(entry.clone());
            if self.warm.len() > WARM
                && let Some(cold) = self.warm.pop_front()
            {
                cold.cool();
            }
        }
    }

    /// Wakes those who have got something.
    async fn ring(&mut self) -> bool {
        self.bell.ring(std::mem::take(&mut self.woken)).await
    }

    async fn turn(&mut self, spent: usize) {
        self.spent += spent;
        if self.spent >= TURN || self.begun.elapsed() > TURN_TIME {
            self.spent = 0;
            self.ring().await;
            tokio::task::yield_now().await;
            self.begun = Instant::now();
        }
    }
}

impl Drop for Matcher {
    /// However it ends, nobody waits for it.
    fn drop(&mut self) {
        self.take_changes();
        for inbox in self.groups.groups.values().flat_map(|group| group.members.values()) {
            inbox.close();
        }
    }
}
