//! Distrust, with a registry in memory and time that is paused. Nothing is really probed: the tests say what was found.

use std::{collections::BTreeSet, ops::RangeInclusive};

use tokio::{sync::watch, time::sleep};

use super::*;
use crate::{
    model::{
        CheckKind, InstanceSpec, Limits, Locality, Port, PortName, Probe, ServicePatch, Threshold, Verdict, parse,
    },
    storage::{CommitError, Storage, Transaction, memory::MemoryStore},
};

const COUNT: u8 = 20;
const INTERVAL: Duration = Duration::from_secs(10);
/// The registry looks once a second at those that are disbelieved.
const LOOK: Duration = Duration::from_millis(2_500);

/// A store whose commits can be held up.
#[derive(Debug)]
struct Held {
    store: MemoryStore,
    open: watch::Receiver<bool>,
}

#[async_trait::async_trait]
impl Storage for Held {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let mut open = self.open.clone();
        open.wait_for(|open| *open).await.expect("the test holds it");
        self.store.commit(transactions).await
    }
}

struct World {
    prober: Prober,
    open: watch::Sender<bool>,
}

fn check() -> Check {
    Check {
        name: "alive".into(),
        kind: CheckKind::Liveness,
        port: None,
        interval: INTERVAL,
        timeout: Duration::from_secs(1),
        jitter_percent: 0,
        healthy: Threshold::in_a_row(1),
        unhealthy: Threshold::in_a_row(1),
        grace: Duration::ZERO,
        deregister_after: None,
        probe: Probe::Tcp { tls: None },
    }
}

fn key(number: u8) -> InstanceKey {
    parse::instance_key("", "web", &format!("{number:02}")).expect("a key")
}

fn spec(number: u8) -> InstanceSpec {
    let port = Port { name: PortName::parse("", "http").expect("a name"), number: 80, protocol: Protocol::Http };
    InstanceSpec {
        address: [10, 0, 0, number].into(),
        ports: [port].into(),
        weight: 100,
        ready: true,
        labels: Default::default(),
        capabilities: Arc::default(),
        locality: Arc::new(Locality::default()),
        sla: Arc::default(),
        description: "".into(),
        card: None,
    }
}

impl World {
    /// `COUNT` instances that have passed their check.
    async fn new(deregister_after: Option<Duration>) -> Self {
        let (store, opened) = MemoryStore::open("store".into());
        let (open, receiver) = watch::channel(true);
        let store = Arc::new(Held { store, open: receiver });
        let (registry, _) = Registry::start(store, opened, Limits::default().into(), Arc::default());
        let ttl = Some(Duration::from_secs(3_600));
        let instances = (1..=COUNT).map(|number| (key(number), Arc::new(spec(number)))).collect();
        registry.register(None, ttl, None, instances).await.expect("registered");
        let patch =
            ServicePatch { checks: Some([Check { deregister_after, ..check() }].into()), ..ServicePatch::default() };
        registry.put_service(key(1).service, patch).await.expect("put");
        let mut prober = Prober::new(registry, &CheckConfig::default(), Arc::default(), 1);
        prober.follow(&key(1).service);
        let mut world = Self { prober, open };
        world.settle().await;
        world.probe(INTERVAL, 1..=COUNT, Finding::Good).await;
        assert_eq!(world.prober.schedule.counts().passing, usize::from(COUNT));
        world
    }

    /// Writes what there is to be written.
    async fn settle(&mut self) {
        loop {
            self.prober.tell_counts();
            self.prober.write();
            match self.prober.writing.join_next().await {
                Some(written) => self.prober.written(written),
                None => return,
            }
        }
    }

    /// Answers the probes of so long a time, one after the other when it is due: these with that, all others well.
    async fn probe(&mut self, time: Duration, those: RangeInclusive<u8>, finding: Finding) {
        let those: BTreeSet<InstanceKey> = those.map(key).collect();
        let end = self.prober.now_ms() + millis(time);
        while let Some(at) = self.prober.schedule.next_ms().filter(|at| *at < end) {
            sleep(Duration::from_millis(at.saturating_sub(self.prober.now_ms()))).await;
            self.answer(|target| if those.contains(&target.instance) { finding } else { Finding::Good });
            self.settle().await;
        }
        sleep(Duration::from_millis(end.saturating_sub(self.prober.now_ms()))).await;
    }

    /// Answers what is due now.
    fn answer(&mut self, says: impl Fn(&Target) -> Finding) {
        let now = self.prober.now_ms();
        while let Some((ticket, target)) = self.prober.schedule.take_due(now) {
            let found = Found { finding: says(&target), output: String::new() };
            self.prober.found(ticket, &target, &found, Duration::ZERO);
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let snapshot = self.prober.registry.snapshot();
        (1..=COUNT).map(|number| snapshot.instance(&key(number)).expect("nobody goes").value.verdict()).collect()
    }

    fn count(&self, verdict: Verdict) -> u8 {
        self.verdicts().into_iter().filter(|of| *of == verdict).count() as u8
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().expect("a short time")
}

#[tokio::test(start_paused = true)]
async fn a_prober_without_a_network_takes_nobody_out_and_nobody_away() {
    let mut world = World::new(Some(INTERVAL)).await;
    // Half of them fail one by one, and are believed.
    world.probe(INTERVAL / 2, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.count(Verdict::Suspect), 0);
    assert!((5..=10).contains(&world.count(Verdict::Unhealthy)), "{:?}", world.verdicts());
    world.probe(INTERVAL / 2, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Suspect; COUNT as usize]);
    // Also when it would have been time to remove them.
    world.probe(INTERVAL * 2, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Suspect; COUNT as usize]);
    world.probe(INTERVAL, 1..=COUNT, Finding::Good).await;
    assert_eq!(world.verdicts(), [Verdict::Healthy; COUNT as usize]);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_when_trust_ends_is_disbelieved_as_well() {
    let mut world = World::new(None).await;
    sleep(INTERVAL).await;
    world.answer(|target| if target.instance <= key(8) { Finding::Bad } else { Finding::Good });
    world.open.send_replace(false);
    world.prober.tell_counts();
    world.prober.write();
    // It is on its way, as believed; how many turns of the runtime that takes is of no matter.
    sleep(Duration::from_millis(100)).await;
    assert_eq!((world.count(Verdict::Healthy), world.prober.in_writing.len()), (COUNT, 8));
    sleep(INTERVAL).await;
    world.answer(|target| if target.instance <= key(15) { Finding::Bad } else { Finding::Good });
    world.prober.tell_counts();
    world.open.send_replace(true);
    let written = world.prober.writing.join_next().await.expect("it is being written");
    assert_eq!((world.count(Verdict::Unhealthy), world.count(Verdict::Suspect)), (8, 0));
    world.prober.written(written);
    world.settle().await;
    assert_eq!((world.count(Verdict::Suspect), world.count(Verdict::Healthy)), (15, 5), "{:?}", world.verdicts());
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_waits_when_trust_ends_is_dropped() {
    let mut world = World::new(Some(INTERVAL)).await;
    world.probe(INTERVAL, 1..=5, Finding::Bad).await;
    sleep(INTERVAL).await;
    world.answer(|target| if target.instance <= key(5) { Finding::Bad } else { Finding::Good });
    world.prober.tell_counts();
    assert_eq!(world.prober.evictions.len(), 5);
    // Before the store takes them.
    sleep(INTERVAL).await;
    world.answer(|_| Finding::Bad);
    world.settle().await;
    assert_eq!(world.verdicts(), [Verdict::Suspect; COUNT as usize]);
}

#[tokio::test(start_paused = true)]
async fn when_half_of_them_pass_again_the_others_are_believed() {
    let mut world = World::new(None).await;
    world.probe(INTERVAL, 1..=COUNT, Finding::Bad).await;
    world.probe(INTERVAL, 1..=12, Finding::Bad).await;
    assert_eq!((world.count(Verdict::Suspect), world.count(Verdict::Healthy)), (12, 8));
    sleep(LOOK).await;
    assert_eq!(world.count(Verdict::Suspect), 12, "fewer than half are well");
    world.probe(INTERVAL, 1..=8, Finding::Bad).await;
    sleep(LOOK).await;
    assert_eq!((world.count(Verdict::Unhealthy), world.count(Verdict::Healthy)), (8, 12));
    world.probe(INTERVAL, 1..=COUNT, Finding::Good).await;
    assert_eq!(world.verdicts(), [Verdict::Healthy; COUNT as usize]);
}

#[tokio::test(start_paused = true)]
async fn distrust_ends_after_the_longest_time_and_does_not_begin_anew() {
    let mut world = World::new(None).await;
    world.probe(INTERVAL, 1..=COUNT, Finding::Bad).await;
    world.probe(INTERVAL * 4, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Suspect; COUNT as usize]);
    world.probe(INTERVAL * 2 + LOOK, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Unhealthy; COUNT as usize]);
    world.probe(INTERVAL * 10, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Unhealthy; COUNT as usize], "still there, still failing, no suspects");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_a_pause_has_made_is_none() {
    let mut world = World::new(None).await;
    for (late, then) in [(Duration::from_millis(501), Verdict::Healthy), (Duration::ZERO, Verdict::Unhealthy)] {
        sleep(INTERVAL * 2).await;
        let now = world.prober.now_ms();
        let (ticket, target) = world.prober.schedule.take_due(now).expect("due");
        world.prober.found(ticket, &target, &Found::bad("no answer"), target.check.timeout + late);
        world.settle().await;
        let instance = world.prober.registry.snapshot().instance(&target.instance).expect("there").value.clone();
        assert_eq!(instance.verdict(), then, "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_begins_distrust_anew() {
    let mut world = World::new(None).await;
    world.probe(INTERVAL * 7 + LOOK, 1..=COUNT, Finding::Bad).await;
    assert_eq!(world.verdicts(), [Verdict::Unhealthy; COUNT as usize]);
    // Another prober, which finds them as they are stored.
    let registry = world.prober.registry.clone();
    world.prober = Prober::new(registry, &CheckConfig::default(), Arc::default(), 2);
    world.prober.follow(&key(1).service);
    world.settle().await;
    assert_eq!(world.verdicts(), [Verdict::Suspect; COUNT as usize]);
}
