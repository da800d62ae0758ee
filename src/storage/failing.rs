//! A store in memory that can be told to fail, for tests.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;

use super::{CommitError, Storage, Transaction, memory::MemoryStore};
use crate::model::Revision;

#[derive(Debug)]
pub struct Failing {
    store: MemoryStore,
    fails: AtomicBool,
}

impl Failing {
    pub fn new(store: MemoryStore, fails: bool) -> Self {
        Self { store, fails: fails.into() }
    }

    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Relaxed);
    }
}

#[async_trait]
impl Storage for Failing {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        if self.fails.load(Relaxed) {
            return transactions.iter().map(|_| Err(CommitError::Unavailable("no disk".into()))).collect();
        }
        self.store.commit(transactions).await
    }
}
