//! The default store: one file, crash-safe, no server.
//!
//! Each commit is one write transaction of redb, which syncs it before it answers: an acknowledged write survives a
//! crash at any moment, and after a crash the file is as the last commit left it. All calls that wait are written together,
//! and those that come before it is time to sync as well (group commit): one sync for all; each transaction keeps a
//! revision of its own. After a failed write (a full disk) the
//! file is opened again before the next; whether the failed one happened is then seen, and told if it did. A file that has
//! lost its name, or whose name another one has, is written to in vain: such a write is not acknowledged.
//! A call of lazy transactions only is not synced: it is durable with the next one that is, within `LAZY_LIMIT` in any case.
//! `quick_repair` keeps opening after a crash fast whatever the file's size. What does not scale yet: opening reads every record, and the file does not
//! shrink by itself.

#[cfg(test)]
mod faults;
mod file;
#[cfg(test)]
mod power;
pub mod restore;

use std::{
    collections::VecDeque,
    iter,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

use self::file::{Beginning, CEILING, FILE, Look, META, RECORDS, REVISION, StoreFile, explain, unpanicked, write};
use super::{
    COMMITS_IN_FLIGHT, Change, Commit, CommitError, OpenError, Opened, SCHEMA, Storage, Transaction, record,
    revisions::{Before, Revisions},
};
use crate::model::{ReplicaId, Revision};

/// So many revisions of lazy commits share the one sync that reserves them.
const RESERVED: u64 = 4096;
/// Lazy commits are durable after this.
const LAZY_LIMIT: Duration = Duration::from_secs(1);
/// So many calls may wait to be written together: each may be of one registration.
const CALLS: usize = 64;
/// A group that has so many transactions is synced, whoever else comes.
const MAX_GROUP: usize = 1024;

#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    store_id: String,
    inner: Mutex<Inner>,
    calls: Mutex<Calls>,
    commits: mpsc::Sender<Commit>,
}

/// Calls of `commit` that wait.
#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Call>,
    /// A thread is writing, and comes back for those that wait.
    writing: bool,
}

#[derive(Debug)]
struct Call {
    transactions: Vec<Transaction>,
    answer: oneshot::Sender<Outcomes>,
}

type Outcomes = Vec<Result<Revision, CommitError>>;
/// Who writes. If that panics nobody waits for it, and the next call begins anew.
struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.calls() = Calls::default();
        }
    }
}

/// What is told to whom when all is done.
type Answers = Vec<(oneshot::Sender<Outcomes>, Outcomes)>;

#[derive(Debug)]
struct Inner {
    /// None after a failed write, until the file could be opened again: redb refuses everything after one.
    file: Option<StoreFile>,
    state: State,
    /// A crash may lose lazy commits, and what has read their revisions is not to meet them again with other contents. So
    /// revisions are reserved, durably, before the first of them is given to a lazy commit; after a crash the file goes on
    /// behind the reserved ones. 0: none are reserved.
    ceiling: u64,
    /// Lazy commits wait to become durable.
    unsynced: bool,
    /// What a failed write was about: whether it happened, the file tells when it is open again.
    doubtful: Vec<Commit>,
}

/// What conditions are checked on, without reading.
#[derive(Debug, Default)]
struct State {
    revision: Revision,
    revisions: Revisions,
}

impl State {
    /// What a commit has changed, as it was before.
    fn apply(&mut self, commit: &Commit) -> impl Iterator<Item = Before> {
        self.revision = commit.revision;
        let present = |change: &Change| change.record.is_some().then_some(commit.revision);
        commit.changes.iter().map(move |change| self.revisions.put(&change.key, present(change)))
    }

    /// Makes it what it was at a revision.
    fn put_back(&mut self, began_at: Revision, before: Vec<Before>) {
        self.revision = began_at;
        before.into_iter().rev().for_each(|before| self.revisions.put_back(before));
    }
}

impl RedbStore {
    /// Opens the file in `data_dir`, or makes it; a new one gets `new_store_id`. It reads all of it: that blocks.
    pub fn open(data_dir: &Path, new_store_id: &str) -> Result<(Self, Opened), OpenError> {
        let path = data_dir.join(FILE);
        let failed = |error: redb::Error| file::open_error(&path, &error);
        std::fs::create_dir_all(data_dir).map_err(|error| failed(error.into()))?;
        if !path.try_exists().map_err(|error| failed(error.into()))? {
            let beginning = Beginning { store_id: new_store_id, revision: Revision::default(), restored: false };
            file::make(&path, &beginning, |_| Ok::<_, redb::Error>(())).map_err(failed)?;
        }
        let file = StoreFile::open(&path, Look::Verify).map_err(failed)?;
        Self::begin(path, file)
    }

    /// Reads a file that is open.
    fn begin(path: PathBuf, file: StoreFile) -> Result<(Self, Opened), OpenError> {
        let failed = |error: redb::Error| file::open_error(&path, &error);
        let meta = file.meta().map_err(failed)?;
        // What cannot be written to is said now, and not to the first who registers.
        file.set_schema(SCHEMA).map_err(failed)?;
        let revision = meta.revision.max(meta.ceiling);
        let records = file::read_records(&file, &path)?;
        let mut revisions = Revisions::default();
        for (key, revision, _) in &records {
            revisions.put(key, Some(*revision));
        }
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let state = State { revision, revisions };
        let ceiling = meta.ceiling.0;
        let inner = Inner { file: Some(file), state, ceiling, unsynced: false, doubtful: Vec::new() };
        let store_id = meta.store_id.clone();
        let shared = Shared { path, store_id, inner: inner.into(), calls: Mutex::default(), commits };
        let opened = Opened {
            store_id: meta.store_id,
            replica: ReplicaId::ONLY,
            revision,
            records,
            restored: meta.restored,
            commits: receiver,
        };
        Ok((Self { shared: Arc::new(shared) }, opened))
    }
}

impl RedbStore {
    /// Makes lazy commits durable in a while, unless another commit does before.
    fn sync_soon(&self) {
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(LAZY_LIMIT).await;
            if let Some(shared) = shared.upgrade() {
                // It holds the store no longer than the write: who closes the store waits for that.
                let _ = tokio::task::spawn_blocking(move || shared.sync()).await;
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked, it has left a file that is closed or whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, why: &str) -> CommitError {
        CommitError::Unavailable(format!("{}: {why}", self.path.display()))
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, until nothing does. Whoever is told last finds the store free: nobody holds it here any more.
    fn write(self: Arc<Self>) {
        let mut shared = Writer(self);
        loop {
            let answers = shared.0.write_group();
            let goes_on = {
                let mut calls = shared.0.calls();
                calls.writing = !calls.waiting.is_empty();
                calls.writing
            };
            let again = goes_on.then_some(shared);
            for (answer, outcomes) in answers {
                // Whoever asked may have gone; what was written stays written.
                let _ = answer.send(outcomes);
            }
            match again {
                Some(again) => shared = again,
                None => return,
            }
        }
    }

    /// Writes the calls that wait, and those that come while it does.
    fn write_group(&self) -> Answers {
        let mut inner = self.lock();
        let mut callers = Vec::new();
        let mut next = || {
            let Call { transactions, answer } = self.calls().waiting.pop_front()?;
            callers.push((answer, transactions.len()));
            Some(transactions)
        };
        let (recovered, outcomes) = match inner.recover(&self.path, &self.store_id) {
            Ok(recovered) => {
                (recovered, inner.commit(&mut next, |file| file.is_at(&self.path), |why| self.unavailable(why)))
            }
            Err(why) => {
                let failed = |of: Vec<Transaction>| vec![Err(self.unavailable(&why)); of.len()];
                (Vec::new(), iter::from_fn(&mut next).map(failed).collect())
            }
        };
        drop(inner);
        recovered.into_iter().for_each(|commit| drop(self.tell(commit)));
        let told = |outcomes: Vec<Result<Commit, CommitError>>| -> Outcomes {
            outcomes.into_iter().map(|outcome| self.tell(outcome?)).collect()
        };
        let mut outcomes = outcomes.into_iter();
        let answer = |(answer, count): (oneshot::Sender<Outcomes>, usize)| {
            // One that a write that failed has kept from its turn.
            let not_written = || vec![Err(self.unavailable("it could not be written to")); count];
            (answer, outcomes.next().map_or_else(not_written, told))
        };
        callers.into_iter().map(answer).collect()
    }

    /// Sends it down the stream.
    fn tell(&self, commit: Commit) -> Result<Revision, CommitError> {
        let revision = commit.revision;
        let sent = self.commits.blocking_send(commit);
        sent.map(|()| revision).map_err(|_| CommitError::Unavailable("the registry has stopped".into()))
    }

    /// Makes lazy commits durable.
    fn sync(&self) {
        let mut inner = self.lock();
        let (unsynced, ceiling) = (inner.unsynced, inner.ceiling);
        let Some(file) = inner.file.as_ref().filter(|_| unsynced) else { return };
        match reserve(&file.database, ceiling) {
            Ok(()) => inner.unsynced = false,
            Err(error) => {
                let (file, error) = (self.path.display(), explain(&error));
                tracing::warn!(%file, error, "lazy writes could not be made durable");
                inner.file = None;
            }
        }
    }

    /// Whoever began with a restored store has told everybody who returned.
    fn set_begun(&self) {
        let done = self.lock().file.as_ref().map_or(Ok(()), StoreFile::set_begun);
        if let Err(error) = done {
            let (file, error) = (self.path.display(), explain(&error));
            tracing::warn!(%file, error, "a restored store will be taken for one at the next start as well");
        }
    }
}

impl Inner {
    /// After a failed write: opens the file again, and looks whether the write happened. It did as a whole or not at
    /// all.
    fn recover(&mut self, path: &Path, store_id: &str) -> Result<Vec<Commit>, String> {
        if self.file.is_some() {
            return Ok(Vec::new());
        }
        let file = StoreFile::open(path, Look::Trust).map_err(|error| explain(&error))?;
        let meta = file.meta().map_err(|error| explain(&error))?;
        if meta.store_id != store_id {
            return Err(file::REPLACED.into());
        }
        self.file = Some(file);
        let mut recovered = std::mem::take(&mut self.doubtful);
        recovered.retain(|commit| commit.revision <= meta.revision);
        recovered.iter().for_each(|commit| self.state.apply(commit).for_each(drop));
        tracing::info!(revision = %meta.revision, recovered = recovered.len(), "the store is open again");
        Ok(recovered)
    }

    /// Writes the transactions of calls, as long as there are any. `in_place` tells whether the file still has its name: what
    /// is written to one that has been replaced is lost.
    fn commit(
        &mut self,
        next: &mut dyn FnMut() -> Option<Vec<Transaction>>,
        in_place: impl FnOnce(&StoreFile) -> Result<(), String>,
        unavailable: impl Fn(&str) -> CommitError,
    ) -> Vec<Vec<Result<Commit, CommitError>>> {
        let Some(file) = &self.file else {
            return next().map(|of| vec![Err(unavailable("it is not open")); of.len()]).into_iter().collect();
        };
        let mut group = Group::new(&mut self.state);
        let mut ending = Ending::default();
        let written = unpanicked(|| {
            group.write(&file.database, next, |lazy, last| {
                // What is reserved is reserved by a sync, else a crash forgets it. The last one that is reserved is where the
                // file goes on after a crash: nothing that may be lost has it.
                let short = last >= self.ceiling;
                // Without lazy commits nothing is ever reserved; with them, the sync of another commit is taken for it.
                let early = self.ceiling != 0 && last + RESERVED / 2 > self.ceiling;
                let reserves = if lazy { short } else { early };
                ending = Ending { ceiling: reserves.then_some(last + RESERVED), synced: !lazy || short };
                ending
            })
        });
        let Group { outcomes, before, began_at, .. } = group;
        let commits = || outcomes.iter().flatten().flatten();
        match written.map_err(|error| explain(&error)).and_then(|()| in_place(file)) {
            Ok(()) => {
                self.unsynced = (self.unsynced || commits().next().is_some()) && !ending.synced;
                self.ceiling = ending.ceiling.unwrap_or(self.ceiling);
                outcomes
            }
            Err(why) => {
                self.file = None;
                self.state.put_back(began_at, before);
                self.doubtful = commits().cloned().collect();
                let unavailable = unavailable(&why);
                let failed = |outcome: Result<Commit, CommitError>| Err(outcome.err().unwrap_or(unavailable.clone()));
                outcomes.into_iter().map(|of_call| of_call.into_iter().map(failed).collect()).collect()
            }
        }
    }
}

/// How a write ends.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// Up to which revision others are reserved.
    ceiling: Option<u64>,
    synced: bool,
}

impl Ending {
    fn durability(self) -> Durability {
        if self.synced { Durability::Immediate } else { Durability::None }
    }

    fn write(self, meta: &mut redb::Table<'_, &str, &[u8]>) -> Result<(), redb::Error> {
        match self.ceiling {
            None => {}
            Some(0) => drop(meta.remove(CEILING)?),
            Some(ceiling) => drop(meta.insert(CEILING, &ceiling.to_be_bytes()[..])?),
        }
        Ok(())
    }
}

/// Makes all that was written durable, and with it up to which revision others are reserved.
fn reserve(database: &Database, ceiling: u64) -> Result<(), redb::Error> {
    unpanicked(|| {
        let transaction = write(database)?;
        Ending { ceiling: Some(ceiling), synced: true }.write(&mut transaction.open_table(META)?)?;
        Ok(transaction.commit()?)
    })
}

/// What is written together, each transaction planned on those before it.
struct Group<'a> {
    state: &'a mut State,
    /// Should it come to nothing: the revision before it, and what it has changed.
    began_at: Revision,
    before: Vec<Before>,
    /// Of each call.
    outcomes: Vec<Vec<Result<Commit, CommitError>>>,
    /// How many transactions there are, and whether all are lazy.
    count: usize,
    lazy: bool,
}

impl<'a> Group<'a> {
    fn new(state: &'a mut State) -> Self {
        let (before, outcomes) = Default::default();
        Self { began_at: state.revision, state, before, outcomes, count: 0, lazy: true }
    }

    /// Writes calls as long as there are any; then it is told how to end.
    fn write(
        &mut self,
        database: &Database,
        next: &mut dyn FnMut() -> Option<Vec<Transaction>>,
        end: impl FnOnce(bool, u64) -> Ending,
    ) -> Result<(), redb::Error> {
        let mut transaction = write(database)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            while self.count < MAX_GROUP
                && let Some(transactions) = next()
            {
                self.plan(transactions);
                for Commit { revision, changes, .. } in self.outcomes.last().into_iter().flatten().flatten() {
                    for Change { key, record } in changes {
                        let key = record::encode_key(key);
                        match record {
                            Some(record) => table.insert(&*key, &*record::encode(*revision, record))?,
                            None => table.remove(&*key)?,
                        };
                    }
                }
            }
        }
        let revision = self.state.revision;
        if revision == self.began_at {
            return Ok(transaction.abort()?);
        }
        let ending = end(self.lazy, revision.0);
        transaction.set_durability(ending.durability())?;
        {
            let mut meta = transaction.open_table(META)?;
            ending.write(&mut meta)?;
            meta.insert(REVISION, &revision.0.to_be_bytes()[..])?;
        }
        Ok(transaction.commit()?)
    }

    fn plan(&mut self, transactions: Vec<Transaction>) {
        self.count += transactions.len();
        let outcomes = transactions.into_iter().map(|transaction| {
            self.lazy &= transaction.lazy;
            if !self.state.revisions.hold(&transaction) {
                return Err(CommitError::Conflict);
            }
            let commit = Commit::new(Revision(self.state.revision.0 + 1), transaction.changes);
            self.before.extend(self.state.apply(&commit));
            Ok(commit)
        });
        let outcomes = outcomes.collect();
        self.outcomes.push(outcomes);
    }
}

/// In peace nothing is lost, and no revision is left out.
impl Drop for Shared {
    fn drop(&mut self) {
        let Ok(inner) = self.inner.get_mut() else { return };
        let Some(file) = inner.file.as_ref().filter(|_| inner.ceiling != 0) else { return };
        if let Err(error) = reserve(&file.database, 0) {
            tracing::warn!(%error, "the store could not be closed");
        }
    }
}

#[async_trait]
impl Storage for RedbStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let (count, lazy) = (transactions.len(), transactions.iter().all(|transaction| transaction.lazy));
        let (answer, answered) = oneshot::channel();
        let idle = {
            let mut calls = self.shared.calls();
            calls.waiting.push_back(Call { transactions, answer });
            !std::mem::replace(&mut calls.writing, true)
        };
        if idle {
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || shared.write());
        }
        let outcomes = answered.await;
        if lazy {
            self.sync_soon();
        }
        outcomes.unwrap_or_else(|_| vec![Err(self.shared.unavailable("the write has failed")); count])
    }

    fn calls(&self) -> usize {
        CALLS
    }

    async fn settled(&self) {
        let shared = self.shared.clone();
        // Whether it ends well is told there.
        let _ = tokio::task::spawn_blocking(move || shared.set_begun()).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::storage::conformance::instance;

    fn put(id: &str) -> Transaction {
        let (key, record) = instance("a", id, 1);
        Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() }
    }

    /// After a failed write it is not known whether it happened: the file says so when it is open again.
    #[tokio::test]
    async fn a_failed_write_that_happened_is_told_and_one_that_did_not_is_not() {
        for happened in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let (store, mut opened) = RedbStore::open(directory.path(), "id").expect("it opens");
            assert_eq!(store.commit(vec![put("1")]).await, [Ok(Revision(1))]);
            opened.commits.recv().await.expect("a commit");
            {
                let mut inner = store.shared.lock();
                let Inner { file, state, .. } = &mut *inner;
                let commit = Commit::new(Revision(2), put("2").changes);
                if happened {
                    let database = &file.as_ref().expect("open").database;
                    let mut calls = vec![vec![put("2")]].into_iter();
                    let mut group = Group::new(state);
                    let ending = Ending { synced: true, ..Ending::default() };
                    group.write(database, &mut || calls.next(), |_, _| ending).expect("written");
                    let Group { state, began_at, before, .. } = group;
                    state.put_back(began_at, before);
                }
                inner.file = None;
                inner.doubtful = vec![commit];
            }
            let next = if happened { 3 } else { 2 };
            assert_eq!(store.commit(vec![put("3")]).await, [Ok(Revision(next))]);
            let told: Vec<u64> =
                std::iter::from_fn(|| opened.commits.try_recv().ok()).map(|commit| commit.revision.0).collect();
            assert_eq!(told, if happened { vec![2, 3] } else { vec![2] });
        }
    }

    #[tokio::test]
    async fn calls_at_once_are_told_in_order_each_with_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, mut opened) = RedbStore::open(directory.path(), "id").expect("it opens");
        let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let outcomes = join_all(ids.iter().map(|id| store.commit(vec![put(id)]))).await;
        let told: Vec<Commit> = std::iter::from_fn(|| opened.commits.try_recv().ok()).collect();
        assert_eq!(told.iter().map(|commit| commit.revision.0).collect::<Vec<_>>(), (1..=100).collect::<Vec<u64>>());
        for (id, outcome) in ids.iter().zip(outcomes) {
            let [Ok(revision)] = outcome[..] else { panic!("{outcome:?}") };
            assert_eq!(told[revision.0 as usize - 1].changes, put(id).changes);
        }
        drop(store);
        let (_, opened) = RedbStore::open(directory.path(), "other").expect("nobody has it open any more");
        assert_eq!(opened.records.len(), 100);
    }

    fn lazily(id: &str) -> Transaction {
        Transaction { lazy: true, ..put(id) }
    }

    fn ids(opened: &Opened) -> Vec<String> {
        opened.records.iter().map(|(key, ..)| record::encode_key(key)).collect()
    }

    /// What a crash leaves: the file as it is, without anybody closing it.
    fn crashed(directory: &Path) -> Opened {
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::copy(directory.join(FILE), copy.path().join(FILE)).expect("a copy");
        RedbStore::open(copy.path(), "other").expect("it opens").1
    }

    #[tokio::test]
    async fn a_lazy_commit_is_lost_in_a_crash_and_its_revision_does_not_come_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _opened) = RedbStore::open(directory.path(), "id").expect("it opens");
        assert_eq!(store.commit(vec![put("1")]).await, [Ok(Revision(1))]);
        assert_eq!(crashed(directory.path()).revision, Revision(1), "nothing is reserved without need");
        // The first one is synced for what it reserves; the next one is not.
        assert_eq!(store.commit(vec![lazily("2")]).await, [Ok(Revision(2))]);
        assert_eq!(store.commit(vec![lazily("3")]).await, [Ok(Revision(3))]);
        let after = crashed(directory.path());
        assert_eq!(ids(&after), ["i/default/a/1", "i/default/a/2"]);
        assert_eq!(after.revision, Revision(2 + RESERVED));
        // One that is not lazy takes it along.
        assert_eq!(store.commit(vec![put("4")]).await, [Ok(Revision(4))]);
        assert_eq!(ids(&crashed(directory.path())).len(), 4);
        assert_eq!(store.commit(vec![lazily("5")]).await, [Ok(Revision(5))]);
        store.shared.sync();
        assert_eq!(ids(&crashed(directory.path())).len(), 5);
        // In peace nothing is lost and nothing left out.
        assert_eq!(store.commit(vec![lazily("6")]).await, [Ok(Revision(6))]);
        drop(store);
        let (_, opened) = RedbStore::open(directory.path(), "other").expect("it opens");
        assert_eq!((ids(&opened).len(), opened.revision), (6, Revision(6)));
    }

    #[tokio::test]
    async fn lazy_commits_never_pass_what_is_durably_reserved() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, opened) = RedbStore::open(directory.path(), "id").expect("it opens");
        // Nobody keeps the stream of commits waiting.
        let mut commits = opened.commits;
        let reader = tokio::spawn(async move { while commits.recv().await.is_some() {} });
        // In steps that meet the last of the first that are reserved, and in larger ones.
        let mut last = Revision::default();
        for count in [1].into_iter().chain([512; 7]).chain([511, 1, 1]).chain([512; 12]) {
            let given = store.commit((0..count).map(|_| lazily("1")).collect()).await;
            last = given.into_iter().last().expect("some").expect("written");
            let after = crashed(directory.path());
            let (at, kept) = after.records.first().map(|(_, at, _)| (*at, *at == last)).expect("it was written once");
            assert!(after.revision > last || kept, "{last} was given away, and {at} of {} is left", after.revision);
        }
        assert!(last.0 > 2 * RESERVED);
        drop(store);
        reader.await.expect("it ends with the store");
    }

    #[tokio::test]
    async fn a_lazy_commit_is_durable_within_a_second_or_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _opened) = RedbStore::open(directory.path(), "id").expect("it opens");
        for id in ["1", "2"] {
            store.commit(vec![lazily(id)]).await[0].as_ref().expect("written");
        }
        let until = tokio::time::Instant::now() + LAZY_LIMIT * 10;
        while ids(&crashed(directory.path())).len() < 2 {
            assert!(tokio::time::Instant::now() < until, "it is not synced");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
