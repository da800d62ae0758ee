//! What is said between replicas: delayed, lost, said twice, and nothing where the wire is cut, which it may be one way only.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use convoy::{
    model::{Replica, ReplicaId, Revision},
    peers::{
        Link, Peers,
        rpc::{TellRequest, TellResponse},
    },
    registry::Registry,
    xds::{
        barrier::Follower,
        convergence::{Others, Survey},
    },
};
use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::gate::Gate;

/// How long another replica is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A replica, as the others reach it.
#[derive(Clone)]
pub struct Peer {
    pub gate: Gate,
    pub peers: Peers,
    pub survey: Survey,
}

#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    random: StdRng,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    peers: HashMap<ReplicaId, Peer>,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(State { random, cut: BTreeSet::new(), peers: HashMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    pub fn join(&self, id: ReplicaId, peer: Peer) {
        self.lock().peers.insert(id, peer);
    }

    pub fn leave(&self, id: ReplicaId) {
        self.lock().peers.remove(&id);
    }

    pub fn cut(&self, from: ReplicaId, to: ReplicaId) {
        self.lock().cut.insert((from, to));
    }

    pub fn mend(&self) {
        self.lock().cut.clear();
    }

    pub fn wire(&self, from: ReplicaId) -> Wire {
        Wire { from, network: self.clone() }
    }

    /// One message on its way; nobody if it is lost.
    async fn pass(&self, from: ReplicaId, to: ReplicaId) -> Option<Peer> {
        let (delay, passes) = {
            let mut state = self.lock();
            let delay = Duration::from_millis(state.random.random_range(1..60));
            (delay, !state.cut.contains(&(from, to)) && !state.random.random_bool(0.02))
        };
        sleep(delay).await;
        let peer = self.lock().peers.get(&to).cloned().filter(|_| passes)?;
        peer.gate.opened().await;
        Some(peer)
    }

    /// What the other replicas say of their proxies; those that do not answer are named.
    pub async fn followers(
        &self,
        asking: ReplicaId,
        registry: Registry,
        clusters: Vec<Arc<str>>,
        revision: Revision,
    ) -> Others<Follower> {
        let mut others = Others::default();
        let replicas: Vec<ReplicaId> = registry.snapshot().replicas.keys().copied().collect();
        for id in replicas.into_iter().filter(|id| *id != asking) {
            let asked = async {
                let there = self.pass(asking, id).await?;
                let said = there.survey.followers(&clusters, revision);
                self.pass(id, asking).await.map(|_| said)
            };
            match timeout(PATIENCE, asked).await {
                Ok(Some(said)) => others.said.extend(said),
                _ => others.unknown.push(id.to_string()),
            }
        }
        others
    }
}

/// A replica's way to the others.
#[derive(Clone)]
pub struct Wire {
    from: ReplicaId,
    network: Network,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "from {}", self.from)
    }
}

impl Link for Wire {
    fn tell(
        &self,
        to: ReplicaId,
        _: &Replica,
        request: TellRequest,
    ) -> BoxFuture<'static, Result<TellResponse, Status>> {
        let Self { from, network } = self.clone();
        Box::pin(async move {
            // What is lost is lost in silence.
            let Some(there) = network.pass(from, to).await else { return std::future::pending().await };
            let twice = network.lock().random.random_bool(0.02);
            let said = twice.then(|| request.clone());
            let answer = there.peers.hear(request);
            let answer = said.map_or(answer, |again| there.peers.hear(again));
            match network.pass(to, from).await {
                Some(_) => answer,
                None => std::future::pending().await,
            }
        })
    }
}
