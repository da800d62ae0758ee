//! The store in memory: for tests, and for a mesh whose agents will register again after a restart anyway.

use std::{fmt, hash::Hash, sync::Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use super::{COMMITS_IN_FLIGHT, Change, Commit, CommitError, Key, Opened, Record, Storage, Transaction};
use crate::{
    model::{ReplicaId, Revision},
    prehashed::Sharded,
};

/// Keeps what is needed to check conditions; the records themselves are the registry's.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    commits: mpsc::Sender<Commit>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    /// By a hash of the key, which takes a third of the key's own place. Nobody knows the seed, or can make two meet.
    revisions: Sharded<u128, Revision>,
    hash: Seeded,
}

/// Begun with its seed; to begin one anew takes longer than to hash a key.
#[derive(Clone)]
struct Seeded(Xxh3);

impl fmt::Debug for Seeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seeded")
    }
}

impl State {
    fn hash(&self, key: &Key) -> u128 {
        let Seeded(mut hash) = self.hash.clone();
        key.hash(&mut hash);
        hash.digest128()
    }

    fn apply(&mut self, transaction: Transaction) -> Result<Commit, CommitError> {
        if !holds(&transaction, |key| self.revisions.get(&self.hash(key)).copied()) {
            return Err(CommitError::Conflict);
        }
        self.revision = Revision(self.revision.0 + 1);
        for Change { key, record } in &transaction.changes {
            let key = self.hash(key);
            match record {
                Some(_) => self.revisions.insert(key, self.revision),
                None => self.revisions.remove(&key),
            };
        }
        Ok(Commit::new(self.revision, transaction.changes))
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
        let state = State {
            revision: Revision(0),
            revisions: Sharded::default(),
            hash: Seeded(Xxh3::with_seed(rand::random())),
        };
        (
            Self { state: Mutex::new(state), commits },
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
