//! The store in memory: for tests, and for a mesh whose agents will register again after a restart anyway.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{COMMITS_IN_FLIGHT, Commit, CommitError, Key, Opened, Record, Storage, Transaction, revisions::Revisions};
use crate::model::{ReplicaId, Revision};

/// Keeps what is needed to check conditions; the records themselves are the registry's.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    commits: mpsc::Sender<Commit>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    revisions: Revisions,
}

impl State {
    fn apply(&mut self, transaction: Transaction) -> Result<Commit, CommitError> {
        if !self.revisions.hold(&transaction) {
            return Err(CommitError::Conflict);
        }
        self.revision = Revision(self.revision.0 + 1);
        for change in &transaction.changes {
            self.revisions.put(&change.key, change.record.is_some().then_some(self.revision));
        }
        Ok(Commit::new(self.revision, transaction.changes))
    }
}

impl MemoryStore {
    pub fn open(store_id: String) -> (Self, Opened) {
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let records: Vec<(Key, Revision, Record)> = Vec::new();
        (
            Self { state: Mutex::default(), commits },
            Opened {
                store_id,
                replica: ReplicaId::ONLY,
                revision: Revision(0),
                records,
                restored: false,
                commits: receiver,
            },
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
