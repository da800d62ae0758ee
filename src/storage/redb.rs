//! The default store: one file, crash-safe, no server.
//!
//! Each commit is one write transaction of redb, which syncs it before it answers: an acknowledged write survives a
//! crash at any moment, and after a crash the file is as the last commit left it. All transactions of a call are written
//! together and synced once (group commit); each keeps a revision of its own. After a failed write (a full disk) the
//! file is opened again before the next; whether the failed one happened is then seen, and told if it did.
//! A call of lazy transactions only is not synced: it is durable with the next one that is, within `LAZY_LIMIT` in any case.
//! `quick_repair` keeps opening after a crash fast whatever the file's size. What does not scale yet: opening reads every record, and the file does not
//! shrink by itself.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::mpsc;

use super::{
    COMMITS_IN_FLIGHT, Change, Commit, CommitError, Key, OpenError, Opened, Record, Storage, Transaction,
    memory::holds, publish, record,
};
use crate::model::{ReplicaId, Revision};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STORE_ID: &str = "store_id";
const REVISION: &str = "revision";
/// No revision over this one has been given away: where revisions go on after a crash, see `Inner::ceiling`.
const CEILING: &str = "ceiling";
/// So many revisions of lazy commits share the one sync that reserves them.
const RESERVED: u64 = 4096;
/// Lazy commits are durable after this.
const LAZY_LIMIT: Duration = Duration::from_secs(1);
const FILE: &str = "convoy.redb";
/// redb's default is 1 GiB; all reads are the ones at start.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    commits: mpsc::Sender<Commit>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    inner: std::sync::Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None after a failed write, until the file could be opened again: redb refuses everything after one.
    database: Option<Database>,
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
    /// Opens the file in `data_dir`, or makes it; a new one gets `new_store_id`.
    pub fn open(data_dir: &Path, new_store_id: &str) -> Result<(Self, Opened), OpenError> {
        let path = data_dir.join(FILE);
        let display = path.display().to_string();
        let failed = |reason: String| OpenError::Open { path: display.clone(), reason };
        std::fs::create_dir_all(data_dir).map_err(|error| failed(error.to_string()))?;
        let database = open_file(&path).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => {
                failed("another process has it open: stop that one, or choose another data_dir".into())
            }
            error => failed(error.to_string()),
        })?;
        let meta = open_meta(&database, new_store_id).map_err(|error| failed(error.to_string()))?;
        let (store_id, revision) = (meta.store_id, meta.revision.max(meta.ceiling));
        // A new file's name is the directory's: it is to survive a power loss as well.
        let synced = std::fs::File::open(data_dir).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed(error.to_string()))?;
        let records = read_records(&database, &display)?;
        let revisions = records.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let state = State { revision, revisions };
        let ceiling = meta.ceiling.0;
        let inner = Inner { database: Some(database), state, ceiling, unsynced: false, doubtful: Vec::new() };
        let store = Self { shared: Arc::new(Shared { path, inner: inner.into() }), commits };
        Ok((store, Opened { store_id, replica: ReplicaId::ONLY, revision, records, commits: receiver }))
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

fn open_file(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    Ok(builder.create(path)?)
}

fn write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

struct Meta {
    store_id: String,
    revision: Revision,
    ceiling: Revision,
}

fn open_meta(database: &Database, new_store_id: &str) -> Result<Meta, redb::Error> {
    let transaction = write(database)?;
    let found = {
        transaction.open_table(RECORDS)?;
        let mut meta = transaction.open_table(META)?;
        let id = meta.get(STORE_ID)?.map(|id| String::from_utf8_lossy(id.value()).into_owned());
        let revision = meta.get(REVISION)?.map(|revision| read_revision(revision.value())).unwrap_or_default();
        let ceiling = meta.get(CEILING)?.map(|ceiling| read_revision(ceiling.value())).unwrap_or_default();
        if id.is_none() {
            meta.insert(STORE_ID, new_store_id.as_bytes())?;
        }
        Meta { store_id: id.unwrap_or_else(|| new_store_id.to_owned()), revision, ceiling }
    };
    transaction.commit()?;
    Ok(found)
}

fn read_revision(bytes: &[u8]) -> Revision {
    Revision(bytes.try_into().map(u64::from_be_bytes).unwrap_or_default())
}

fn read_records(database: &Database, path: &str) -> Result<Vec<(Key, Revision, Record)>, OpenError> {
    let failed = |error: redb::Error| OpenError::Open { path: path.into(), reason: error.to_string() };
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let table = transaction.open_table(RECORDS).map_err(|error| failed(error.into()))?;
    let mut records = Vec::new();
    for entry in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = entry.map_err(|error| failed(error.into()))?;
        let unreadable = |error: record::Unreadable| OpenError::Record {
            path: path.into(),
            key: key.value().into(),
            reason: error.to_string(),
        };
        let decoded_key = record::decode_key(key.value()).map_err(unreadable)?;
        let (revision, record) = record::decode(value.value()).map_err(unreadable)?;
        records.push((decoded_key, revision, record));
    }
    Ok(records)
}

impl Shared {
    /// The commits of an earlier call that turn out to have happened, and this call's outcomes.
    fn commit(&self, transactions: Vec<Transaction>) -> (Vec<Commit>, Vec<Result<Commit, CommitError>>) {
        let mut inner = self.inner.lock().expect("nothing panics while it holds this lock");
        let count = transactions.len();
        let recovered = match inner.recover(&self.path) {
            Ok(recovered) => recovered,
            Err(error) => return (Vec::new(), vec![Err(CommitError::Unavailable(error.to_string())); count]),
        };
        (recovered, inner.commit(transactions))
    }

    /// Makes lazy commits durable.
    fn sync(&self) {
        let mut inner = self.inner.lock().expect("nothing panics while it holds this lock");
        let (unsynced, ceiling) = (inner.unsynced, inner.ceiling);
        let Some(database) = inner.database.as_ref().filter(|_| unsynced) else { return };
        match write_all(database, &[], Some(ceiling), Durability::Immediate) {
            Ok(()) => inner.unsynced = false,
            Err(error) => {
                tracing::warn!(%error, "lazy writes could not be made durable");
                inner.database = None;
            }
        }
    }
}

impl Inner {
    /// After a failed write: opens the file again, and looks whether the write happened. It did as a whole or not at
    /// all.
    fn recover(&mut self, path: &Path) -> Result<Vec<Commit>, redb::Error> {
        if self.database.is_some() {
            return Ok(Vec::new());
        }
        let database = open_file(path)?;
        let revision = open_meta(&database, "")?.revision;
        self.database = Some(database);
        let mut recovered = std::mem::take(&mut self.doubtful);
        recovered.retain(|commit| commit.revision <= revision);
        recovered.iter().for_each(|commit| self.state.apply(commit));
        tracing::info!(%revision, recovered = recovered.len(), "the store is open again");
        Ok(recovered)
    }

    fn commit(&mut self, transactions: Vec<Transaction>) -> Vec<Result<Commit, CommitError>> {
        let Some(database) = &self.database else {
            return vec![Err(CommitError::Unavailable("the file is not open".into())); transactions.len()];
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
        match write_all(database, &commits, ceiling, durability) {
            Ok(()) => {
                self.unsynced = (self.unsynced || !commits.is_empty()) && matches!(durability, Durability::None);
                self.ceiling = ceiling.unwrap_or(self.ceiling);
                commits.iter().for_each(|commit| self.state.apply(commit));
                outcomes
            }
            Err(error) => {
                self.database = None;
                self.doubtful = commits;
                let unavailable = CommitError::Unavailable(error.to_string());
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
        Ok(Commit { revision, changes: transaction.changes })
    };
    transactions.into_iter().map(plan).collect()
}

/// In peace nothing is lost, and no revision is left out.
impl Drop for Shared {
    fn drop(&mut self) {
        let Ok(inner) = self.inner.get_mut() else { return };
        let Some(database) = inner.database.as_ref().filter(|_| inner.ceiling != 0) else { return };
        if let Err(error) = write_all(database, &[], Some(0), Durability::Immediate) {
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
                let mut inner = store.shared.inner.lock().expect("not poisoned");
                let commit = Commit { revision: Revision(2), changes: put("2").changes };
                if happened {
                    write_all(
                        inner.database.as_ref().expect("open"),
                        std::slice::from_ref(&commit),
                        None,
                        Durability::Immediate,
                    )
                    .expect("written");
                }
                inner.database = None;
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
