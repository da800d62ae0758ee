//! One Convoy with its file, on one thread and paused time, each history from a seed: it is killed and started again, stopped
//! and goes on, its disk is slow or full, its wall clock is stepped; backups are made of it, and it begins with one of them again,
//! also with one that it has begun with before. Agents come, change what they say, leave, die, and are cut off; proxies and
//! watchers come back to it. What must hold:
//!
//! - what was acknowledged is there: after a crash at once, after a restore if it was acknowledged before the backup;
//! - who is alive is known as it is, after a restore as soon as it was heard; nobody is told that all is well who is not;
//! - a proxy that had it has it all along, also while a restored Convoy does not know of it yet;
//! - who deregistered does not come back in its incarnation, after a restore if that was before the backup; the silent are
//!   gone in bounded time, also those that a restore brought back;
//! - revisions never go back, and what a watcher is told adds up, wherever it resumes;
//! - at the end all have what the file has.

mod agent;
mod convoy;
mod disk;
mod proxy;

use std::{sync::Arc, time::Duration};

use ::convoy::{
    model::{Incarnation, InstanceKey, Revision, ServiceKey, ServiceName, ServicePatch, Share, parse},
    registry::{Heard, state::Snapshot, watch::Filter},
    storage::{Key, Record},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use self::{agent::Agent, convoy::Convoy, disk::Disk, proxy::Proxy};
use crate::{
    mesh::{Call, call},
    trace::{note, state},
    wall,
    watcher::Watcher,
};

const TTL: Duration = Duration::from_secs(3);
/// Longer than two TTLs.
const LONGEST: Duration = Duration::from_secs(8);
/// Enough for agents to be told, and to register again on a slow disk.
const SETTLE: Duration = Duration::from_secs(6);
/// Writes on a slow disk, whose answers may be lost, timers, and the second between two looks at those that are kept.
const MARGIN: Duration = Duration::from_secs(5);
const AGENTS: usize = 14;
const PROXIES: usize = 4;

/// What somebody writes down for the services, numbered: which was acknowledged last, and which was tried.
#[derive(Clone, Copy, Default)]
struct Configured {
    acknowledged: u64,
    tried: u64,
}

/// What is known of a moment.
#[derive(Clone)]
struct Memory {
    fenced: Vec<u64>,
    /// Incarnation and weight of those that stood.
    stood: Vec<Option<(u64, u16)>>,
    configured: Configured,
}

struct Backup {
    bytes: Vec<u8>,
    memory: Memory,
}

pub struct Alone {
    seed: u64,
    random: StdRng,
    disk: Arc<Disk>,
    convoy: Option<Convoy>,
    starts: u64,
    /// It stops before anybody has been heard.
    stalls: bool,
    agents: Vec<Agent>,
    proxies: Vec<Proxy>,
    watchers: Vec<Watcher>,
    streams: u64,
    /// Whose instance leaves in which incarnation.
    leaving: Vec<(usize, u64, Call<bool>)>,
    configuring: Option<(u64, Call<bool>)>,
    configured: Configured,
    saving: Option<(Memory, Call<Option<Vec<u8>>>)>,
    backup: Option<Backup>,
    /// The highest revision that anybody was told.
    highest: Revision,
}

impl Alone {
    pub async fn run(seed: u64, steps: usize) {
        let disk = Disk::new(seed ^ 1);
        let convoy = Convoy::start(&disk, 1, seed);
        let web = Filter { service: ServiceName::parse("service", "web").ok(), ..Filter::default() };
        let mut alone = Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            disk,
            proxies: (0..PROXIES).map(|at| Proxy::connect(at as u64, &convoy)).collect(),
            convoy: Some(convoy),
            starts: 1,
            stalls: false,
            agents: (0..AGENTS).map(Agent::new).collect(),
            watchers: vec![Watcher::new(Filter::default()), Watcher::new(web)],
            streams: PROXIES as u64,
            leaving: Vec::new(),
            configuring: None,
            configured: Configured::default(),
            saving: None,
            backup: None,
            highest: Revision::default(),
        };
        for _ in 0..steps {
            alone.hear_answers().await;
            alone.happen();
            let time = Duration::from_millis(alone.random.random_range(20..900));
            alone.pass(time).await;
            alone.tell();
        }
        alone.settle().await;
        alone.stop(true);
    }

    fn happen(&mut self) {
        let at = self.random.random_range(0..AGENTS);
        let what = self.random.random_range(0..67);
        note(|| format!("event {what}, agent {}", self.agents[at].key));
        match what {
            0..3 => self.agents[at].running = false,
            3..8 if !self.agents[at].running => self.agents[at].start_again(),
            8..10 => self.deregister(at),
            10..16 => self.change(at),
            16..18 => self.cut_off(),
            18..21 => self.stop(true),
            21 => self.stop(false),
            22..32 if self.convoy.is_none() => {
                self.start();
                self.stalls = what > 28;
            }
            32..34 => self.go_on(false),
            34..39 => self.go_on(true),
            39..42 => self.save(),
            42..45 => self.restore(),
            45 => self.disk.slow_down(true),
            46..49 => self.disk.slow_down(false),
            49 => self.proxies[at % PROXIES].asleep = true,
            50..53 => self.proxies.iter_mut().for_each(|proxy| proxy.asleep = false),
            53..55 => self.move_proxy(at % PROXIES),
            55..58 => self.watchers[at % 2].cut_off(),
            58..60 => wall::step(&mut self.random),
            60..62 => self.configure(),
            62 => self.weigh(at),
            63 => self.come_back(at),
            64 => self.disk.fill(true),
            65..67 => self.disk.fill(false),
            _ => {}
        }
    }

    fn running(&self) -> Option<&Convoy> {
        self.convoy.as_ref().filter(|convoy| convoy.runs())
    }

    fn start(&mut self) {
        self.starts += 1;
        let convoy = Convoy::start(&self.disk, self.starts, self.seed);
        check_begun(&convoy.registry.snapshot(), &self.disk);
        note(|| format!("Convoy starts at {}", convoy.registry.snapshot().revision));
        self.convoy = Some(convoy);
    }

    fn stop(&mut self, is_killed: bool) {
        let Some(convoy) = self.convoy.take() else { return };
        convoy.end();
        self.disk.leave(is_killed);
        for agent in self.agents.iter_mut().filter(|agent| agent.registering.is_some()) {
            (agent.registering, agent.is_doubtful, agent.next) = (None, true, Instant::now());
        }
        (self.configuring, self.saving) = (None, None);
        self.leaving.clear();
    }

    fn go_on(&mut self, runs: bool) {
        if let Some(convoy) = &mut self.convoy {
            convoy.go_on(runs);
        }
    }

    /// A change of what an agent says, under its lease.
    fn change(&mut self, at: usize) {
        let weight = self.random.random_range(1..200);
        let Some(convoy) = self.convoy.as_ref().filter(|convoy| convoy.runs()) else { return };
        let agent = &mut self.agents[at];
        if agent.is_settled() && agent.cut_off.is_none() {
            agent.weight = weight;
            agent.register(&convoy.registry);
        }
    }

    fn cut_off(&mut self) {
        let share = [0.1, 0.5, 1.0][self.random.random_range(0..3)];
        let until = Instant::now() + Duration::from_millis(self.random.random_range(500..20_000));
        for agent in &mut self.agents {
            if self.random.random_bool(share) {
                agent.cut_off = Some(until);
            }
        }
    }

    fn deregister(&mut self, at: usize) {
        let agent = &self.agents[at];
        let Some(convoy) = self.running().filter(|_| agent.running && agent.cut_off.is_none()) else { return };
        let (registry, key, incarnation) = (convoy.registry.clone(), agent.key.clone(), agent.incarnation);
        let said = async move { registry.deregister(key, Some(Incarnation(incarnation))).await.is_ok() };
        self.leaving.push((at, incarnation, call(said)));
        let agent = &mut self.agents[at];
        (agent.running, agent.is_heard, agent.registering) = (false, false, None);
    }

    /// One that deregistered goes on as if nothing had happened.
    fn come_back(&mut self, at: usize) {
        let agent = &self.agents[at];
        let Some(convoy) = self.running().filter(|_| agent.fenced > 0) else { return };
        let (registry, incarnation) = (convoy.registry.clone(), Some(Incarnation(agent.fenced)));
        let instances = vec![(agent.key.clone(), Arc::new(agent.spec()))];
        drop(call(async move { registry.register(None, Some(TTL), incarnation, instances).await }));
    }

    fn configure(&mut self) {
        let Some(convoy) = self.running().filter(|_| self.configuring.is_none()) else { return };
        let (registry, number) = (convoy.registry.clone(), self.configured.tried + 1);
        let patch = ServicePatch { drain_time: Some(Duration::from_secs(number)), ..ServicePatch::default() };
        let said = async move { registry.put_service(configured_service(), patch).await.is_ok() };
        self.configuring = Some((number, call(said)));
        self.configured.tried = number;
    }

    /// A step of a weight, which a crash may lose.
    fn weigh(&mut self, at: usize) {
        let share = Share::of_percent(self.random.random_range(1..=100));
        let (key, incarnation) = (self.agents[at].key.clone(), Incarnation(self.agents[at].incarnation));
        let Some(convoy) = self.running() else { return };
        let registry = convoy.registry.clone();
        drop(call(async move { registry.set_shares(key.service, vec![(key.id, incarnation, share)]).await }));
    }

    fn memory(&self) -> Memory {
        let stands = |agent: &Agent| agent.is_settled().then_some((agent.incarnation, agent.weight));
        Memory {
            fenced: self.agents.iter().map(|agent| agent.fenced).collect(),
            stood: self.agents.iter().map(stands).collect(),
            configured: self.configured,
        }
    }

    fn save(&mut self) {
        let Some(convoy) = self.running().filter(|_| self.saving.is_none()) else { return };
        let registry = convoy.registry.clone();
        self.saving = Some((self.memory(), call(async move { disk::back_up(&registry).await })));
    }

    /// Convoy is stopped, and another store is put in the place of its own; what it had known since is lost.
    fn restore(&mut self) {
        if self.backup.is_none() {
            return;
        }
        let is_killed = self.random.random_bool(0.5);
        self.stop(is_killed);
        let Backup { bytes, memory } = self.backup.as_ref().expect("it is there");
        note(|| "a backup is restored");
        self.disk.restore(bytes);
        let holds = self.disk.holds();
        self.configured = memory.configured;
        for (agent, (fenced, stood)) in self.agents.iter_mut().zip(memory.fenced.iter().zip(&memory.stood)) {
            (agent.fenced, agent.has_returned) = (*fenced, false);
            let saved = match holds.get(&Key::Instance(agent.key.clone())) {
                Some((_, Record::Instance(instance))) => Some((instance.incarnation.0, instance.spec.weight)),
                _ => None,
            };
            assert!(stood.is_none() || *stood == saved, "{} was {stood:?} when it was saved as {saved:?}", agent.key);
        }
    }

    fn move_proxy(&mut self, proxy: usize) {
        let Some(convoy) = self.convoy.as_ref().filter(|convoy| convoy.runs()) else { return };
        self.streams += 1;
        self.proxies[proxy].reconnect(self.streams, convoy);
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
        if let Some((number, call)) = self.configuring.take_if(|(_, call)| call.is_finished())
            && call.await.expect("nobody panics") == Some(true)
        {
            self.configured.acknowledged = number;
        }
        if let Some((mut memory, call)) = self.saving.take_if(|(_, call)| call.is_finished())
            && let Some(bytes) = call.await.expect("nobody panics").flatten()
        {
            let now = self.memory();
            // What was changed while it was made may be in it, or not.
            memory.configured.tried = now.configured.tried;
            for (stood, stands) in memory.stood.iter_mut().zip(now.stood) {
                *stood = stood.filter(|stood| Some(*stood) == stands);
            }
            note(|| "a backup is made");
            self.backup = Some(Backup { bytes, memory });
        }
    }

    fn tell(&self) {
        if let Some(convoy) = &self.convoy {
            state("what is registered", || convoy.registry.snapshot());
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
            if let Some(convoy) = &self.convoy {
                for proxy in &mut self.proxies {
                    self.streams += 1;
                    proxy.exchange(self.streams, convoy);
                }
            }
            if std::mem::take(&mut self.stalls) {
                self.go_on(false);
            }
            self.watch();
            self.check();
        }
    }

    fn watch(&mut self) {
        for watcher in &mut self.watchers {
            let Some(convoy) = self.convoy.as_ref().filter(|convoy| convoy.runs()) else { continue };
            if watcher.at() == Some(convoy.id) {
                watcher.read(&mut self.random);
            } else {
                watcher.cut_off();
                watcher.resume(convoy.id, &convoy.registry);
            }
        }
    }

    async fn act(&mut self, at: usize) {
        let now = Instant::now();
        let agent = &mut self.agents[at];
        if let Some(call) = agent.registering.take() {
            if !call.is_finished() {
                agent.registering = Some(call);
                return;
            }
            agent.registered(call.await.expect("nobody panics"));
        }
        if agent.cut_off.is_some_and(|until| until <= now) {
            (agent.cut_off, agent.next) = (None, now);
        }
        if !agent.running || agent.next > now {
            return;
        }
        if agent.cut_off.is_some() {
            (agent.is_heard, agent.next) = (false, now + TTL / 3);
            return;
        }
        let Some(convoy) = self.convoy.as_ref().filter(|convoy| convoy.runs()) else {
            agent.next = now + Duration::from_millis(100);
            return;
        };
        let Some(lease) = agent.lease else {
            agent.register(&convoy.registry);
            return;
        };
        // While it is not known what stands, all that is asked for is that the lease is kept.
        let heard = convoy.registry.heartbeat(lease, agent.known.filter(|_| !agent.is_doubtful), None);
        note(|| format!("{} of {} heartbeats: {heard:?}", agent.key, agent.incarnation));
        match heard {
            Heard::Kept(held) => {
                (agent.last_heard, agent.next) = (now, now + held.heartbeat_interval);
                (agent.is_heard, agent.has_returned) = (true, true);
                if agent.is_doubtful {
                    agent.register(&convoy.registry);
                }
            }
            Heard::Retry => agent.next = now + Duration::from_millis(100),
            Heard::RegisterAgain => {
                assert!(!agent.is_settled(), "{} is alive, and is told to register again", agent.key);
                (agent.lease, agent.known) = (None, None);
                agent.register(&convoy.registry);
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        for proxy in &mut self.proxies {
            proxy.check(&self.agents);
        }
        let Some(convoy) = &self.convoy else { return };
        let (now, snapshot) = (Instant::now(), convoy.registry.snapshot());
        assert!(snapshot.revision >= self.highest, "{} after {}", snapshot.revision, self.highest);
        self.highest = snapshot.revision;
        for agent in &self.agents {
            let there = snapshot.instance(&agent.key).map(|instance| &instance.value);
            if agent.is_alive() && agent.has_returned {
                let incarnation = there.map(|instance| instance.incarnation.0);
                assert_eq!(incarnation, Some(agent.incarnation), "{} is alive and heard", agent.key);
            }
            let Some(there) = there else { continue };
            if agent.is_settled() {
                assert_eq!(there.spec.weight, agent.weight, "{} was told that all is well", agent.key);
            }
            assert!(there.incarnation.0 > agent.fenced, "{} was deregistered", agent.key);
            let Some(writable_since) = self.disk.writable_since() else { continue };
            let silent_for = now - agent.last_heard.max(convoy.runs_since).max(writable_since);
            let is_over = convoy.runs() && !agent.running && silent_for > TTL + LONGEST + MARGIN;
            assert!(!is_over, "{} has been silent for {silent_for:?}", agent.key);
        }
        let configured = snapshot.services.get(&configured_service());
        let number = configured.map_or(0, |state| state.service.value.drain_time.as_secs());
        let Configured { acknowledged, tried } = self.configured;
        assert!((acknowledged..=tried).contains(&number), "{number} stands, of {acknowledged} to {tried}");
    }

    /// Nothing more goes wrong.
    async fn settle(&mut self) {
        self.disk.slow_down(false);
        self.disk.fill(false);
        if self.convoy.is_none() {
            self.start();
        }
        self.go_on(true);
        self.agents.iter_mut().for_each(|agent| agent.cut_off = None);
        self.proxies.iter_mut().for_each(|proxy| proxy.asleep = false);
        self.pass(SETTLE + TTL + LONGEST + MARGIN).await;
        let convoy = self.convoy.as_ref().expect("it runs");
        let snapshot = convoy.registry.snapshot();
        for agent in &self.agents {
            let there = snapshot.instance(&agent.key).map(|of| (of.value.incarnation.0, of.value.spec.weight));
            assert_eq!(there, agent.running.then_some((agent.incarnation, agent.weight)), "{}", agent.key);
        }
        assert!(convoy.registry.braking().groups.is_empty(), "the brake has ended");
        let copy = convoy.registry.copy().await.expect("a copy");
        let copied: disk::Records = copy.records().map(|(key, at, record)| (key, (at, record))).collect();
        assert_eq!(copied, self.disk.holds(), "what is known is what the file has");
        self.proxies.iter().for_each(Proxy::check_view);
        self.watchers.iter().for_each(Watcher::check);
    }
}

fn configured_service() -> ServiceKey {
    parse::service_key("", "configured").expect("a key")
}

/// It begins with all that its file has.
fn check_begun(snapshot: &Snapshot, disk: &Disk) {
    for (key, (revision, record)) in disk.holds() {
        let is_there = match (&key, record) {
            (Key::Instance(key), Record::Instance(there)) => {
                snapshot.instance(key).is_some_and(|of| of.revision == revision && of.value == there)
            }
            (Key::Instance(key), Record::Tombstone(there)) => {
                snapshot.gone.get(key).is_some_and(|of| of.revision == revision && *of.value == there)
            }
            (Key::Service(key), Record::Service(there)) => snapshot
                .services
                .get(key)
                .is_some_and(|of| of.service.revision == revision && of.service.value == there),
            _ => true,
        };
        assert!(is_there, "{key:?} is not as the file has it");
    }
    let keys: Vec<InstanceKey> =
        snapshot.services.values().flat_map(|of| of.instances.values()).map(|of| of.value.key.clone()).collect();
    let holds = disk.holds();
    let stray = keys.into_iter().find(|key| !holds.contains_key(&Key::Instance(key.clone())));
    assert!(stray.is_none(), "{stray:?} is not in the file");
}
