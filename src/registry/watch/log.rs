//! The log of recent events: bounded, in order, and the same for all readers. A reader holds a position in it and no
//! queue of its own, so that a slow one costs nothing.
//!
//! Reading takes a copy of the log's list, which shares what it has with it: the state's task, which writes the log, waits
//! for no reader.

use std::sync::{
    Arc, Mutex, OnceLock, RwLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use imbl::Vector;
use tokio::sync::watch;

use super::{
    changes::Changes,
    position::{Position, Token},
    seen::{Seen, View},
    sizes::KEPT_EVENTS,
};
use crate::{
    model::Revision,
    registry::state::{Event, EventKind},
};

/// What readers make of an event: its bytes, in the forms of `encoded`.
const FORMS: usize = 2;
type Encoded = [Option<Bytes>; FORMS * View::COUNT];

/// There is one each time that etcd was away for so long that it has compacted what was missed.
const MAX_GAPS: usize = 100;

/// An event and its place.
#[derive(Debug)]
pub struct Entry {
    pub event: Event,
    /// After this event; after the whole write, if it is the last of it.
    pub position: Position,
    changes: OnceLock<Changes>,
    encoded: Mutex<Option<Box<Encoded>>>,
    /// Nobody who keeps up still needs its bytes.
    cold: AtomicBool,
    /// Right after it there is nothing to resume from: other replicas may have told it in another way.
    pub within_gap: bool,
}

impl Entry {
    pub fn new(event: Event, position: Position) -> Self {
        let (changes, encoded, cold) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        Self { event, position, changes, encoded, cold, within_gap: false }
    }

    pub fn token(&self) -> Token {
        if self.within_gap { Token::Start } else { Token::At(self.position) }
    }

    /// What is not as it was.
    pub fn changes(&self) -> Changes {
        *self.changes.get_or_init(|| match (&self.event.kind, &self.event.before) {
            (EventKind::Changed, Some(before)) => Changes::between(&before.value, &self.event.instance.value),
            _ => Changes::default(),
        })
    }

    /// The event as bytes, for all who see it in the same way: they are made once.
    pub fn encoded(&self, form: Form, seen: Seen, make: impl FnOnce() -> Bytes) -> Bytes {
        if self.cold.load(Ordering::Relaxed) {
            return make();
        }
        let mut encoded = self.encoded.lock().expect("nothing panics while it holds this lock");
        let slots = encoded.get_or_insert_default();
        slots[form as usize * View::COUNT + seen.view() as usize].get_or_insert_with(make).clone()
    }

    /// Forgets the bytes.
    pub(super) fn cool(&self) {
        self.cold.store(true, Ordering::Relaxed);
        *self.encoded.lock().expect("nothing panics while it holds this lock") = None;
    }
}

/// A form of an event's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// A message of the API, in protobuf.
    Message,
    /// A server-sent event.
    Text,
}

/// Part of the log.
#[derive(Debug)]
pub struct Slice {
    pub entries: Vec<Arc<Entry>>,
    pub end: Position,
    /// Nothing has happened since `end`.
    pub complete: bool,
}

#[derive(Debug)]
struct Recent {
    /// None that came after this is missing.
    complete_after: Position,
    /// Up to here readers may see.
    published: Revision,
    entries: Vector<Arc<Entry>>,
    /// Where several writes were told as one.
    gaps: Vec<Gap>,
}

/// After the first and up to the second revision not all writes are known on their own.
#[derive(Clone, Copy, Debug)]
struct Gap(Revision, Revision);

impl Gap {
    /// Whether a position is in the midst of it.
    fn holds(self, position: Position) -> bool {
        Position::after(self.0) < position && position < Position::after(self.1)
    }

    /// Whether changes after a position and up to another are of it.
    fn overlaps(self, after: Position, until: Position) -> bool {
        after < Position::after(self.1) && until > Position::after(self.0)
    }
}

#[derive(Debug)]
pub struct Log(RwLock<Recent>);

impl Log {
    fn new(revision: Revision) -> Self {
        let complete_after = Position::after(revision);
        let (entries, gaps) = Default::default();
        Self(RwLock::new(Recent { complete_after, published: revision, entries, gaps }))
    }

    fn read<T>(&self, look: impl FnOnce(&Recent) -> T) -> T {
        look(&self.0.read().expect("nothing panics while it holds this lock"))
    }

    pub fn published(&self) -> Revision {
        self.read(|recent| recent.published)
    }

    /// What came after a position, at most `limit` events; none if some of it is gone.
    pub fn after(&self, position: Position, limit: usize) -> Option<Slice> {
        let (entries, published) = self.since(position)?;
        let entries: Vec<_> = entries.into_iter().take(limit).collect();
        // Who has seen the snapshot may be ahead for a moment.
        let end = position.max(Position::after(published));
        Some(match entries.last() {
            Some(last) if entries.len() == limit => {
                let end = last.position;
                Slice { entries, end, complete: false }
            }
            _ => Slice { entries, end, complete: true },
        })
    }

    /// What came after a position up to another; none if some of it is gone, or has not come.
    pub fn between(&self, after: Position, until: Position) -> Option<Vec<Arc<Entry>>> {
        let (entries, published) = self.since(after)?;
        if until > Position::after(published) {
            return None;
        }
        Some(entries.into_iter().take_while(|entry| entry.position <= until).collect())
    }

    /// Whether there is what a token speaks of. In the midst of a gap there is not: what one replica was told at once,
    /// another may have been told piece by piece.
    pub fn can_resume(&self, token: Token) -> bool {
        self.read(|recent| {
            !recent.gaps.iter().any(|gap| match token {
                Token::Start => false,
                Token::At(position) => gap.holds(position),
                Token::Merged { after, until, .. } => gap.overlaps(after, until),
            })
        })
    }

    fn since(&self, position: Position) -> Option<(Vector<Arc<Entry>>, Revision)> {
        let take =
            |recent: &Recent| (recent.complete_after <= position).then(|| (recent.entries.clone(), recent.published));
        let (entries, published) = self.read(take)?;
        let first = partition_point(&entries, |entry| entry.position <= position);
        let last = partition_point(&entries, |entry| entry.event.revision <= published);
        Some((entries.skip(first).take(last.saturating_sub(first)), published))
    }
}

fn partition_point(entries: &Vector<Arc<Entry>>, before: impl Fn(&Entry) -> bool) -> usize {
    let (mut low, mut high) = (0, entries.len());
    while low < high {
        let middle = low.midpoint(high);
        if before(&entries[middle]) { low = middle + 1 } else { high = middle }
    }
    low
}

/// The log, and who is told that there is more in it.
#[derive(Debug)]
pub struct EventLog {
    pub(super) log: Arc<Log>,
    revision: watch::Sender<Revision>,
}

impl EventLog {
    pub fn new(revision: Revision) -> Self {
        Self { log: Arc::new(Log::new(revision)), revision: watch::Sender::new(revision) }
    }

    /// The events of one commit, all of them. If it is several writes merged, all after a revision and up to another are in
    /// it.
    pub fn push(&self, events: Vec<Event>, merged: Option<(Revision, Revision)>) {
        let count = events.len();
        let gap = merged.map(|(after, until)| Gap(after, until));
        let entry = |(index, event): (usize, Event)| {
            let ordinal = u32::try_from(index).unwrap_or(u32::MAX);
            let (last, revision) = (index + 1 == count, event.revision);
            let position = if last { Position::after(revision) } else { Position::within(revision, ordinal) };
            Arc::new(Entry { within_gap: gap.is_some() && !last, ..Entry::new(event, position) })
        };
        // What is made and what is dropped is so outside of the lock.
        let entries: Vec<_> = events.into_iter().enumerate().map(entry).collect();
        let mut gone = Vec::new();
        let mut recent = self.log.0.write().expect("nothing panics while it holds this lock");
        recent.entries.extend(entries);
        recent.gaps.extend(gap);
        while recent.entries.len() > KEPT_EVENTS {
            let Some(entry) = recent.entries.pop_front() else { break };
            recent.complete_after = entry.position;
            gone.push(entry);
        }
        if recent.gaps.len() > MAX_GAPS {
            recent.complete_after = recent.complete_after.max(Position::after(recent.gaps[0].1));
        }
        let complete_after = recent.complete_after;
        recent.gaps.retain(|gap| complete_after < Position::after(gap.1));
        drop(recent);
    }

    /// Lets readers see everything up to this revision: it is in the snapshot.
    pub fn publish(&self, revision: Revision) {
        self.log.0.write().expect("nothing panics while it holds this lock").published = revision;
        self.revision.send_replace(revision);
    }

    pub fn published(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}
