//! The store over etcd: one truth for several Convoys.
//!
//! Order and revisions are etcd's. A write is one transaction of etcd, compared on the revisions that it was planned on
//! (`write`); what comes of it is told by the watch alone (`follow`, `told`), to this replica as to all others. So each
//! replica is told the same commits in the same order, whoever wrote them.
//!
//! What etcd has forgotten is read again, and only what differs is told. While etcd is away nothing is told and nothing can
//! be written; `health` says so, and writes are refused at once. A store that is another one when it is back (recreated, or
//! restored to an older state) ends the stream of commits: the registry was built from something else.
//!
//! Keys are under the prefix as `keys` says. Nothing hangs on an etcd lease but that a replica is here (`presence`).

mod client;
pub mod config;
mod failure;
mod follow;
mod identity;
mod keys;
mod pace;
mod presence;
mod read;
mod told;
mod write;

#[allow(clippy::enum_variant_names, clippy::wildcard_imports, reason = "generated")]
mod rpc {
    pub use self::mvccpb::{Event, KeyValue, event};
    pub use etcdserverpb::*;

    mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, future::BoxFuture, stream};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{
    client::{Client, Repeat},
    config::EtcdConfig,
    failure::Failure,
    follow::{Follower, Shared},
    identity::identify,
    keys::Keys,
    pace::Pace,
    presence::Presence,
    rpc::{TxnRequest, TxnResponse},
    told::{Told, Unread, revision},
    write::{Found, Write},
};
use super::{COMMITS_IN_FLIGHT, CommitError, Health, OpenError, Opened, Storage, Transaction};
use crate::model::{Replica, ReplicaId, Revision};

/// How long etcd may be away when it is opened: a whole cluster may be starting.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
const OPEN_PAUSE: Duration = Duration::from_millis(500);
/// Groups of writes on their way to etcd, which batches what it has.
const IN_FLIGHT: usize = 8;
/// How long a conflict waits until the registry has been told of what it conflicts with.
const TOLD_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct EtcdStore {
    client: Arc<Client>,
    shared: Arc<Shared>,
    lazy: Mutex<Pace>,
    /// The follower and the presence, which end with the store.
    _following: JoinSet<()>,
    presence: Arc<Presence>,
}

impl EtcdStore {
    /// Reads what there is, and follows what comes. The first replica of all gives the store its id, `new_store_id`; with
    /// the cluster's own id it changes when etcd is created anew or restored.
    pub async fn open(config: &EtcdConfig, new_store_id: &str, replica: &Replica) -> Result<(Self, Opened), OpenError> {
        let path = format!("etcd ({}, prefix {})", config.endpoints.join(", "), config.prefix);
        let failed = |reason: String| OpenError::Open { path: path.clone(), reason };
        let client = Client::new(config).map_err(|error| failed(format!("{error:#}")))?;
        let (client, keys) = (Arc::new(client), Keys::new(&config.prefix));
        let identity = patiently(|| identify(&client, &keys, new_store_id)).await.map_err(failed)?;
        let id = ReplicaId(rand::random_range(1..=u64::MAX));
        let begin = async || Ok(Presence::begin(&client, &keys, id, replica).await?);
        let presence = Arc::new(patiently(begin).await.map_err(failed)?);
        // It is among what is read.
        let read = patiently(async || Ok(read::everything(&client, &keys).await?)).await.map_err(failed)?;
        let at = read.revision;
        let unread = |Unread { key, reason }| OpenError::Record { path: path.clone(), key, reason: reason.to_string() };
        let (told, records) = Told::new(keys.clone(), read).map_err(unread)?;
        let shared = Arc::new(Shared {
            keys,
            told: told.into(),
            progress: watch::Sender::new(at),
            health: watch::Sender::new(Health::Live),
        });
        let (commits, receiver) = mpsc::channel(COMMITS_IN_FLIGHT);
        let store_id = format!("{}-{:x}", String::from_utf8_lossy(&identity.store), identity.cluster);
        let follower = Follower { client: client.clone(), shared: shared.clone(), identity, commits };
        let mut following = JoinSet::new();
        following.spawn(follower.run());
        let staying = presence.clone();
        following.spawn(async move { staying.keep().await });
        let lazy = Pace::new(Instant::now()).into();
        let store = Self { client, shared, lazy, _following: following, presence };
        Ok((store, Opened { store_id, replica: id, revision: at, records, restored: false, commits: receiver }))
    }
}

/// Why a store is not opened.
enum NotOpen {
    /// Perhaps later.
    Yet(String),
    Ever(String),
}

impl From<Failure> for NotOpen {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(_) | Failure::Compacted => Self::Yet(failure.to_string()),
            failure => Self::Ever(failure.to_string()),
        }
    }
}

/// Tries until it is done, refused, or patience is out.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, NotOpen>) -> Result<T, String> {
    let until = Instant::now() + OPEN_PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(NotOpen::Yet(reason)) if Instant::now() < until => {
                tracing::warn!(reason, "etcd is not there yet");
                sleep(OPEN_PAUSE).await;
            }
            Err(NotOpen::Yet(reason) | NotOpen::Ever(reason)) => return Err(reason),
        }
    }
}

impl EtcdStore {
    /// Carries out a group; those that a condition of another one kept from it go again without that one.
    async fn carry_out(&self, mut group: Vec<Write>) -> Vec<(usize, Result<Revision, CommitError>)> {
        let mut outcomes = Vec::with_capacity(group.len());
        while !group.is_empty() {
            let repeat = if group.iter().all(Write::is_repeatable) { Repeat::Always } else { Repeat::Never };
            let answer = match self.send(&write::request(&group), repeat).await {
                Ok(answer) => answer,
                Err(Failure::TooLarge(_)) if group.len() > 1 => {
                    // etcd was told to take less than it does by default.
                    let rest = group.split_off(group.len() / 2);
                    outcomes.extend(Box::pin(self.carry_out(rest)).await);
                    continue;
                }
                Err(failure) => {
                    let error = match failure {
                        Failure::TooLarge(_) => CommitError::TooLarge(failure.to_string()),
                        failure => CommitError::Unavailable(failure.to_string()),
                    };
                    outcomes.extend(group.drain(..).map(|write| (write.index, Err(error.clone()))));
                    return outcomes;
                }
            };
            let at = revision(answer.header.unwrap_or_default().revision);
            if answer.succeeded {
                let outcome = if write::changed(&answer) { Ok(at) } else { self.nothing_there(&group).await };
                outcomes.extend(group.drain(..).map(|write| (write.index, outcome.clone())));
                return outcomes;
            }
            let found = write::found(&group, &answer);
            let mut rest = Vec::new();
            for (write, found) in group.into_iter().zip(found) {
                match found.is_empty() {
                    true => rest.push(write),
                    false => {
                        self.told_of(&found, at).await;
                        outcomes.push((write.index, Err(CommitError::Conflict)));
                    }
                }
            }
            group = rest;
        }
        outcomes
    }

    /// Sends a transaction, unless etcd is away or goes away meanwhile.
    async fn send(&self, request: &TxnRequest, repeat: Repeat) -> Result<TxnResponse, Failure> {
        let mut health = self.shared.health.subscribe();
        let away = async {
            match health.wait_for(|health| *health != Health::Live).await.as_deref() {
                Ok(Health::Away { reason, .. }) => reason.to_string(),
                _ => "the store is closed".to_owned(),
            }
        };
        tokio::select! {
            biased;
            reason = away => Err(Failure::Away(reason)),
            answer = self.client.txn(request, repeat) => answer,
        }
    }

    /// What is planned again needs a newer state: waits until the registry has been told of what was found `at` a revision.
    async fn told_of(&self, found: &[Found], at: Revision) {
        let told_of = |told: &Told| {
            let known = |found: &Found| match found.revision {
                Revision(0) => told.version(&found.key) == Revision(0),
                revision => told.revision() >= revision,
            };
            told.revision() >= at || found.iter().all(known)
        };
        self.wait_told(told_of).await;
    }

    /// What was to be deleted was not there: no revision came of it. Answers when the registry knows.
    async fn nothing_there(&self, group: &[Write]) -> Result<Revision, CommitError> {
        let gone = |told: &Told| group.iter().flat_map(Write::written).all(|key| told.version(key).0 == 0);
        match self.wait_told(gone).await {
            Some(revision) => Ok(revision),
            None => Err(CommitError::Unavailable("what etcd holds has not come back yet".into())),
        }
    }

    /// Waits until what was told is as wanted; up to which revision it was told then.
    async fn wait_told(&self, wanted: impl Fn(&Told) -> bool) -> Option<Revision> {
        let mut progress = self.shared.progress.subscribe();
        let told = async {
            loop {
                {
                    let told = self.shared.told.lock().expect("nothing panics while it holds this lock");
                    if wanted(&told) {
                        return Some(told.revision());
                    }
                }
                // The sender is ours, and here.
                progress.changed().await.ok()?;
            }
        };
        timeout(TOLD_PATIENCE, told).await.ok().flatten()
    }

    /// In etcd's terms; or why not.
    fn prepare(&self, index: usize, transaction: &Transaction) -> Result<Write, CommitError> {
        if transaction.lazy {
            let mut pace = self.lazy.lock().expect("nothing panics while it holds this lock");
            if !pace.admits(transaction.changes.len(), Instant::now()) {
                return Err(CommitError::Busy);
            }
        }
        let told = self.shared.told.lock().expect("nothing panics while it holds this lock");
        let write = Write::new(index, transaction, &self.shared.keys, &told);
        match write.fits() {
            true => Ok(write),
            false => {
                let most = write::MAX_OPERATIONS;
                Err(CommitError::TooLarge(format!("one write to etcd has {most} conditions and changes at most")))
            }
        }
    }
}

#[async_trait]
impl Storage for EtcdStore {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let unknown = || Err(CommitError::Unavailable("not written".into()));
        let mut outcomes: Vec<_> = transactions.iter().map(|_| unknown()).collect();
        let mut writes = Vec::with_capacity(transactions.len());
        for (index, transaction) in transactions.iter().enumerate() {
            match self.prepare(index, transaction) {
                Ok(write) => writes.push(write),
                Err(error) => outcomes[index] = Err(error),
            }
        }
        drop(transactions);
        for wave in write::waves(writes) {
            let carry_out = |group| -> BoxFuture<'_, _> { Box::pin(self.carry_out(group)) };
            let mut carried = stream::iter(write::groups(wave)).map(carry_out).buffer_unordered(IN_FLIGHT);
            while let Some(some) = carried.next().await {
                some.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
            }
        }
        outcomes
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn close(&self) {
        self.presence.end().await;
    }
}
