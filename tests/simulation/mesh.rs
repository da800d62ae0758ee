//! Several replicas over one store, on one thread and paused time, each history from a seed: replicas crash and come back as
//! others, are cut off from the store and from each other (also one way only), and agents go where they are heard. What
//! must hold:
//!
//! - who was heard by a replica that went on is there, in its incarnation, wherever the store reaches;
//! - what was answered is kept: who deregistered does not come back in its incarnation, and incarnations only grow;
//! - when all networks are whole again all replicas have what the store has, every lease has an owner that is there, whoever
//!   is alive is there, and the dead are gone in bounded time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use convoy::{
    model::{Incarnation, InstanceKey, LeaseId, Limits, Replica, ReplicaId, parse},
    peers::{
        Link, Peers,
        rpc::{TellRequest, TellResponse},
    },
    registry::{Heard, Registry, Settings, brake::BrakeConfig},
    storage::{Key, Record},
    telemetry::Metrics,
};
use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::Status;

use crate::{
    agents::spec,
    etcd::{Etcd, KEY_TTL},
};

const TTL: Duration = Duration::from_secs(6);
const LONGEST: Duration = Duration::from_secs(8);
const AGENTS: usize = 24;
const REPLICAS: usize = 3;
/// A heartbeat counts if whoever heard it goes on for so long: it has been passed on by then, or the lease adopted.
const PASSED_ON: Duration = Duration::from_millis(1_600);
/// A change is everywhere by then, also after a difference.
const TOLD: Duration = Duration::from_millis(500);
/// The key of a crashed replica, adoption with its time to fail over, the TTL, the brake, and a little.
const GONE: Duration = Duration::from_secs(10 + 2 + 10 + 6 + 12 + 8 + 5);

struct Node {
    id: ReplicaId,
    registry: Registry,
    /// Since when the store reaches it.
    whole_since: Option<Instant>,
    running: Instant,
    tasks: Vec<JoinHandle<()>>,
}

struct Agent {
    key: InstanceKey,
    host: u8,
    incarnation: u64,
    fenced: u64,
    lease: Option<LeaseId>,
    running: bool,
    at: usize,
    next: Instant,
    /// Heartbeats and registrations that were answered: when, by whom, and whether it was a write.
    beats: Vec<(Instant, ReplicaId, bool)>,
    /// The last one that was passed on, as far as its lease held until then.
    passed_on: Option<Instant>,
    /// The same, of one that came in time: its lease held long enough for it to be passed on.
    heard: Option<Instant>,
}

/// What is said between replicas.
struct Network {
    random: StdRng,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    peers: HashMap<ReplicaId, Peers>,
}

#[derive(Clone)]
struct Wire {
    from: ReplicaId,
    network: Arc<Mutex<Network>>,
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
        let wire = self.clone();
        Box::pin(async move {
            let pass = |from, to| {
                let mut network = wire.network.lock().expect("nobody panics with it");
                let delay = Duration::from_millis(network.random.random_range(1..60));
                let passes = !network.cut.contains(&(from, to)) && !network.random.random_bool(0.02);
                (delay, passes, network.peers.get(&to).cloned())
            };
            let (delay, passes, peer) = pass(wire.from, to);
            sleep(delay).await;
            // What is lost is lost in silence.
            let Some(peer) = peer.filter(|_| passes) else { return std::future::pending().await };
            let answer = peer.hear(request);
            let (delay, passes, _) = pass(to, wire.from);
            sleep(delay).await;
            if passes { answer } else { std::future::pending().await }
        })
    }
}

pub struct Mesh {
    random: StdRng,
    etcd: Arc<Etcd>,
    network: Arc<Mutex<Network>>,
    nodes: Vec<Option<Node>>,
    agents: Vec<Agent>,
    /// The highest incarnation seen under each key.
    seen: BTreeMap<InstanceKey, u64>,
}

impl Mesh {
    pub async fn run(seed: u64, steps: usize) {
        let network = Network { random: StdRng::seed_from_u64(seed ^ 1), cut: BTreeSet::new(), peers: HashMap::new() };
        let etcd = Etcd::new(seed ^ 2);
        let keys = tokio::spawn(etcd.clone().expire_keys());
        let now = Instant::now();
        let agent = |number: usize| Agent {
            key: parse::instance_key("", ["web", "api"][number % 2], &number.to_string()).expect("a key"),
            host: u8::try_from(number).expect("few") + 1,
            incarnation: 1,
            fenced: 0,
            lease: None,
            running: true,
            at: number % REPLICAS,
            next: now,
            beats: Vec::new(),
            passed_on: None,
            heard: None,
        };
        let (agents, network) = ((0..AGENTS).map(agent).collect(), Arc::new(Mutex::new(network)));
        let (random, nodes, seen) = (StdRng::seed_from_u64(seed), Vec::new(), BTreeMap::new());
        let mut mesh = Self { random, etcd, network, nodes, agents, seen };
        for _ in 0..REPLICAS {
            let node = mesh.start();
            mesh.nodes.push(Some(node));
        }
        for _ in 0..steps {
            mesh.happen().await;
            let time = Duration::from_millis(mesh.random.random_range(20..900));
            mesh.pass(time).await;
        }
        mesh.settle().await;
        keys.abort();
        mesh.nodes.drain(..).flatten().for_each(|node| node.tasks.iter().for_each(JoinHandle::abort));
    }

    fn start(&self) -> Node {
        let (member, opened, telling) = self.etcd.open();
        let id = opened.replica;
        let settings =
            Settings { limits: Limits::default(), brake: BrakeConfig { longest: LONGEST, ..BrakeConfig::default() } };
        let (registry, running) = Registry::start(Arc::new(member), opened, settings, Arc::new(Metrics::default()));
        let wire = Wire { from: id, network: self.network.clone() };
        let peers = Peers::over(registry.clone(), Arc::new(wire));
        self.network.lock().expect("nobody panics with it").peers.insert(id, peers.clone());
        let tasks = vec![telling, running, tokio::spawn(peers.run())];
        Node { id, registry, whole_since: Some(Instant::now()), running: Instant::now(), tasks }
    }

    async fn happen(&mut self) {
        let (at, of) = (self.random.random_range(0..AGENTS), self.random.random_range(0..REPLICAS));
        match self.random.random_range(0..40) {
            0..3 => self.agents[at].running = false,
            3..7 if !self.agents[at].running => {
                let agent = &mut self.agents[at];
                (agent.running, agent.incarnation, agent.lease) = (true, agent.incarnation + 1, None);
                (agent.heard, agent.passed_on, agent.next) = (None, None, Instant::now());
                agent.beats.clear();
            }
            7 => {
                let (key, incarnation) = (self.agents[at].key.clone(), self.agents[at].incarnation);
                if let Some(node) = &self.nodes[of]
                    && self.agents[at].running
                {
                    let registry = node.registry.clone();
                    let said = registry.deregister(key, Some(Incarnation(incarnation)));
                    // What is not answered may have happened: then its agent is told, and comes as another.
                    if let Ok(Ok(_)) = timeout(Duration::from_secs(2), said).await {
                        self.agents[at].fenced = incarnation;
                    }
                    (self.agents[at].running, self.agents[at].heard) = (false, None);
                }
            }
            8..10 => self.crash(of),
            10..14 if self.nodes[of].is_none() => {
                let node = self.start();
                self.nodes[of] = Some(node);
            }
            14..16 => self.reach(of, false),
            16..20 => self.reach(of, true),
            20..23 => {
                let other = self.random.random_range(0..REPLICAS);
                if let (Some(from), Some(to)) = (&self.nodes[of], &self.nodes[other]) {
                    self.network.lock().expect("nobody panics with it").cut.insert((from.id, to.id));
                }
            }
            23..26 => self.network.lock().expect("nobody panics with it").cut.clear(),
            26..29 => self.agents[at].at = of,
            _ => {}
        }
    }

    fn crash(&mut self, of: usize) {
        let Some(node) = self.nodes[of].take() else { return };
        node.tasks.iter().for_each(JoinHandle::abort);
        self.network.lock().expect("nobody panics with it").peers.remove(&node.id);
        let says_so = self.random.random_bool(0.3);
        self.etcd.gone(node.id, says_so);
    }

    fn reach(&mut self, of: usize, reaches: bool) {
        let Some(node) = &mut self.nodes[of] else { return };
        self.etcd.reach(node.id, reaches);
        node.whole_since = reaches.then(|| node.whole_since.unwrap_or_else(Instant::now));
    }

    /// Time goes by, and agents do what is due.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
            for at in 0..AGENTS {
                self.act(at).await;
            }
            self.check();
        }
    }

    async fn act(&mut self, at: usize) {
        let now = Instant::now();
        let agent = &mut self.agents[at];
        if !agent.running || agent.next > now {
            return;
        }
        let Some(node) = &self.nodes[agent.at] else {
            (agent.at, agent.next) = ((agent.at + 1) % REPLICAS, now + Duration::from_millis(100));
            return;
        };
        let (registry, by) = (node.registry.clone(), node.id);
        let heard = agent.lease.map(|lease| registry.heartbeat(lease, None, None));
        match heard {
            Some(Heard::Kept(held)) => {
                agent.next = now + held.heartbeat_interval;
                agent.beats.push((now, by, false));
                if held.elsewhere {
                    agent.at = (agent.at + 1) % REPLICAS;
                }
            }
            Some(Heard::Retry) => {
                (agent.at, agent.next) = ((agent.at + 1) % REPLICAS, now + Duration::from_millis(100));
            }
            None | Some(Heard::RegisterAgain) => {
                // A replica that comes back from an outage may not know it yet.
                let knows = node.whole_since.is_some_and(|since| now > since + TOLD);
                let is_lost = knows && heard.is_some() && agent.heard.is_some_and(|heard| now < heard + TTL / 2);
                assert!(!is_lost, "{} was heard, and is not known", agent.key);
                let instances = vec![(agent.key.clone(), spec(agent.host))];
                let said = registry.register(None, Some(TTL), Some(Incarnation(agent.incarnation)), instances);
                let registered = timeout(Duration::from_secs(2), said).await;
                let (now, agent) = (Instant::now(), &mut self.agents[at]);
                match registered {
                    Ok(Ok((_, held))) => {
                        (agent.lease, agent.next) = (Some(held.lease), now + held.heartbeat_interval);
                        agent.beats.push((now, by, true));
                    }
                    Ok(Err(convoy::registry::command::Error::Fenced { .. })) => {
                        // Its deregistration was not answered, and has happened.
                        agent.incarnation += 1;
                        agent.next = now;
                    }
                    _ => (agent.at, agent.next) = ((agent.at + 1) % REPLICAS, now + Duration::from_millis(200)),
                }
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let now = Instant::now();
        let went_on = |by: ReplicaId, since: Instant| {
            let node = self.nodes.iter().flatten().find(|node| node.id == by);
            node.is_some_and(|node| node.whole_since.is_some_and(|whole| whole <= since))
        };
        for agent in &mut self.agents {
            let (due, rest): (Vec<_>, Vec<_>) = agent.beats.drain(..).partition(|(at, ..)| now > *at + PASSED_ON);
            agent.beats = rest;
            for (at, _, is_write) in due.into_iter().filter(|(at, by, _)| went_on(*by, *at)) {
                let in_time = agent.passed_on.is_some_and(|before| at < before + (TTL - PASSED_ON));
                if in_time || is_write {
                    agent.heard = Some(at);
                }
                agent.passed_on = Some(at);
            }
            if !agent.running || agent.heard.is_none_or(|heard| now > heard + TTL / 2) {
                continue;
            }
            for node in self.nodes.iter().flatten() {
                let settled = node.whole_since.is_some_and(|since| now > since + TOLD) && now > node.running + TOLD;
                let there = node.registry.snapshot().instance(&agent.key).map(|of| of.value.incarnation.0);
                assert!(
                    !settled || there == Some(agent.incarnation),
                    "{} of {} was heard, and {} has {there:?}",
                    agent.key,
                    agent.incarnation,
                    node.id
                );
            }
        }
        for (key, (_, record)) in self.etcd.holds() {
            let (Key::Instance(key), Record::Instance(instance)) = (key, record) else { continue };
            let incarnation = instance.incarnation.0;
            let agent = self.agents.iter().find(|agent| agent.key == key).expect("one of them");
            assert!(incarnation > agent.fenced, "{key} was deregistered");
            let highest = self.seen.entry(key.clone()).or_insert(incarnation);
            assert!(*highest <= incarnation, "{key} goes back");
            *highest = incarnation;
        }
    }

    /// All networks are whole again, and nobody dies any more.
    async fn settle(&mut self) {
        self.network.lock().expect("nobody panics with it").cut.clear();
        for of in 0..REPLICAS {
            if self.nodes[of].is_none() {
                let node = self.start();
                self.nodes[of] = Some(node);
            }
            self.reach(of, true);
        }
        self.pass(GONE + KEY_TTL).await;
        let holds = self.etcd.holds();
        let here: BTreeSet<ReplicaId> = self.nodes.iter().flatten().map(|node| node.id).collect();
        for (key, (_, record)) in &holds {
            if let Record::Lease(lease) = record {
                assert!(here.contains(&lease.owner), "{key:?} is {}'s, which is not there", lease.owner);
            }
        }
        for node in self.nodes.iter().flatten() {
            let snapshot = node.registry.snapshot();
            assert_eq!(snapshot.replicas.keys().copied().collect::<BTreeSet<_>>(), here);
            for agent in &self.agents {
                let there = snapshot.instance(&agent.key).map(|instance| instance.value.incarnation.0);
                assert_eq!(there, agent.running.then_some(agent.incarnation), "{} at {}", agent.key, node.id);
                let stored = holds.get(&Key::Instance(agent.key.clone())).map(|(_, record)| record);
                let of_store = stored.and_then(|record| match record {
                    Record::Instance(instance) => Some(instance.clone()),
                    _ => None,
                });
                assert_eq!(snapshot.instance(&agent.key).map(|of| of.value.clone()), of_store);
            }
            assert!(node.registry.braking().groups.is_empty(), "the brake has ended");
        }
    }
}
