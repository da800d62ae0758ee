//! A store in memory that can be told to fail, or to be away, for tests.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;

use tokio::{sync::watch, time::Instant};

use super::{CommitError, Health, Storage, Transaction, memory::MemoryStore};
use crate::model::Revision;

#[derive(Debug)]
pub struct Failing {
    store: MemoryStore,
    fails: AtomicBool,
    health: watch::Sender<Health>,
}

impl Failing {
    pub fn new(store: MemoryStore, fails: bool) -> Self {
        Self { store, fails: fails.into(), health: watch::Sender::new(Health::Live) }
    }

    pub fn go_away(&self, is_away: bool) {
        let away = || Health::Away { since: Instant::now(), reason: "it is away".into() };
        self.health.send_replace(if is_away { away() } else { Health::Live });
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

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}
