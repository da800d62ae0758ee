//! The default store: one file, crash-safe, no server.
//!
//! Each commit is one write transaction of redb, which syncs it before it answers: an acknowledged write survives a
//! crash at any moment, and after a crash the file is as the last commit left it. All transactions of a call are written
//! together and synced once (group commit); each keeps a revision of its own. After a failed write (a full disk) the
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
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use redb::{Database, Durability};
use tokio::sync::mpsc;

use self::file::{Beginning, CEILING, FILE, Look, META, RECORDS, REVISION, StoreFile, explain, unpanicked, write};
use super::{
    COMMITS_IN_FLIGHT, Change, Commit, CommitError, Key, OpenError, Opened, SCHEMA, Storage, Transaction,
    memory::holds, publish, record,
};
use crate::model::{ReplicaId, Revision};

/// So many revisions of lazy commits share the one sync that reserves them.
const RESERVED: u64 = 4096;
/// Lazy commits are durable after this.
const LAZY_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    commits: mpsc::Sender<Commit>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    store_id: String,
    inner: Mutex<Inner>,
}

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

/// The revision of every key, to check conditions without reading.
#[derive(Debug, Default)]
struct State {
    revision: Revision,
    revisions: HashMap<Key, Revision>,
}

impl State {
    fn apply(&mut self, commit: &Commit) {
        self.revision = commit.revision;
        for Change { key, record } in &commit.changes {
            match record {
                Some(_) => self.revisions.insert(key.clone(), commit.revision),
                None => self.revisions.remove(key),
            };
        }
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
        let revisions = records.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let state = State { revision, revisions };
        let ceiling = meta.ceiling.0;
        let inner = Inner { file: Some(file), state, ceiling, unsynced: false, doubtful: Vec::new() };
        let store_id = meta.store_id.clone();
        let shared = Arc::new(Shared { path, store_id, inner: inner.into() });
        let opened = Opened {
            store_id: meta.store_id,
            replica: ReplicaId::ONLY,
            revision,
            records,
            restored: meta.restored,
            commits: receiver,
        };
        Ok((Self { shared, commits }, opened))
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

    /// The commits of an earlier call that turn out to have happened, and this call's outcomes.
    fn commit(&self, transactions: Vec<Transaction>) -> (Vec<Commit>, Vec<Result<Commit, CommitError>>) {
        let mut inner = self.lock();
        let count = transactions.len();
        let recovered = match inner.recover(&self.path, &self.store_id) {
            Ok(recovered) => recovered,
            Err(why) => return (Vec::new(), vec![Err(self.unavailable(&why)); count]),
        };
        (recovered, inner.commit(transactions, |file| file.is_at(&self.path), |why| self.unavailable(why)))
    }

    /// Makes lazy commits durable.
    fn sync(&self) {
        let mut inner = self.lock();
        let (unsynced, ceiling) = (inner.unsynced, inner.ceiling);
        let Some(file) = inner.file.as_ref().filter(|_| unsynced) else { return };
        match write_all(&file.database, &[], Some(ceiling), Durability::Immediate) {
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
        recovered.iter().for_each(|commit| self.state.apply(commit));
        tracing::info!(revision = %meta.revision, recovered = recovered.len(), "the store is open again");
        Ok(recovered)
    }

    /// `in_place` tells whether the file still has its name: what is written to one that has been replaced is lost.
    fn commit(
        &mut self,
        transactions: Vec<Transaction>,
        in_place: impl FnOnce(&StoreFile) -> Result<(), String>,
        unavailable: impl Fn(&str) -> CommitError,
    ) -> Vec<Result<Commit, CommitError>> {
        let Some(file) = &self.file else {
            return vec![Err(unavailable("it is not open")); transactions.len()];
        };
        let lazy = transactions.iter().all(|transaction| transaction.lazy);
        let outcomes = plan(&self.state, transactions);
        let commits: Vec<Commit> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
        let last = commits.last().map_or(0, |commit| commit.revision.0);
        let short = last > self.ceiling;
        // Without lazy commits nothing is ever reserved; with them, the sync of another commit is taken for it.
        let ceiling =
            (short && lazy || self.ceiling != 0 && last + RESERVED / 2 > self.ceiling).then_some(last + RESERVED);
        let durability = if lazy && !short { Durability::None } else { Durability::Immediate };
        let written = write_all(&file.database, &commits, ceiling, durability).map_err(|error| explain(&error));
        match written.and_then(|()| in_place(file)) {
            Ok(()) => {
                self.unsynced = (self.unsynced || !commits.is_empty()) && matches!(durability, Durability::None);
                self.ceiling = ceiling.unwrap_or(self.ceiling);
                commits.iter().for_each(|commit| self.state.apply(commit));
                outcomes
            }
            Err(why) => {
                self.file = None;
                self.doubtful = commits;
                let unavailable = unavailable(&why);
                outcomes.into_iter().map(|outcome| Err(outcome.err().unwrap_or(unavailable.clone()))).collect()
            }
        }
    }
}

/// Writes commits, and up to which revision others are reserved.
fn write_all(
    database: &Database,
    commits: &[Commit],
    ceiling: Option<u64>,
    durability: Durability,
) -> Result<(), redb::Error> {
    if commits.is_empty() && ceiling.is_none() {
        return Ok(());
    }
    unpanicked(|| write_transaction(database, commits, ceiling, durability))
}

fn write_transaction(
    database: &Database,
    commits: &[Commit],
    ceiling: Option<u64>,
    durability: Durability,
) -> Result<(), redb::Error> {
    let mut transaction = write(database)?;
    transaction.set_durability(durability)?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        let mut meta = transaction.open_table(META)?;
        match ceiling {
            None => {}
            Some(0) => drop(meta.remove(CEILING)?),
            Some(ceiling) => drop(meta.insert(CEILING, &ceiling.to_be_bytes()[..])?),
        }
        for commit in commits {
            for Change { key, record } in &commit.changes {
                let key = record::encode_key(key);
                match record {
                    Some(record) => table.insert(&*key, &*record::encode(commit.revision, record))?,
                    None => table.remove(&*key)?,
                };
            }
            meta.insert(REVISION, &commit.revision.0.to_be_bytes()[..])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// What a group of transactions would do, each planned on those before it.
fn plan(state: &State, transactions: Vec<Transaction>) -> Vec<Result<Commit, CommitError>> {
    let mut revision = state.revision;
    let mut changed: HashMap<Key, Option<Revision>> = HashMap::new();
    let plan = |transaction: Transaction| {
        let present = |key: &Key| match changed.get(key) {
            Some(changed) => *changed,
            None => state.revisions.get(key).copied(),
        };
        if !holds(&transaction, present) {
            return Err(CommitError::Conflict);
        }
        revision = Revision(revision.0 + 1);
        for change in &transaction.changes {
            changed.insert(change.key.clone(), change.record.is_some().then_some(revision));
        }
        Ok(Commit::new(revision, transaction.changes))
    };
    transactions.into_iter().map(plan).collect()
}

/// In peace nothing is lost, and no revision is left out.
impl Drop for Shared {
    fn drop(&mut self) {
        let Ok(inner) = self.inner.get_mut() else { return };
        let Some(file) = inner.file.as_ref().filter(|_| inner.ceiling != 0) else { return };
        if let Err(error) = write_all(&file.database, &[], Some(0), Durability::Immediate) {
            tracing::warn!(%error, "the store could not be closed");
        }
    }
}

#[async_trait]
impl Storage for RedbStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let count = transactions.len();
        let lazy = transactions.iter().all(|transaction| transaction.lazy);
        let shared = self.shared.clone();
        let written = tokio::task::spawn_blocking(move || shared.commit(transactions)).await;
        let failed =
            |error: tokio::task::JoinError| (Vec::new(), vec![Err(CommitError::Unavailable(error.to_string())); count]);
        let (recovered, outcomes) = written.unwrap_or_else(failed);
        if lazy {
            self.sync_soon();
        }
        publish(&self.commits, recovered.into_iter().map(Ok).collect()).await;
        publish(&self.commits, outcomes).await
    }

    async fn settled(&self) {
        let shared = self.shared.clone();
        // Whether it ends well is told there.
        let _ = tokio::task::spawn_blocking(move || shared.set_begun()).await;
    }
}

#[cfg(test)]
mod tests {
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
                let commit = Commit::new(Revision(2), put("2").changes);
                if happened {
                    write_all(
                        &inner.file.as_ref().expect("open").database,
                        std::slice::from_ref(&commit),
                        None,
                        Durability::Immediate,
                    )
                    .expect("written");
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
