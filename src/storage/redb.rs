//! The default store: one file, crash-safe, no server.
//!
//! Each commit is one write transaction of redb, which syncs it before it answers: an acknowledged write survives a
//! crash at any moment, and after a crash the file is as the last commit left it. All transactions of a call are written
//! together and synced once (group commit); each keeps a revision of its own. `quick_repair` keeps opening after a
//! crash fast whatever the file's size. What does not scale yet: opening reads every record, and the file does not
//! shrink by itself.

use std::{collections::HashMap, path::Path, sync::Arc};

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
    database: Database,
    state: std::sync::Mutex<State>,
}

/// The revision of every key, to check conditions without reading.
#[derive(Debug, Default)]
struct State {
    revision: Revision,
    revisions: HashMap<Key, Revision>,
}

impl RedbStore {
    /// Opens the file in `data_dir`, or makes it; a new one gets `new_store_id`.
    pub fn open(data_dir: &Path, new_store_id: &str) -> Result<(Self, Opened), OpenError> {
        let path = data_dir.join(FILE);
        let display = path.display().to_string();
        let failed = |reason: String| OpenError::Open { path: display.clone(), reason };
        std::fs::create_dir_all(data_dir).map_err(|error| failed(error.to_string()))?;
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(&path).map_err(|error| failed(error.to_string()))?;
        let (store_id, revision) = open_meta(&database, new_store_id).map_err(|error| failed(error.to_string()))?;
        let records = read_records(&database, &display)?;
        let revisions = records.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let state = std::sync::Mutex::new(State { revision, revisions });
        let store = Self { shared: Arc::new(Shared { database, state }), commits };
        Ok((store, Opened { store_id, revision, records, commits: receiver }))
    }
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
    fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Commit, CommitError>> {
        let mut state = self.state.lock().expect("nothing panics while it holds this lock");
        let (next, outcomes) = plan(&state, transactions);
        let commits: Vec<&Commit> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        if commits.is_empty() {
            return outcomes;
        }
        match self.write(&commits) {
            Ok(()) => {
                state.revision = next.revision;
                for (key, revision) in next.changed {
                    match revision {
                        Some(revision) => state.revisions.insert(key, revision),
                        None => state.revisions.remove(&key),
                    };
                }
                outcomes
            }
            Err(error) => {
                let unavailable = CommitError::Unavailable(error.to_string());
                outcomes.iter().map(|outcome| Err(outcome.clone().err().unwrap_or(unavailable.clone()))).collect()
            }
        }
    }

    fn write(&self, commits: &[&Commit]) -> Result<(), redb::Error> {
        let transaction = write(&self.database)?;
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
}

/// What a group of transactions would make of the state.
#[derive(Default)]
struct Next {
    revision: Revision,
    changed: HashMap<Key, Option<Revision>>,
}

fn plan(state: &State, transactions: Vec<Transaction>) -> (Next, Vec<Result<Commit, CommitError>>) {
    let mut next = Next { revision: state.revision, ..Next::default() };
    let outcomes = transactions
        .into_iter()
        .map(|transaction| {
            let present = |key: &Key| match next.changed.get(key) {
                Some(changed) => *changed,
                None => state.revisions.get(key).copied(),
            };
            if !holds(&transaction, present) {
                return Err(CommitError::Conflict);
            }
            next.revision = Revision(next.revision.0 + 1);
            for change in &transaction.changes {
                next.changed.insert(change.key.clone(), change.record.is_some().then_some(next.revision));
            }
            Ok(Commit { revision: next.revision, changes: transaction.changes })
        })
        .collect();
    (next, outcomes)
}

#[async_trait]
impl Storage for RedbStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let count = transactions.len();
        let shared = self.shared.clone();
        let written = tokio::task::spawn_blocking(move || shared.commit(transactions)).await;
        let outcomes = written.unwrap_or_else(|error| vec![Err(CommitError::Unavailable(error.to_string())); count]);
        publish(&self.commits, outcomes).await
    }
}
