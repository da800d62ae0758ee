//! The file of one Convoy, in this process, with what redb's promises of it: what was acknowledged survives a crash, but for
//! lazy writes, whose revisions do not come again; a write whose answer is lost may have happened. And a backup's way from the
//! registry into a file: the bytes, and what stands in them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use convoy::{
    model::{ReplicaId, Revision, UnixMillis},
    registry::Registry,
    storage::{
        Change, Commit, CommitError, Key, Opened, Record, Storage, Transaction,
        backup::{self, Head, Unusable, Writer},
        record,
        redb::restore::AHEAD,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::trace::note;

/// So many revisions of lazy writes are reserved together.
const RESERVED: u64 = 20;

pub type Records = BTreeMap<Key, (Revision, Record)>;

#[derive(Clone, Debug, Default)]
struct File {
    store_id: String,
    revision: u64,
    restored: bool,
    records: Records,
}

#[derive(Debug)]
struct State {
    random: StdRng,
    /// As it was written, and as a crash would leave it.
    written: File,
    durable: File,
    /// Up to here revisions are reserved, durably.
    ceiling: u64,
    is_slow: bool,
    /// Nothing can be written.
    is_full: bool,
    /// Since when it has not been full.
    writable_since: Instant,
    /// How often it was opened: who opened it before is gone.
    opened: u64,
    /// Written, and not told yet.
    untold: VecDeque<Commit>,
}

#[derive(Debug)]
pub struct Disk {
    state: Mutex<State>,
}

impl Disk {
    pub fn new(seed: u64) -> Arc<Self> {
        let file = File { store_id: "new".into(), ..File::default() };
        let state = State {
            random: StdRng::seed_from_u64(seed),
            written: file.clone(),
            durable: file,
            ceiling: 0,
            is_slow: false,
            is_full: false,
            writable_since: Instant::now(),
            opened: 0,
            untold: VecDeque::new(),
        };
        Arc::new(Self { state: state.into() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub fn open(self: &Arc<Self>) -> (Store, Opened) {
        let (sender, commits) = mpsc::channel(4096);
        let mut state = self.lock();
        state.opened += 1;
        state.untold.clear();
        let File { store_id, revision, restored, records } = state.written.clone();
        let records = records.into_iter().map(|(key, (at, record))| (key, at, record)).collect();
        let (replica, revision) = (ReplicaId::ONLY, Revision(revision));
        let opened = Opened { store_id, replica, revision, records, restored, commits };
        (Store { disk: self.clone(), opening: state.opened, commits: sender }, opened)
    }

    /// Its process is gone: killed, or it has closed the file.
    pub fn leave(&self, is_killed: bool) {
        let mut state = self.lock();
        state.opened += 1;
        if is_killed {
            state.written = state.durable.clone();
            state.written.revision = state.written.revision.max(state.ceiling);
        }
        (state.durable, state.ceiling) = (state.written.clone(), 0);
    }

    pub fn slow_down(&self, is_slow: bool) {
        self.lock().is_slow = is_slow;
    }

    pub fn fill(&self, is_full: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_full, is_full) && !is_full {
            state.writable_since = Instant::now();
        }
    }

    /// None while it is full.
    pub fn writable_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.is_full).then_some(state.writable_since)
    }

    pub fn holds(&self) -> Records {
        self.lock().written.records.clone()
    }

    /// Puts another store in its place, as `convoy restore` does. Nobody has it open.
    pub fn restore(&self, backup: &[u8]) {
        let mut state = self.lock();
        let mut records = Records::new();
        let (head, _) = backup::read::<Unusable>(backup, |key, value| {
            let (revision, record) = record::decode(value).expect("it was written so");
            records.insert(record::decode_key(key).expect("it was written so"), (revision, record));
            Ok(())
        })
        .expect("a backup");
        let file = File {
            store_id: format!("{:016x}", state.random.random::<u64>()),
            revision: head.revision.0.max(state.written.revision) + AHEAD,
            restored: true,
            records,
        };
        (state.written, state.durable, state.ceiling) = (file.clone(), file, 0);
    }
}

/// What `convoy backup` makes of a running registry.
pub async fn back_up(registry: &Registry) -> Option<Vec<u8>> {
    let copy = registry.copy().await.ok()?;
    let store_id = registry.store_id().to_owned();
    let mut writer =
        Writer::new(Head { store_id, revision: copy.revision(), taken_at: UnixMillis::now(), version: "0".into() });
    copy.records().for_each(|(key, revision, record)| writer.record(&key, revision, &record));
    writer.end();
    Some(writer.take())
}

impl State {
    fn write(&mut self, Transaction { expect, changes, lazy, .. }: Transaction) -> Result<Revision, CommitError> {
        let at = |key: &Key| self.written.records.get(key).map(|(revision, _)| *revision).unwrap_or_default();
        if !expect.iter().all(|(key, revision)| at(key) == *revision) {
            return Err(CommitError::Conflict);
        }
        self.written.revision += 1;
        let revision = Revision(self.written.revision);
        for Change { key, record } in &changes {
            match record {
                Some(record) => self.written.records.insert(key.clone(), (revision, record.clone())),
                None => self.written.records.remove(key),
            };
        }
        self.untold.push_back(Commit::new(revision, changes));
        let is_short = lazy && revision.0 >= self.ceiling;
        if is_short {
            self.ceiling = revision.0 + RESERVED;
        }
        if is_short || !lazy {
            self.durable = self.written.clone();
        }
        note(|| format!("the file has {}{}", revision.0, if lazy { ", lazily" } else { "" }));
        Ok(revision)
    }
}

/// The file, as one process has it open.
#[derive(Debug)]
pub struct Store {
    disk: Arc<Disk>,
    opening: u64,
    commits: mpsc::Sender<Commit>,
}

impl Store {
    /// Nothing is written by whoever is gone.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.disk.lock()).filter(|state| state.opened == self.opening)
    }

    fn tell(&self, until: Revision) {
        let Some(mut state) = self.state() else { return };
        while let Some(commit) = state.untold.pop_front_if(|commit| commit.revision <= until) {
            // The registry may have ended.
            let _ = self.commits.try_send(commit);
        }
    }
}

#[async_trait::async_trait]
impl Storage for Store {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let (there, back) = {
            let State { random, is_slow, .. } = &mut *self.disk.lock();
            let slowly = if *is_slow { random.random_range(100..700) } else { 0 };
            (random.random_range(1..10) + slowly, random.random_range(1..10))
        };
        sleep(Duration::from_millis(there)).await;
        let refused = |why: &str| Err(CommitError::Unavailable(why.into()));
        let write = |transaction| match self.state() {
            None => refused("it is another's"),
            Some(state) if state.is_full => refused("it is full"),
            Some(mut state) => state.write(transaction),
        };
        let outcomes: Vec<_> = transactions.into_iter().map(write).collect();
        sleep(Duration::from_millis(back)).await;
        if let Some(last) = outcomes.iter().flatten().max() {
            self.tell(*last);
        }
        outcomes
    }

    fn calls(&self) -> usize {
        4
    }

    async fn settled(&self) {
        if let Some(mut state) = self.state() {
            (state.written.restored, state.durable.restored) = (false, false);
        }
    }
}
