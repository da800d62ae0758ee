//! One replica of Convoy: registry, cache and fan-out, and what it says to the others.

use std::{sync::Arc, time::Duration};

use convoy::{
    model::{Limits, ReplicaId},
    peers::Peers,
    registry::{Registry, Settings, brake::BrakeConfig},
    telemetry::Metrics,
    xds::{cache::Cache, convergence::Survey, fanout, protocol::Readiness, status::Proxies},
};
use futures_util::future::BoxFuture;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    LONGEST, TOLD,
    network::{Network, Peer},
};
use crate::{
    etcd::{Etcd, KEY_TTL},
    gate::Gate,
    wall::Wall,
};

pub struct Node {
    pub id: ReplicaId,
    pub registry: Registry,
    pub cache: Arc<Cache>,
    pub proxies: Arc<Proxies>,
    pub survey: Survey,
    pub gate: Gate,
    /// Of the machine on which it runs.
    pub wall: Wall,
    /// Since when the store reaches it, and it runs.
    pub whole_since: Option<Instant>,
    /// Since when not.
    away_since: Option<Instant>,
    /// It was gone from the mesh for those that are not, as far as this.
    out_until: Option<Instant>,
    reaches: bool,
    pub started: Instant,
    tasks: Vec<JoinHandle<()>>,
    _stopping: watch::Sender<bool>,
}

impl Node {
    pub fn start(etcd: &Arc<Etcd>, network: &Network, wall: &Wall, seed: u64) -> Self {
        wall.on(|| Self::begin(etcd, network, wall.clone(), seed))
    }

    fn begin(etcd: &Arc<Etcd>, network: &Network, wall: Wall, seed: u64) -> Self {
        let (member, opened, telling) = etcd.open();
        let (id, gate) = (opened.replica, Gate::default());
        let settings =
            Settings { limits: Limits::default(), brake: BrakeConfig { longest: LONGEST, ..BrakeConfig::default() } };
        let random = StdRng::seed_from_u64(seed ^ id.0);
        let (registry, parts) =
            Registry::prepare(Arc::new(member), opened, settings, Arc::new(Metrics::default()), random);
        let peers = Peers::over(registry.clone(), Arc::new(network.wire(id)));
        let cache = Arc::new(Cache::new(registry.clone(), Readiness::Ready));
        let (proxies, (stopping, stops)) = (Arc::<Proxies>::default(), watch::channel(false));
        let survey = Survey::new(cache.clone(), proxies.clone(), stops);
        network.join(id, Peer { gate: gate.clone(), peers: peers.clone(), survey: survey.clone() });
        let running: [BoxFuture<'static, ()>; 5] =
            [Box::pin(telling), parts.task, parts.timers, Box::pin(peers.run()), Box::pin(fanout::run(cache.clone()))];
        let on_its_machine = |running| wall.clone().around(Box::pin(gate.clone().behind(running)));
        let tasks = running.into_iter().map(|running| tokio::spawn(on_its_machine(running))).collect();
        let (now, whole_since) = (Instant::now(), Some(Instant::now()));
        Self {
            id,
            registry,
            cache,
            proxies,
            survey,
            gate,
            wall,
            whole_since,
            away_since: None,
            out_until: None,
            reaches: true,
            started: now,
            tasks,
            _stopping: stopping,
        }
    }

    pub fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Whether the store reaches it, or no longer.
    pub fn reach(&mut self, etcd: &Etcd, reaches: bool) {
        self.reaches = reaches;
        etcd.reach(self.id, reaches);
        self.note();
    }

    /// Stops the process, or lets it go on.
    pub fn run(&mut self, etcd: &Etcd, runs: bool) {
        match runs {
            true => self.gate.open(),
            false => self.gate.shut(),
        }
        etcd.sleeps(self.id, !runs);
        self.note();
    }

    pub fn runs(&self) -> bool {
        self.gate.is_open()
    }

    /// The others may have taken it for gone at some time since.
    pub fn was_out(&self, since: Instant) -> bool {
        self.is_out() || self.out_until.is_some_and(|until| until > since)
    }

    fn is_out(&self) -> bool {
        self.away_since.is_some_and(|since| since.elapsed() + TOLD > KEY_TTL)
    }

    fn note(&mut self) {
        let (is_whole, now) = (self.reaches && self.runs(), Instant::now());
        if self.is_out() {
            self.out_until = Some(now + TOLD);
        }
        self.whole_since = is_whole.then(|| self.whole_since.unwrap_or(now));
        self.away_since = (!is_whole).then(|| self.away_since.unwrap_or(now));
    }

    /// The store has reached it for so long that it knows what there is.
    pub fn is_up_to_date(&self, told: Duration) -> bool {
        let now = Instant::now();
        self.whole_since.is_some_and(|since| now > since + told) && now > self.started + told
    }
}
