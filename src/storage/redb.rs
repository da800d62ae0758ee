//! The default store: one file, crash-safe, no server.
//!
//! Each commit is one write transaction of redb, which syncs it before it answers: an acknowledged write survives a
//! crash at any moment, and after a crash the file is as the last commit left it. All transactions of a call are written
//! together and synced once (group commit); each keeps a revision of its own. After a failed write (a full disk) the
//! file is opened again before the next; whether the failed one happened is then seen, and told if it did.
//! `quick_repair` keeps opening after a crash fast whatever the file's size. What does not scale yet: opening reads every record, and the file does not
//! shrink by itself.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::mpsc;

use super::{
    COMMITS_IN_FLIGHT, Change, Commit, CommitError, Key, OpenError, Opened, Record, Storage, Transaction,
    memory::holds, publish, record,
};
use crate::model::Revision;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STORE_ID: &str = "store_id";
const REVISION: &str = "revision";
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
        let (store_id, revision) = open_meta(&database, new_store_id).map_err(|error| failed(error.to_string()))?;
        // A new file's name is the directory's: it is to survive a power loss as well.
        let synced = std::fs::File::open(data_dir).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed(error.to_string()))?;
        let records = read_records(&database, &display)?;
        let revisions = records.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let state = State { revision, revisions };
        let inner = Inner { database: Some(database), state, doubtful: Vec::new() };
        let store = Self { shared: Arc::new(Shared { path, inner: inner.into() }), commits };
        Ok((store, Opened { store_id, revision, records, commits: receiver }))
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

fn open_meta(database: &Database, new_store_id: &str) -> Result<(String, Revision), redb::Error> {
    let transaction = write(database)?;
    let found = {
        transaction.open_table(RECORDS)?;
        let mut meta = transaction.open_table(META)?;
        let id = meta.get(STORE_ID)?.map(|id| String::from_utf8_lossy(id.value()).into_owned());
        let revision = meta.get(REVISION)?.map(|revision| read_revision(revision.value())).unwrap_or_default();
        if id.is_none() {
            meta.insert(STORE_ID, new_store_id.as_bytes())?;
        }
        (id.unwrap_or_else(|| new_store_id.to_owned()), revision)
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
}

impl Inner {
    /// After a failed write: opens the file again, and looks whether the write happened. It did as a whole or not at
    /// all.
    fn recover(&mut self, path: &Path) -> Result<Vec<Commit>, redb::Error> {
        if self.database.is_some() {
            return Ok(Vec::new());
        }
        let database = open_file(path)?;
        let (_, revision) = open_meta(&database, "")?;
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
        let outcomes = plan(&self.state, transactions);
        let commits: Vec<Commit> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
        match write_all(database, &commits) {
            Ok(()) => {
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

fn write_all(database: &Database, commits: &[Commit]) -> Result<(), redb::Error> {
    if commits.is_empty() {
        return Ok(());
    }
    let transaction = write(database)?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        let mut meta = transaction.open_table(META)?;
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

#[async_trait]
impl Storage for RedbStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let count = transactions.len();
        let shared = self.shared.clone();
        let written = tokio::task::spawn_blocking(move || shared.commit(transactions)).await;
        let failed =
            |error: tokio::task::JoinError| (Vec::new(), vec![Err(CommitError::Unavailable(error.to_string())); count]);
        let (recovered, outcomes) = written.unwrap_or_else(failed);
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
        Transaction { expect: Vec::new(), changes: vec![Change { key, record: Some(record) }], lazy: false }
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
                    write_all(inner.database.as_ref().expect("open"), std::slice::from_ref(&commit)).expect("written");
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
}
