//! The store in memory: for tests, and for a mesh whose agents will register again after a restart anyway.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{COMMITS_IN_FLIGHT, Change, Commit, CommitError, Key, Opened, Record, Storage, Transaction};
use crate::model::Revision;

/// Keeps what is needed to check conditions; the records themselves are the registry's.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    commits: mpsc::Sender<Commit>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    revisions: HashMap<Key, Revision>,
}

impl State {
    fn apply(&mut self, transaction: Transaction) -> Result<Commit, CommitError> {
        if !holds(&transaction, |key| self.revisions.get(key).copied()) {
            return Err(CommitError::Conflict);
        }
        self.revision = Revision(self.revision.0 + 1);
        for Change { key, record } in &transaction.changes {
            match record {
                Some(_) => self.revisions.insert(key.clone(), self.revision),
                None => self.revisions.remove(key),
            };
        }
        Ok(Commit { revision: self.revision, changes: transaction.changes })
    }
}

/// Whether a transaction's expectations hold, given each key's present revision.
pub(super) fn holds(transaction: &Transaction, revision_of: impl Fn(&Key) -> Option<Revision>) -> bool {
    transaction.expect.iter().all(|(key, revision)| revision_of(key).unwrap_or_default() == *revision)
}

impl MemoryStore {
    pub fn open(store_id: String) -> (Self, Opened) {
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let records: Vec<(Key, Revision, Record)> = Vec::new();
        (
            Self { state: Mutex::default(), commits },
            Opened { store_id, revision: Revision(0), records, commits: receiver },
        )
    }
}

#[async_trait]
impl Storage for MemoryStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let outcomes: Vec<_> = {
            let mut state = self.state.lock().expect("nothing panics while it holds this lock");
            transactions.into_iter().map(|transaction| state.apply(transaction)).collect()
        };
        super::publish(&self.commits, outcomes).await
    }
}
