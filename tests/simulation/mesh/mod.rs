//! Several replicas over one store, on one thread and paused time, each history from a seed: replicas crash and come back as
//! others, are stopped and go on, are cut off from the store and from each other (also one way only), the store is slow, the
//! wall clocks of the machines differ and are stepped; and agents, proxies and watchers go where they are heard. What must hold:
//!
//! - who was heard by a replica that went on is there, in its incarnation, wherever the store reaches, and proxies have it
//!   all along, whichever replica tells them;
//! - what was answered is kept: who deregistered does not come back in its incarnation, and incarnations only grow;
//! - when a drain is said to be complete, no connected proxy sends there any more;
//! - what a watcher is told adds up, wherever it resumes;
//! - when all networks are whole again all replicas have what the store has, and proxies and watchers what the replicas
//!   have; every lease has an owner that is there, whoever is alive is there, and the dead are gone in bounded time.

mod agent;
mod network;
mod node;
mod proxy;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use convoy::{
    model::{Incarnation, InstanceKey, ReplicaId, ServiceName},
    registry::{Heard, command::Outcome, watch::Filter},
    storage::{Key, Record},
    xds::protocol::Dialect,
};
use convoy_client::proto::BarrierOutcome;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    agent::Agent,
    network::Network,
    node::Node,
    proxy::{Alive, Proxy},
};
use crate::{
    agents::spec,
    etcd::{Etcd, KEY_TTL},
    trace::{note, state},
    wall::Wall,
    watcher::Watcher,
};

const TTL: Duration = Duration::from_secs(6);
const LONGEST: Duration = Duration::from_secs(8);
const AGENTS: usize = 24;
const REPLICAS: usize = 3;
const PROXIES: usize = 6;
/// A heartbeat counts if whoever heard it goes on for so long: it has been passed on by then, or the lease adopted. Two waits
/// of a second for one that does not answer, each of which begins with the next 200 ms.
const PASSED_ON: Duration = Duration::from_millis(2_600);
/// A change is everywhere by then, also after a difference.
const TOLD: Duration = Duration::from_millis(500);
/// The key of a crashed replica, adoption with its time to fail over, the TTL, the brake, and a little.
const GONE: Duration = Duration::from_secs(10 + 2 + 10 + 6 + 12 + 8 + 5);

/// A call that a caller waits for, and no longer than that.
pub type Call<T> = JoinHandle<Option<T>>;

/// An instance that no connected proxy uses any more.
struct Drained {
    key: InstanceKey,
    address: IpAddr,
    incarnation: u64,
    complete: Instant,
}

pub struct Mesh {
    seed: u64,
    random: StdRng,
    etcd: Arc<Etcd>,
    network: Network,
    /// Of the machines on which replicas run.
    walls: Vec<Wall>,
    nodes: Vec<Option<Node>>,
    agents: Vec<Agent>,
    proxies: Vec<Proxy>,
    watchers: Vec<Watcher>,
    streams: u64,
    /// Whose instance leaves in which incarnation.
    leaving: Vec<(usize, u64, Call<bool>)>,
    draining: Vec<(usize, u64, Call<bool>)>,
    drained: Vec<Drained>,
    /// The highest incarnation seen under each key.
    seen: BTreeMap<InstanceKey, u64>,
}

impl Mesh {
    pub async fn run(seed: u64, steps: usize) {
        let (etcd, network) = (Etcd::new(seed ^ 2), Network::new(seed ^ 1));
        let keys = tokio::spawn(etcd.clone().expire_keys());
        let agents = (0..AGENTS).map(Agent::new).collect();
        let mut random = StdRng::seed_from_u64(seed);
        let walls: Vec<Wall> = (0..REPLICAS).map(|_| Wall::new(&mut random)).collect();
        let nodes: Vec<Node> = walls.iter().map(|wall| Node::start(&etcd, &network, wall, seed)).collect();
        let dialects = [Dialect::StateOfTheWorld, Dialect::Incremental];
        let connect = |at: usize| Proxy::connect(at as u64, &at.to_string(), dialects[at % 2], &nodes[at % REPLICAS]);
        let web = Filter { service: ServiceName::parse("service", "web").ok(), ..Filter::default() };
        let mut mesh = Self {
            seed,
            random,
            etcd,
            network,
            walls,
            proxies: (0..PROXIES).map(connect).collect(),
            nodes: nodes.into_iter().map(Some).collect(),
            agents,
            watchers: vec![Watcher::new(Filter::default()), Watcher::new(web)],
            streams: PROXIES as u64,
            leaving: Vec::new(),
            draining: Vec::new(),
            drained: Vec::new(),
            seen: BTreeMap::new(),
        };
        for _ in 0..steps {
            mesh.happen();
            let time = Duration::from_millis(mesh.random.random_range(20..900));
            mesh.pass(time).await;
            mesh.tell();
        }
        mesh.settle().await;
        keys.abort();
        mesh.nodes.drain(..).flatten().for_each(Node::end);
    }

    fn happen(&mut self) {
        let (at, of) = (self.random.random_range(0..AGENTS), self.random.random_range(0..REPLICAS));
        let what = self.random.random_range(0..60);
        let id = self.nodes[of].as_ref().map(|node| node.id.0);
        note(|| format!("event {what}, agent {}, replica {id:?}", self.agents[at].key));
        match what {
            0..3 => self.agents[at].running = false,
            3..7 if !self.agents[at].running => self.agents[at].start_again(),
            7 => self.deregister(at, of),
            8..10 => self.crash(of),
            10..14 if self.nodes[of].is_none() => self.start(of),
            14..16 => self.reach(of, false),
            16..20 => self.reach(of, true),
            20..23 => {
                let other = self.random.random_range(0..REPLICAS);
                if let (Some(from), Some(to)) = (&self.nodes[of], &self.nodes[other]) {
                    self.network.cut(from.id, to.id);
                }
            }
            23..26 => self.network.mend(),
            26..29 => self.agents[at].at = of,
            29..31 => self.go_on(of, false),
            31..35 => self.go_on(of, true),
            35..38 => self.drain(at, of),
            38 => self.etcd.slow_down(true),
            39..42 => self.etcd.slow_down(false),
            42..44 => self.proxies[at % PROXIES].asleep = true,
            44..47 => self.proxies.iter_mut().for_each(|proxy| proxy.asleep = false),
            47..50 => self.move_proxy(at % PROXIES),
            50..53 => self.watchers[at % 2].cut_off(),
            53..56 => Wall::step(&self.walls[of..=of], &mut self.random),
            56 => Wall::step(&self.walls, &mut self.random),
            _ => {}
        }
    }

    fn deregister(&mut self, at: usize, of: usize) {
        let Some(node) = self.nodes[of].as_ref().filter(|node| node.runs() && self.agents[at].running) else { return };
        let (key, incarnation) = (self.agents[at].key.clone(), self.agents[at].incarnation);
        let registry = node.registry.clone();
        let said = async move { registry.deregister(key, Some(Incarnation(incarnation))).await.is_ok() };
        // What is not answered may have happened: then its agent is told, and comes as another.
        self.leaving.push((at, incarnation, call(said)));
        let agent = &mut self.agents[at];
        (agent.running, agent.leaves, agent.heard) = (false, false, None);
    }

    /// Its agent leaves when nobody uses it any more, or after a time.
    fn drain(&mut self, at: usize, of: usize) {
        let Some(node) = self.nodes[of].as_ref().filter(|node| node.runs() && self.agents[at].running) else { return };
        let agent = &mut self.agents[at];
        // Of an incarnation that nobody knows there is nothing to drain.
        if agent.drains || agent.registering.is_some() || agent.lease.is_none() {
            return;
        }
        (agent.drains, agent.heard) = (true, None);
        let (key, incarnation, clusters) =
            (agent.key.clone(), agent.incarnation, vec![Arc::<str>::from(agent.key.service.name.as_str())]);
        let (registry, survey, network, id) =
            (node.registry.clone(), node.survey.clone(), self.network.clone(), node.id);
        let said = async move {
            let drained = registry.drain(key, Some(Incarnation(incarnation)), Some(Duration::from_secs(60))).await;
            let Ok(Outcome { revision, .. }) = drained else { return false };
            let deadline = Instant::now() + Duration::from_secs(5);
            let others = || {
                let (network, registry, clusters) = (network.clone(), registry.clone(), clusters.clone());
                let others: futures_util::future::BoxFuture<'static, _> =
                    Box::pin(async move { network.followers(id, registry, clusters, revision).await });
                others
            };
            let place = survey.place().expect("few wait");
            let judged = survey.barrier(&clusters, revision, deadline, place, others).await;
            judged.outcome() == BarrierOutcome::Complete
        };
        let said = node.wall.clone().around(Box::pin(said));
        self.draining.push((at, incarnation, tokio::spawn(async move { Some(said.await) })));
    }

    /// What was asked for has been answered, or never will be.
    async fn hear_answers(&mut self) {
        for (at, incarnation, call) in std::mem::take(&mut self.leaving) {
            if !call.is_finished() {
                self.leaving.push((at, incarnation, call));
            } else if call.await.expect("nobody panics") == Some(true) {
                self.agents[at].fenced = self.agents[at].fenced.max(incarnation);
            }
        }
        for (at, incarnation, call) in std::mem::take(&mut self.draining) {
            if !call.is_finished() {
                self.draining.push((at, incarnation, call));
                continue;
            }
            let is_complete = call.await.expect("nobody panics") == Some(true);
            note(|| format!("the drain of {} is complete: {is_complete}", self.agents[at].key));
            let agent = &self.agents[at];
            if agent.incarnation == incarnation && agent.drains {
                if is_complete {
                    let (key, address) = (agent.key.clone(), agent.address());
                    self.drained.push(Drained { key, address, incarnation, complete: Instant::now() });
                }
                self.agents[at].leaves = true;
            }
        }
    }

    fn start(&mut self, of: usize) {
        self.nodes[of] = Some(Node::start(&self.etcd, &self.network, &self.walls[of], self.seed));
    }

    fn crash(&mut self, of: usize) {
        let Some(node) = self.nodes[of].take() else { return };
        self.network.leave(node.id);
        let says_so = node.runs() && self.random.random_bool(0.3);
        self.etcd.gone(node.id, says_so);
        node.end();
    }

    fn reach(&mut self, of: usize, reaches: bool) {
        if let Some(node) = &mut self.nodes[of] {
            node.reach(&self.etcd, reaches);
        }
    }

    fn go_on(&mut self, of: usize, runs: bool) {
        if let Some(node) = &mut self.nodes[of] {
            node.run(&self.etcd, runs);
        }
    }

    /// To any replica that answers.
    fn move_proxy(&mut self, proxy: usize) {
        let answers = |at: &usize| self.nodes[*at].as_ref().is_some_and(Node::runs);
        let there: Vec<usize> = (0..REPLICAS).filter(answers).collect();
        if there.is_empty() {
            return;
        }
        let at = there[self.random.random_range(0..there.len())];
        self.streams += 1;
        let node = self.nodes[at].as_ref().expect("it answers");
        note(|| format!("proxy {proxy} goes to {}, which is at {}", node.id.0, node.registry.snapshot().revision.0));
        self.proxies[proxy].reconnect(self.streams, node);
    }

    fn tell(&self) {
        for node in self.nodes.iter().flatten() {
            node.wall.on(|| state(format!("what {} knows", node.id), || node.registry.snapshot()));
        }
        state("what proxies have", || self.proxies.iter().map(Proxy::has).collect::<Vec<_>>());
        state("what watchers know", || self.watchers.iter().map(Watcher::known).collect::<Vec<_>>());
    }

    /// Time goes by, and everybody does what is due.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
            for at in 0..AGENTS {
                self.act(at).await;
            }
            self.hear_answers().await;
            for proxy in 0..PROXIES {
                let node = node_of(&self.nodes, self.proxies[proxy].at);
                if self.proxies[proxy].exchange(node) {
                    self.move_proxy(proxy);
                }
            }
            self.watch();
            self.check();
        }
    }

    fn watch(&mut self) {
        for watcher in &mut self.watchers {
            let node = watcher.at().and_then(|at| node_of(&self.nodes, at));
            match node.map(Node::runs) {
                Some(true) => watcher.read(&mut self.random),
                Some(false) => {}
                None => {
                    let at = self.random.random_range(0..REPLICAS);
                    watcher.cut_off();
                    if let Some(node) = self.nodes[at].as_ref().filter(|node| node.runs()) {
                        watcher.resume(node.id, &node.registry);
                    }
                }
            }
        }
    }

    async fn act(&mut self, at: usize) {
        let now = Instant::now();
        let agent = &mut self.agents[at];
        if let Some((by, call)) = agent.registering.take() {
            if !call.is_finished() {
                agent.registering = Some((by, call));
                return;
            }
            agent.registered(by, call.await.expect("nobody panics"));
        }
        if agent.leaves {
            let of = agent.at;
            agent.at = (of + 1) % REPLICAS;
            self.deregister(at, of);
            return;
        }
        if !agent.running || agent.next > now {
            return;
        }
        let Some(node) = self.nodes[agent.at].as_ref().filter(|node| node.runs()) else {
            // Who is gone is missed at once, who is stopped after a while.
            let patience = if self.nodes[agent.at].is_some() { 1_000 } else { 100 };
            (agent.at, agent.next) = ((agent.at + 1) % REPLICAS, now + Duration::from_millis(patience));
            return;
        };
        let (registry, by) = (node.registry.clone(), node.id);
        let heard = agent.lease.map(|lease| registry.heartbeat(lease, None, None));
        note(|| match heard {
            Some(Heard::Kept(held)) => {
                format!("{} is heard by {}{}", agent.key, by.0, if held.elsewhere { ", sent on" } else { "" })
            }
            _ => format!("{} registers at {}: {heard:?}", agent.key, by.0),
        });
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
            // It wanted to leave, and is gone.
            Some(Heard::RegisterAgain) if agent.drains => agent.running = false,
            None | Some(Heard::RegisterAgain) => {
                // A replica that comes back from an outage may not know it yet.
                let knows = node.whole_since.is_some_and(|since| now > since + TOLD);
                let is_lost = knows && heard.is_some() && agent.heard.is_some_and(|heard| now < heard + TTL / 2);
                assert!(!is_lost, "{} was heard, and is not known", agent.key);
                let instances = vec![(agent.key.clone(), spec(agent.host))];
                let incarnation = Some(Incarnation(agent.incarnation));
                let said = async move { registry.register(None, Some(TTL), incarnation, instances).await };
                agent.registering = Some((by, call(said)));
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
        self.agents.iter_mut().for_each(|agent| agent.look_back(went_on));
        let is_alive =
            |agent: &&Agent| agent.running && !agent.drains && agent.heard.is_some_and(|heard| now <= heard + TTL / 2);
        let alive = self.agents.iter().filter(is_alive);
        let alive: Vec<Alive<'_>> = alive
            .map(|agent| Alive { key: &agent.key, address: agent.address(), incarnation: agent.incarnation })
            .collect();
        for node in self.nodes.iter().flatten().filter(|node| node.runs() && node.is_up_to_date(TOLD)) {
            let snapshot = node.registry.snapshot();
            for Alive { key, incarnation, .. } in &alive {
                let there = snapshot.instance(key).map(|of| of.value.incarnation.0);
                assert!(there == Some(*incarnation), "{key} of {incarnation} was heard, and {} has {there:?}", node.id);
            }
        }
        for proxy in &mut self.proxies {
            proxy.check(node_of(&self.nodes, proxy.at), &alive);
        }
        self.check_drained();
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

    /// Nobody who is connected uses those that are drained.
    fn check_drained(&mut self) {
        let agents = &self.agents;
        let stays = |one: &Drained| {
            agents.iter().any(|agent| agent.key == one.key && agent.incarnation == one.incarnation && agent.drains)
        };
        self.drained.retain(stays);
        for one in &self.drained {
            for proxy in self.proxies.iter().filter(|proxy| !proxy.catches_up) {
                let Some(node) = node_of(&self.nodes, proxy.at).filter(|node| node.runs()) else { continue };
                let is_counted = !node.was_out(one.complete);
                let uses = proxy.uses(&one.key, one.address);
                assert!(!(is_counted && uses), "{} is drained, and a proxy of {} uses it", one.key, node.id);
            }
        }
    }

    /// All networks are whole again, and nobody dies any more.
    async fn settle(&mut self) {
        self.network.mend();
        self.etcd.slow_down(false);
        for of in 0..REPLICAS {
            if self.nodes[of].is_none() {
                self.start(of);
            }
            self.reach(of, true);
            self.go_on(of, true);
        }
        self.proxies.iter_mut().for_each(|proxy| proxy.asleep = false);
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
        self.proxies.iter().for_each(Proxy::check_view);
        self.watchers.iter().for_each(Watcher::check);
    }
}

/// One that is there.
fn node_of(nodes: &[Option<Node>], id: ReplicaId) -> Option<&Node> {
    nodes.iter().flatten().find(|node| node.id == id)
}

/// As a client waits for an answer.
pub fn call<T: Send + 'static>(said: impl Future<Output = T> + Send + 'static) -> Call<T> {
    tokio::spawn(async { timeout(Duration::from_secs(2), said).await.ok() })
}
