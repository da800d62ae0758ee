//! Storage: atomic conditional writes, and the stream of changes that they make.
//!
//! Writes go in here and come out again as `Commit`s, in order; the registry's state is built from these and from
//! nothing else, so that every store looks the same to everything above. One `Transaction` is one atomic write with one
//! revision. A transaction says which revisions it was planned on; if one of these moved, it does nothing and answers
//! `Conflict` (only a store with several writers ever does).
//!
//! Transactions of one call that touch the same keys are written in their order. Others may come in any, and a store may
//! write several of them as one, under one revision.

pub mod backup;
pub mod etcd;
pub mod memory;
pub mod record;
pub mod redb;
mod revisions;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub mod failing;
#[cfg(test)]
#[path = "../../tests/support/etcd.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod real_etcd;
#[cfg(test)]
#[path = "../../tests/support/wheel.rs"]
mod wheel;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::model::{
    Instance, InstanceKey, Lease, LeaseId, RawKey, RawResource, Replica, ReplicaId, Revision, Service, ServiceKey,
    Tombstone,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Service(ServiceKey),
    Instance(InstanceKey),
    Lease(LeaseId),
    Raw(RawKey),
    /// Only of a store with several writers; it writes these itself.
    Replica(ReplicaId),
}

/// What stands under a key. An instance that left leaves its tombstone under its own key.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Service(Arc<Service>),
    Instance(Arc<Instance>),
    Tombstone(Tombstone),
    Lease(Lease),
    Raw(Arc<RawResource>),
    Replica(Arc<Replica>),
}

/// A record, or nothing, under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: Key,
    pub record: Option<Record>,
}

/// One atomic write. Each key at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// The revisions that these keys must have; 0 for a key that must be absent.
    pub expect: Vec<(Key, Revision)>,
    pub changes: Vec<Change>,
    /// Services of which no instance may have changed since a revision: none has come that was not known. Only a store with
    /// several writers looks; where there is one, it knows.
    pub still: Vec<(ServiceKey, Revision)>,
    /// A crash may lose it: it becomes durable with the next write that is not, and soon in any case.
    pub lazy: bool,
}

/// One atomic write that happened; or what several came to, of which not all are known on their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub revision: Revision,
    pub changes: Vec<Change>,
    /// It is what all writes after this revision came to.
    pub merged_after: Option<Revision>,
}

impl Commit {
    /// One write.
    pub fn new(revision: Revision, changes: Vec<Change>) -> Self {
        Self { revision, changes, merged_after: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Plan again on a newer state.
    #[error("another write came first")]
    Conflict,
    /// Whether it was written is not known; try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It would never be taken as it is.
    #[error("{0}")]
    TooLarge(String),
    /// A lazy one, of which there are too many now. Nothing is wrong.
    #[error("so many writes come back by themselves that this one has to wait")]
    Busy,
}

/// Whether a store can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Live,
    /// What is known may be out of date since then; nothing can be written.
    Away {
        since: Instant,
        reason: Arc<str>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store in {path} cannot be opened: {reason}")]
    Open { path: String, reason: String },
    #[error("the store in {path} holds a record that cannot be read ({key}): {reason}")]
    Record { path: String, key: String, reason: String },
}

/// Everything that a store holds when it is opened, and what happens from then on.
#[derive(Debug)]
pub struct Opened {
    /// Changes when a store is created or restored: revisions of different stores do not compare.
    pub store_id: String,
    /// Who writes here, among all who do.
    pub replica: ReplicaId,
    pub revision: Revision,
    pub records: Vec<(Key, Revision, Record)>,
    /// It has just been restored: proxies that return may know more than it does.
    pub restored: bool,
    /// Every later commit, in order and whole.
    pub commits: mpsc::Receiver<Commit>,
}

/// By which rules records are written, in a file or a backup. An older Convoy does not guess at a newer one's.
pub(crate) const SCHEMA: u32 = 1;

/// How many commits may be on their way from a store to the registry.
pub(crate) const COMMITS_IN_FLIGHT: usize = 1024;

#[async_trait]
pub trait Storage: Debug + Send + Sync + 'static {
    /// Writes durably, at once. One outcome for each transaction, in their order.
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>>;

    /// How many calls of `commit` may be under way: one, but for a store that itself writes together what waits.
    fn calls(&self) -> usize {
        1
    }

    /// Whoever returned after the start has been told what there is: a restored store is one like any other from now on.
    async fn settled(&self) {}

    /// Whether the store can be reached. One within this process always can, and has nobody who says otherwise: the
    /// receiver's sender is gone then.
    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Live).1
    }

    /// Nothing more is written; others may be told.
    async fn close(&self) {}
}

/// Sends what was committed down the stream, and answers with the revisions. Used by the stores with one writer.
async fn publish(
    commits: &mpsc::Sender<Commit>,
    outcomes: Vec<Result<Commit, CommitError>>,
) -> Vec<Result<Revision, CommitError>> {
    let mut answers = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        answers.push(match outcome {
            Ok(commit) => {
                let revision = commit.revision;
                let sent = commits.send(commit).await;
                sent.map(|()| revision).map_err(|_| CommitError::Unavailable("the registry has stopped".into()))
            }
            Err(error) => Err(error),
        });
    }
    answers
}
