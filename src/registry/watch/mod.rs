//! Watches: what there is, then every change, resumable from wherever one was left.
//!
//! - `log`: recent events, the same for all; bounded. `position`: places in it, and tokens. `changes`: what changed.
//! - `filter`: what a watch is about; `seen`: an event through it. `matcher`: who is told of what; `inbox`: what waits for
//!   one watch, and `bell` wakes it. `merge`: what many events come to. `pinned`: what there is, for a watch that is told of it.
//!
//! A watch that keeps up takes events from its inbox, which is filled only with what matches. One that is behind (it has
//! just come, or takes too long) reads the log instead, a bounded part at a time, and if much in it matches it is told
//! what that comes to, one event an instance. One that has fallen out of the log is told to start again, and what there
//! is follows. So a slow watch costs a bounded amount of memory, misses nothing, and is told nothing that is not so.
//!
//! A token says up to where everything has been told, also in the middle of a write and of a merged batch: what has been
//! told is not told again. A watch to which nothing happens gets a newer token from time to time (`Step::Bookmark`), so
//! that its token does not fall out of the log.

mod bell;
pub mod changes;
mod filter;
mod inbox;
pub mod log;
mod matcher;
pub mod merge;
mod pinned;
mod position;
mod seen;
mod sizes;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, ops::Bound, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout},
};

pub use self::{
    filter::Filter,
    log::{EventLog, Form},
    position::Token,
    seen::Seen,
};
use self::{
    inbox::{Inbox, Taken},
    matcher::{Place, Roster},
    merge::{Told, merge},
    pinned::Pinned,
    position::Position,
    sizes::{BATCH, MAX_UNMERGED},
};
use super::{
    Registry,
    command::{Error, Versioned},
};
use crate::model::{Instance, Revision, ServiceKey};

/// How often a watch to which nothing happens is given a newer token.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a replica that is behind is waited for before a watch starts over.
const TOKEN_PATIENCE: Duration = Duration::from_secs(1);
/// How many watches may have a selector that could match any instance, and so is evaluated at every change.
pub const MAX_BROAD_WATCHES: usize = 100;

/// What the registry has of its watches.
#[derive(Debug)]
pub(super) struct Watches {
    roster: Arc<Roster>,
    all: Arc<()>,
    broad: Arc<()>,
}

impl Watches {
    /// Those of one registry; where most of them are `served`, if not where the first is asked for.
    pub(super) fn new(served: Option<Handle>) -> Self {
        Self { roster: Arc::new(Roster::new(served)), all: Arc::default(), broad: Arc::default() }
    }
}

/// One step of a watch.
#[derive(Clone, Debug)]
pub enum Step {
    /// Forget what was told: what there is follows.
    Reset,
    /// It was there when the watch began.
    Present(Versioned<Instance>),
    /// All that there was has been told.
    Synced,
    Happened(Told),
    /// Nothing has happened up to here.
    Bookmark,
}

#[derive(Debug)]
enum Stage {
    Reset,
    /// Telling what there is, service by service; this one is next.
    Listing {
        pinned: Pinned,
        after: Option<ServiceKey>,
    },
    /// Telling the rest of what was merged before the watch was cut off.
    Merged {
        after: Position,
        until: Position,
        told: u32,
    },
    Following,
}

/// One watcher. It counts against the limits until it is dropped.
#[derive(Debug)]
pub struct Watch {
    registry: Registry,
    filter: Filter,
    stage: Stage,
    /// Everything up to here is told, or in `steps`.
    cursor: Position,
    steps: VecDeque<(Step, Token)>,
    inbox: Arc<Inbox>,
    next_bookmark: Instant,
    _place: Place,
    _counted: (Arc<()>, Option<Arc<()>>),
}

impl Registry {
    /// Watches from a token, or from what there is. On a runtime: that of the first watch serves them all.
    pub fn watch(&self, filter: Filter, resume: Option<&str>) -> Result<Watch, Error> {
        let watches = &self.inner.watches;
        let all = counted(&watches.all, self.inner.limits.watchers, "the number of watchers")?;
        let what = "the number of watches whose selector has no equality that must hold, such as \
                    `instance.labels.team == \"a\"`";
        let broad = filter.is_broad().then(|| counted(&watches.broad, MAX_BROAD_WATCHES, what)).transpose()?;
        let snapshot = self.snapshot();
        let token = resume.and_then(|token| self.parse_token(token));
        let token = token.filter(|token| token.until() <= Position::after(snapshot.revision));
        let token = token.filter(|token| self.inner.events.log.can_resume(*token));
        let (stage, cursor) = match (resume, token) {
            (None, _) => {
                let pinned = watches.roster.listings.pin(snapshot);
                (Stage::Listing { pinned, after: None }, Position::default())
            }
            (Some(_), Some(Token::At(position))) => (Stage::Following, position),
            (Some(_), Some(Token::Merged { after, until, told })) => (Stage::Merged { after, until, told }, after),
            (Some(_), Some(Token::Start) | None) => (Stage::Reset, Position::default()),
        };
        let inbox = Arc::new(Inbox::default());
        let place = watches.roster.join(&self.inner.events, filter.clone(), inbox.clone());
        Ok(Watch {
            registry: self.clone(),
            filter,
            stage,
            cursor,
            steps: VecDeque::new(),
            inbox,
            next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
            _place: place,
            _counted: (all, broad),
        })
    }

    /// Waits until this replica knows all that a token speaks of, and not for long: another one may have been told a little
    /// earlier.
    pub async fn catch_up_with(&self, token: &str) {
        let Some(until) = self.parse_token(token).map(Token::until) else { return };
        let (mut published, knows) = (self.published(), |revision: &Revision| Position::after(*revision) >= until);
        // At its end, or that of the registry, the watch starts over.
        let _ = timeout(TOKEN_PATIENCE, published.wait_for(knows)).await;
    }

    /// A token's text: of this store only.
    pub fn token(&self, token: Token) -> String {
        format!("{}.{token}", self.inner.store_id)
    }

    fn parse_token(&self, text: &str) -> Option<Token> {
        Token::parse(text.strip_prefix(&*self.inner.store_id)?.strip_prefix('.')?)
    }
}

/// One more of those that are counted, until it is dropped.
fn counted(all: &Arc<()>, limit: usize, what: &str) -> Result<Arc<()>, Error> {
    let one = all.clone();
    // The registry's own is not one of them.
    if Arc::strong_count(all) > limit + 1 {
        return Err(Error::LimitReached { what: what.into(), limit });
    }
    Ok(one)
}

impl Watch {
    /// The next step, and the token to resume after it. Cancel-safe. None when the watch has ended.
    pub async fn next(&mut self) -> Option<(Step, Token)> {
        loop {
            self.work().await;
            if let Some(step) = self.next_unless_work().await? {
                return Some(step);
            }
        }
    }

    /// The same; nothing if there is work to do first.
    pub async fn next_unless_work(&mut self) -> Option<Option<(Step, Token)>> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(Some(step));
            }
            if self.has_work() {
                return Some(None);
            }
            self.follow().await?;
        }
    }

    /// Whether much may have to be looked at before there is a next step: what there is, or the log.
    pub fn has_work(&self) -> bool {
        self.steps.is_empty() && (!matches!(self.stage, Stage::Following) || self.inbox.is_behind())
    }

    /// Does it. Cancel-safe.
    pub async fn work(&mut self) {
        while self.has_work() {
            tokio::task::consume_budget().await;
            match &self.stage {
                Stage::Reset => {
                    self.steps.push_back((Step::Reset, Token::Start));
                    let pinned = self.registry.inner.watches.roster.listings.pin(self.registry.snapshot());
                    self.stage = Stage::Listing { pinned, after: None };
                }
                Stage::Listing { .. } => self.list(),
                Stage::Merged { after, until, told } => self.tell_rest(*after, *until, *told),
                Stage::Following => self.catch_up(),
            }
        }
    }

    fn list(&mut self) {
        let Stage::Listing { pinned, after } = &mut self.stage else { return };
        let Some(snapshot) = pinned.read() else {
            self.stage = Stage::Reset;
            return;
        };
        let services = &snapshot.services;
        let next = match after {
            None => services.iter().next(),
            Some(key) => services.range::<_, ServiceKey>((Bound::Excluded(&*key), Bound::Unbounded)).next(),
        };
        match next {
            Some((key, service)) => {
                *after = Some(key.clone());
                if self.filter.matches_service(key) {
                    let matching = service.instances.values().filter(|instance| self.filter.matches(&instance.value));
                    // Until it is all told there is nothing to resume from but the start.
                    self.steps.extend(matching.map(|instance| (Step::Present(instance.clone()), Token::Start)));
                }
            }
            None => {
                self.cursor = Position::after(snapshot.revision);
                self.steps.push_back((Step::Synced, Token::At(self.cursor)));
                self.stage = Stage::Following;
            }
        }
    }

    /// The batch is made again, from the same events.
    fn tell_rest(&mut self, after: Position, until: Position, told: u32) {
        match self.registry.inner.events.log.between(after, until) {
            Some(entries) => {
                self.cursor = until;
                self.stage = Stage::Following;
                let seen = self.see(entries);
                self.tell_merged(seen, after, told as usize);
            }
            None => self.stage = Stage::Reset,
        }
    }

    /// Takes what there is, or waits until there is something; none if there will be nothing.
    async fn follow(&mut self) -> Option<()> {
        // Before the inbox is looked at: what is in it goes first.
        let done = self.registry.inner.watches.roster.done();
        match self.inbox.take() {
            Taken::Closed => return None,
            // There is work again.
            Taken::Behind => {}
            Taken::Due(due) if !due.is_empty() => self.tell(due),
            Taken::Due(_) => {
                let now = Instant::now();
                if now >= self.next_bookmark {
                    self.next_bookmark = now + BOOKMARK_INTERVAL;
                    if done > self.cursor {
                        self.cursor = done;
                        self.steps.push_back((Step::Bookmark, Token::At(done)));
                        return Some(());
                    }
                }
                tokio::select! {
                    () = self.inbox.news() => {}
                    () = sleep_until(self.next_bookmark) => {}
                }
            }
        }
        Some(())
    }

    /// Reads some of the log.
    fn catch_up(&mut self) {
        let slice = self.inbox.read(|| {
            let slice = self.registry.inner.events.log.after(self.cursor, BATCH);
            let caught_up = slice.as_ref().filter(|slice| slice.complete).map(|slice| slice.end);
            (slice, caught_up)
        });
        let Some(slice) = slice else {
            self.stage = Stage::Reset;
            return;
        };
        let after = std::mem::replace(&mut self.cursor, slice.end);
        let seen = self.see(slice.entries);
        if seen.len() <= MAX_UNMERGED {
            self.tell(seen);
        } else {
            self.tell_merged(seen, after, 0);
        }
    }

    fn see(&self, entries: Vec<Arc<log::Entry>>) -> Vec<Told> {
        let see = |entry: Arc<log::Entry>| Seen::of(&entry, &self.filter).map(|seen| Told { entry, seen });
        entries.into_iter().filter_map(see).collect()
    }

    fn tell(&mut self, events: Vec<Told>) {
        if let Some(last) = events.last() {
            self.cursor = self.cursor.max(last.entry.position);
            self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        }
        let step = |told: Told| {
            let token = told.entry.token();
            (Step::Happened(told), token)
        };
        self.steps.extend(events.into_iter().map(step));
    }

    /// What events up to the cursor come to, but for the first `told` of it. Only after the last of it is everything up
    /// to a place told.
    fn tell_merged(&mut self, events: Vec<Told>, after: Position, told: usize) {
        let merged = merge(events);
        let (count, until) = (merged.len(), self.cursor);
        let resumable = |token| if self.registry.inner.events.log.can_resume(token) { token } else { Token::Start };
        let (part, whole) = (resumable(Token::Merged { after, until, told: 0 }), resumable(Token::At(until)));
        for (index, one) in merged.into_iter().enumerate().skip(told) {
            let token = match part {
                _ if index + 1 == count => whole,
                Token::Merged { .. } => {
                    Token::Merged { after, until, told: u32::try_from(index + 1).unwrap_or(u32::MAX) }
                }
                part => part,
            };
            self.steps.push_back((Step::Happened(one), token));
        }
    }
}
