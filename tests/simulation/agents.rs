//! Agents that heartbeat, crash, come back, are cut off and return, while the wall clock is stepped, on one thread and paused
//! time, each history from a seed. What must hold at every moment:
//!
//! - who is alive, ready and heard is there, healthy, in its incarnation;
//! - whoever deregistered does not come back in the same incarnation, and incarnations only grow;
//! - everybody who is a suspect is kept by the brake and shown, and the brake keeps nobody else;
//! - who has fallen silent is gone after its TTL, the longest time of the brake and a little: the brake always ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use convoy::{
    model::{
        BrakeScope, Incarnation, InstanceKey, InstanceSpec, LeaseId, Limits, Locality, Port, PortName, Protocol,
        Verdict, parse,
    },
    registry::{
        Heard, Registry, Settings,
        brake::{BrakeConfig, Release},
    },
    storage::memory::MemoryStore,
    telemetry::Metrics,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use crate::{trace::state, wall};

const TTL: Duration = Duration::from_secs(3);
/// Longer than two TTLs.
const LONGEST: Duration = Duration::from_secs(8);
/// Writes, timers and the second between two looks at those that are kept.
const MARGIN: Duration = Duration::from_millis(1_500);
/// After this a heartbeat that was answered has been made something of.
const SOON: Duration = Duration::from_millis(200);
/// Of each service so many instances.
const SERVICES: [(&str, usize); 4] = [("one", 1), ("two", 2), ("few", 5), ("many", 14)];

struct Agent {
    key: InstanceKey,
    host: u8,
    incarnation: u64,
    lease: Option<LeaseId>,
    running: bool,
    /// Until then nothing comes through.
    cut_off: Option<Instant>,
    /// Since when every heartbeat has been answered; none if the last was not.
    heard_since: Option<Instant>,
    last_heard: Instant,
    next: Instant,
    /// The last incarnation that deregistered.
    fenced: u64,
}

pub struct Fleet {
    random: StdRng,
    registry: Registry,
    agents: Vec<Agent>,
    /// The highest incarnation seen under each key.
    seen: BTreeMap<InstanceKey, u64>,
}

impl Fleet {
    pub async fn run(seed: u64, steps: usize) {
        let (store, opened) = MemoryStore::open("store".into());
        let brake = BrakeConfig { longest: LONGEST, ..BrakeConfig::default() };
        let settings = Settings { limits: Limits::default(), brake };
        let (registry, running) = Registry::start(Arc::new(store), opened, settings, Arc::new(Metrics::default()));
        let now = Instant::now();
        let of_service = |(service, count): (&str, usize)| {
            let key = move |number: usize| parse::instance_key("", service, &number.to_string()).expect("a key");
            (0..count).map(key).collect::<Vec<_>>()
        };
        let agent = |(host, key): (usize, InstanceKey)| Agent {
            key,
            host: host as u8 + 1,
            incarnation: 1,
            lease: None,
            running: true,
            cut_off: None,
            heard_since: None,
            last_heard: now,
            next: now,
            fenced: 0,
        };
        let agents = SERVICES.into_iter().flat_map(of_service).enumerate().map(agent).collect();
        let mut fleet = Self { random: StdRng::seed_from_u64(seed), registry, agents, seen: BTreeMap::new() };
        for _ in 0..steps {
            fleet.happen().await;
            fleet.pass().await;
            fleet.check();
            state("what is registered", || fleet.registry.snapshot());
        }
        fleet.settle().await;
        running.abort();
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.agents.len())
    }

    async fn happen(&mut self) {
        let now = Instant::now();
        match self.random.random_range(0..30) {
            0..3 => {
                let at = self.any();
                self.agents[at].running = false;
            }
            3..6 => {
                let at = self.any();
                let agent = &mut self.agents[at];
                if !agent.running {
                    (agent.running, agent.incarnation) = (true, agent.incarnation + 1);
                    (agent.lease, agent.heard_since, agent.next) = (None, None, now);
                }
            }
            6 => {
                // A part of the network, or all of it.
                let share = [0.1, 0.5, 1.0][self.random.random_range(0..3)];
                let until = now + Duration::from_millis(self.random.random_range(500..20_000));
                for at in 0..self.agents.len() {
                    if self.random.random_bool(share) {
                        self.agents[at].cut_off = Some(until);
                    }
                }
            }
            7 => {
                let at = self.any();
                let agent = &mut self.agents[at];
                if agent.running && agent.cut_off.is_none() {
                    let incarnation = Some(Incarnation(agent.incarnation));
                    if self.registry.deregister(agent.key.clone(), incarnation).await.is_ok() {
                        (agent.running, agent.fenced) = (false, agent.incarnation);
                    }
                }
            }
            8 => {
                let scopes = [BrakeScope::Service, BrakeScope::Intake];
                let release = Release::Scope(scopes[self.random.random_range(0..2)]);
                self.registry.release_brake(release).await.expect("released");
            }
            9 | 10 => wall::step(&mut self.random),
            _ => {}
        }
    }

    /// Time goes by, and agents do what is due.
    async fn pass(&mut self) {
        let until = Instant::now() + Duration::from_millis(self.random.random_range(20..700));
        while Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
            for at in 0..self.agents.len() {
                self.act(at).await;
            }
        }
    }

    async fn act(&mut self, at: usize) {
        let now = Instant::now();
        let agent = &mut self.agents[at];
        if agent.cut_off.is_some_and(|until| until <= now) {
            (agent.cut_off, agent.next) = (None, now);
        }
        if !agent.running || agent.next > now {
            return;
        }
        if agent.cut_off.is_some() {
            agent.heard_since = None;
            agent.next = now + TTL / 3;
            return;
        }
        let kept = match agent.lease {
            Some(lease) => match self.registry.heartbeat(lease, None, None) {
                Heard::Kept(held) => Some(held),
                Heard::RegisterAgain | Heard::Retry => None,
            },
            None => None,
        };
        let held = match kept {
            Some(held) => held,
            None => {
                let instances = vec![(agent.key.clone(), spec(agent.host))];
                let incarnation = Some(Incarnation(agent.incarnation));
                let registered = self.registry.register(None, Some(TTL), incarnation, instances).await;
                registered.expect("nobody refuses a newer incarnation, or one that expired").1
            }
        };
        let agent = &mut self.agents[at];
        agent.lease = Some(held.lease);
        agent.heard_since.get_or_insert(now);
        (agent.last_heard, agent.next) = (now, now + held.heartbeat_interval);
    }

    fn check(&mut self) {
        let (now, snapshot) = (Instant::now(), self.registry.snapshot());
        let mut suspects = 0;
        for agent in &self.agents {
            let instance = snapshot.instance(&agent.key).map(|instance| &instance.value);
            let verdict = instance.map(|instance| instance.verdict());
            suspects += usize::from(verdict == Some(Verdict::Suspect));
            let is_heard = agent.heard_since.is_some_and(|since| now > since + SOON);
            if agent.running && agent.cut_off.is_none() && is_heard {
                let there = instance.map(|instance| instance.incarnation.0);
                assert_eq!(there, Some(agent.incarnation), "{} is alive and heard", agent.key);
                assert_eq!(verdict, Some(Verdict::Healthy), "{} is alive and heard", agent.key);
            }
            if now > agent.last_heard + TTL + LONGEST + MARGIN {
                assert!(instance.is_none(), "{} has long been silent", agent.key);
            }
            if let Some(instance) = instance {
                let incarnation = instance.incarnation.0;
                assert!(incarnation > agent.fenced, "{} was deregistered", agent.key);
                let highest = self.seen.entry(agent.key.clone()).or_insert(incarnation);
                assert!(*highest <= incarnation, "{} goes back", agent.key);
                *highest = incarnation;
                assert_eq!(
                    instance.lapsed.is_some(),
                    verdict == Some(Verdict::Suspect),
                    "a suspect is one that lapsed"
                );
            }
        }
        let braking = self.registry.braking();
        let kept: usize = braking.groups.iter().map(|group| group.leases).sum();
        assert_eq!(suspects, kept, "who is a suspect is kept, and nobody else: {braking:?}");
    }

    /// All networks are whole again, and nobody dies any more.
    async fn settle(&mut self) {
        for agent in &mut self.agents {
            agent.cut_off = None;
        }
        let end = Instant::now() + TTL + LONGEST + MARGIN + Duration::from_secs(1);
        while Instant::now() < end {
            self.pass().await;
            self.check();
        }
        assert!(self.registry.braking().groups.is_empty(), "the brake has ended");
        let snapshot = self.registry.snapshot();
        for agent in &self.agents {
            assert_eq!(snapshot.instance(&agent.key).is_some(), agent.running, "{}", agent.key);
        }
    }
}

pub fn spec(host: u8) -> Arc<InstanceSpec> {
    let name = PortName::parse("name", "http").expect("a label");
    let zone = if host.is_multiple_of(2) { "a" } else { "b" };
    Arc::new(InstanceSpec {
        address: [10, 0, 0, host].into(),
        ports: [Port { name, number: 80, protocol: Protocol::Http }].into(),
        weight: 100,
        ready: true,
        labels: Default::default(),
        capabilities: Arc::default(),
        locality: Arc::new(Locality { zone: zone.into(), ..Locality::default() }),
        sla: Arc::default(),
        description: "".into(),
        card: None,
    })
}
