//! Convergence: who has ACKed everything up to a revision that concerns them, and waiting for it. What is asked is put
//! together from the streams as they stand; a wait looks again when something has changed.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use convoy_client::proto::{self, BarrierOutcome};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    barrier::{Follower, State, judge},
    cache::Cache,
    departed::Departed,
    standing::Lag,
    status::{Proxies, Stream, in_order},
};
use crate::{
    model::{Namespace, Revision, wire},
    registry::command::Error,
    translate::ResourceType,
};

/// How many of those that lag are named.
const MAX_LAGGING: usize = 100;
/// A wait looks again at most this often: a look costs as much as there are proxies.
const PACE: Duration = Duration::from_millis(10);
/// How often the other replicas are asked again.
const OTHERS_PACE: Duration = Duration::from_millis(100);
/// All looks of all waits together take at most a fifth of one core's time.
const SHARE: u32 = 4;
/// Calls that wait at a time; more are refused.
const MAX_WAITING: usize = 1000;
/// What was ACKed is in use after this: Envoy hands it to its workers after the ACK.
const APPLIED_AFTER: Duration = Duration::from_millis(250);

/// What the other replicas of Convoy say of their proxies.
#[derive(Clone, Debug)]
pub struct Others<T> {
    pub said: Vec<T>,
    /// Those that could not be asked.
    pub unknown: Vec<String>,
}

impl<T> Default for Others<T> {
    fn default() -> Self {
        Self { said: Vec::new(), unknown: Vec::new() }
    }
}

/// Looks at all proxies of this replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Survey {
    pub cache: Arc<Cache>,
    pub proxies: Arc<Proxies>,
    /// A wait ends when Convoy stops.
    pub stopping: watch::Receiver<bool>,
    waiting: Arc<Semaphore>,
    /// Who waits looks when it is its turn.
    turns: Arc<Semaphore>,
}

impl Survey {
    pub fn new(cache: Arc<Cache>, proxies: Arc<Proxies>, stopping: watch::Receiver<bool>) -> Self {
        let (waiting, turns) = (Arc::new(Semaphore::new(MAX_WAITING)), Arc::new(Semaphore::new(1)));
        Self { cache, proxies, stopping, waiting, turns }
    }

    /// A place for a call that waits; it is given back when dropped.
    pub fn place(&self) -> Result<Place<'_>, Error> {
        let place = self.waiting.try_acquire();
        place.map(Place).map_err(|_| Error::LimitReached { what: "calls that wait".into(), limit: MAX_WAITING })
    }

    /// Up to which revision every change has been told to those whom it concerns.
    pub fn told(&self) -> Revision {
        *self.cache.told().borrow()
    }

    /// Who has everything up to a revision, now.
    pub fn convergence(&self, revision: Revision, namespace: Option<&Namespace>) -> proto::Convergence {
        // It is read before the streams: what is told later may not be in them yet.
        let told = self.told();
        let mut streams = self.proxies.streams();
        streams.retain(|stream| namespace.is_none_or(|wanted| stream.client.view.namespace == *wanted));
        let lags = |stream: &&Arc<Stream>| stream.look(|standing| standing.synced(told)) < Some(revision);
        let mut lagging: Vec<Arc<Stream>> = streams.iter().filter(lags).cloned().collect();
        in_order(&mut lagging);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        proto::Convergence {
            revision: revision.0,
            told: told.0,
            complete: told >= revision && lagging.is_empty(),
            proxies: count(streams.len()),
            converged: count(streams.len() - lagging.len()),
            lagging: lagging.iter().take(MAX_LAGGING).map(|stream| laggard(stream.describe(told))).collect(),
            unknown_replicas: Vec::new(),
        }
    }

    /// The same, of all replicas.
    pub fn convergence_of_all(
        &self,
        revision: Revision,
        namespace: Option<&Namespace>,
        others: Others<proto::Convergence>,
    ) -> proto::Convergence {
        let mut all = self.convergence(revision, namespace);
        for of in others.said {
            all.told = all.told.min(of.told);
            all.complete &= of.complete;
            all.proxies += of.proxies;
            all.converged += of.converged;
            all.lagging.extend(of.lagging);
        }
        all.complete &= others.unknown.is_empty();
        all.unknown_replicas = others.unknown;
        all.lagging.sort_by(|a, b| a.node.cmp(&b.node));
        all.lagging.truncate(MAX_LAGGING);
        all
    }

    /// The same, when all have it, or at the deadline.
    pub async fn converged(
        &self,
        revision: Revision,
        namespace: Option<&Namespace>,
        deadline: Instant,
        _place: Place<'_>,
        others: impl Fn() -> BoxFuture<'static, Others<proto::Convergence>>,
    ) -> proto::Convergence {
        self.wait(deadline, others, |others| {
            let seen = self.convergence_of_all(revision, namespace, others);
            (seen.complete, seen)
        })
        .await
    }

    /// Waits for the drain barrier: no proxy picks an instance of these clusters any more that left them at a revision.
    pub async fn barrier(
        &self,
        clusters: &[Arc<str>],
        revision: Revision,
        deadline: Instant,
        _place: Place<'_>,
        others: impl Fn() -> BoxFuture<'static, Others<Follower>>,
    ) -> proto::Barrier {
        let started = Instant::now();
        let judged = self.wait(deadline, others, |others| {
            let followers = self.followers(clusters, revision);
            let judged = judge(followers.into_iter().chain(others.said).collect(), others.unknown);
            (judged.outcome() == BarrierOutcome::Complete, judged)
        });
        let judged = judged.await;
        if judged.outcome() == BarrierOutcome::Complete {
            tokio::time::sleep(APPLIED_AFTER).await;
        }
        proto::Barrier { waited: Some(wire::duration(started.elapsed())), ..judged }
    }

    /// How this replica's proxies stand to the endpoints of some clusters.
    pub fn followers(&self, clusters: &[Arc<str>], revision: Revision) -> Vec<Follower> {
        let told = self.told();
        let connected = self.proxies.streams();
        let departed = self.proxies.departed();
        let connected = connected.iter().filter_map(|stream| follower(stream, clusters, revision, told));
        connected.chain(departed.iter().filter_map(|departed| former(departed, clusters, revision))).collect()
    }

    /// Looks until what is seen is what is waited for, the time is over, or Convoy stops; gives what was seen last.
    async fn wait<O, T>(
        &self,
        deadline: Instant,
        others: impl Fn() -> BoxFuture<'static, Others<O>>,
        look: impl Fn(Others<O>) -> (bool, T),
    ) -> T {
        let (mut told, mut stopping) = (self.cache.told(), self.stopping.clone());
        loop {
            told.mark_unchanged();
            let mut changed = pin!(self.proxies.changed());
            changed.as_mut().enable();
            let others = others().await;
            // Nothing tells here what has changed there.
            let again = match others.said.is_empty() && others.unknown.is_empty() {
                true => deadline,
                false => deadline.min(Instant::now() + OTHERS_PACE),
            };
            // At the deadline there is a last look, whosever turn it is.
            let turn = timeout_at(deadline, self.turns.acquire()).await;
            let begun = Instant::now();
            let (done, seen) = look(others);
            let now = Instant::now();
            if done || now >= deadline || *stopping.borrow() {
                return seen;
            }
            sleep_until(deadline.min(now + (now - begun) * SHARE)).await;
            drop(turn);
            tokio::select! {
                // The cache outlives those who look at it; the sender's end is a stop.
                _ = told.changed() => {}
                () = changed => {}
                _ = stopping.wait_for(|stopping| *stopping) => return seen,
                () = sleep_until(again) => {}
            }
            sleep_until(deadline.min(now + PACE)).await;
        }
    }
}

/// See [`Survey::place`].
#[derive(Debug)]
pub struct Place<'a>(#[expect(dead_code, reason = "it is held, and dropped")] SemaphorePermit<'a>);

/// What keeps it from having everything.
fn laggard(proxy: proto::Proxy) -> proto::Laggard {
    let mut types = proxy.types;
    types.retain(|of| of.sync() != proto::SyncState::Synced);
    let proto::Proxy { node, namespace, address, connected_at, .. } = proxy;
    proto::Laggard { node, namespace, address, connected_at, types }
}

/// A connected stream, if it follows any endpoints.
fn follower(stream: &Stream, clusters: &[Arc<str>], revision: Revision, told: Revision) -> Option<Follower> {
    const KIND: ResourceType = ResourceType::Endpoint;
    let state = stream.look(|standing| {
        standing.session.names(KIND).filter(|names| !names.is_empty())?;
        let concerned: Vec<&Arc<str>> =
            clusters.iter().filter(|name| standing.session.is_subscribed(KIND, name)).collect();
        if concerned.is_empty() {
            return Some(State::Elsewhere);
        }
        let lags: Vec<Lag> = concerned.iter().filter_map(|name| standing.lags(KIND, name, revision)).collect();
        Some(match told < revision || lags.contains(&Lag::Pending) {
            true => State::Lagging,
            false if lags.is_empty() => State::Acked,
            false => State::Rejected(standing.refusal(KIND)),
        })
    })?;
    let client = &stream.client;
    let (node, namespace) = (client.id.clone(), client.view.namespace.to_string());
    Some(Follower { node, namespace, address: stream.address(), state })
}

/// One that has left, if it followed one of the clusters.
fn former(departed: &Departed, clusters: &[Arc<str>], revision: Revision) -> Option<Follower> {
    let followed: BTreeSet<&Arc<str>> = clusters.iter().filter(|name| departed.endpoints.contains(name)).collect();
    if followed.is_empty() {
        return None;
    }
    let acked = !departed.lags(followed.into_iter(), revision);
    let proto::Proxy { node, namespace, address, left_at, .. } = departed.proxy.clone();
    Some(Follower { node, namespace, address, state: State::Left { at: left_at.unwrap_or_default(), acked } })
}
