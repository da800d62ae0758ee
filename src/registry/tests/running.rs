//! The task, with a store in memory and time that is paused: it moves only when everybody waits.

use std::sync::Mutex;

use futures_util::FutureExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    model::{Replica, ReplicaId},
    registry::{
        Heard, Held, Registry, Settings,
        brake::{BrakeConfig, Release},
        lease::Known,
        state::Dirty,
        timers::Notice,
        watch::{Filter, Seen, Step, merge::Told},
    },
    storage::{Change, CommitError, Key, Opened, Record, Storage, Transaction, failing::Failing, memory::MemoryStore},
    telemetry::Metrics,
};

/// Whoever falls silent goes: what else is tested with single instances.
fn unbraked(limits: Limits) -> Settings {
    Settings { limits, brake: BrakeConfig { enabled: false, ..BrakeConfig::default() } }
}

fn start() -> Registry {
    let (store, opened) = MemoryStore::open("store".into());
    Registry::start(Arc::new(store), opened, unbraked(Limits::default()), Arc::new(Metrics::default())).0
}

async fn register(registry: &Registry, name: &str, host: u8, ttl: u64) -> LeaseId {
    let ttl = Some(Duration::from_secs(ttl));
    let (_, held) = registry.register(None, ttl, None, vec![(key(name), spec(host).into())]).await.expect("registered");
    held.lease
}

/// Renews a lease, as one who does not say what it has said.
fn heartbeat(registry: &Registry, lease: LeaseId) -> Option<Held> {
    match registry.heartbeat(lease, None, None) {
        Heard::Kept(held) => Some(held),
        Heard::RegisterAgain | Heard::Retry => None,
    }
}

fn present(registry: &Registry, name: &str) -> bool {
    registry.snapshot().instance(&key(name)).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_within_100_ms_after_its_deadline_and_not_before() {
    let registry = start();
    register(&registry, "web/1", 1, 1).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    tokio::time::sleep_until(deadline - Duration::from_millis(1)).await;
    assert!(present(&registry, "web/1"));
    tokio::time::sleep_until(deadline + Duration::from_millis(100)).await;
    assert!(!present(&registry, "web/1"));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_lease_and_change_nothing() {
    let registry = start();
    let lease = register(&registry, "web/1", 1, 3).await;
    let revision = registry.snapshot().revision;
    for _ in 0..20 {
        sleep(Duration::from_secs(2)).await;
        let held = heartbeat(&registry, lease).expect("kept");
        assert_eq!(held.ttl, Duration::from_secs(3));
        assert!(held.heartbeat_interval <= Duration::from_millis(1_100), "{held:?}");
    }
    assert_eq!(registry.snapshot().revision, revision);
    sleep(Duration::from_millis(3_100)).await;
    assert_eq!(heartbeat(&registry, lease), None);
    assert!(!present(&registry, "web/1"));
}

#[tokio::test(start_paused = true)]
async fn after_the_start_the_first_heartbeats_are_spread() {
    let registry = start();
    let (mut soon, mut later) = (0, Vec::new());
    for number in 0..100 {
        let lease = register(&registry, &format!("web/{number}"), number, 30).await;
        let first = heartbeat(&registry, lease).expect("kept").heartbeat_interval;
        soon += usize::from(first < Duration::from_secs(5));
        later.push(heartbeat(&registry, lease).expect("kept").heartbeat_interval);
    }
    assert!((25..75).contains(&soon), "{soon} of 100 in the first half");
    assert!(later.iter().all(|interval| *interval > Duration::from_secs(8)), "{later:?}");
    sleep(Duration::from_secs(11)).await;
    let lease = register(&registry, "api/1", 1, 30).await;
    let first = heartbeat(&registry, lease).expect("kept").heartbeat_interval;
    assert!(first > Duration::from_secs(8), "who comes later is not spread: {first:?}");
}

#[tokio::test(start_paused = true)]
async fn who_said_something_else_is_told_to_register_again() {
    let registry = start();
    let instances: Vec<(_, Arc<InstanceSpec>)> = vec![(key("web/1"), spec(1).into()), (key("web/2"), spec(2).into())];
    let said =
        |outcome: &crate::registry::command::Outcome| Known { digest: outcome.digest, revision: outcome.revision };
    let (outcome, held) = registry.register(None, None, None, instances.clone()).await.expect("registered");
    let ask = |known: Known| matches!(registry.heartbeat(held.lease, Some(known), None), Heard::Kept(_));
    let first = said(&outcome);
    assert!(ask(first));
    // What Convoy makes of it is not what was said.
    registry.drain(key("web/2"), None, Some(Duration::from_secs(60))).await.expect("draining");
    assert!(ask(first));
    // The same once more, in another order, is the same.
    let turned = instances.iter().rev().cloned().collect();
    assert_eq!(registry.register(None, None, None, turned).await.expect("registered").0.digest, first.digest);
    let lighter = InstanceSpec { weight: 1, ..spec(1) };
    let (changed, _) =
        registry.register(None, None, None, vec![(key("web/1"), lighter.into())]).await.expect("changed");
    assert!(!ask(first) && ask(said(&changed)));
    // An operator removes one.
    registry.deregister(key("web/2"), None).await.expect("deregistered");
    assert!(!ask(said(&changed)));
    // One from the future: we are behind, and cannot tell.
    assert!(ask(Known { revision: Revision(u64::MAX), ..first }));
    registry.deregister(key("web/1"), None).await.expect("deregistered");
    assert!(!ask(said(&changed)), "the lease is gone");
}

#[tokio::test(start_paused = true)]
async fn a_drained_instance_leaves_after_its_drain_time() {
    let registry = start();
    register(&registry, "web/1", 1, 3600).await;
    registry.drain(key("web/1"), None, Some(Duration::from_secs(5))).await.expect("draining");
    sleep(Duration::from_millis(4_990)).await;
    assert!(present(&registry, "web/1"));
    sleep(Duration::from_millis(110)).await;
    assert!(!present(&registry, "web/1"));
}

#[tokio::test(start_paused = true)]
async fn time_in_which_nothing_ran_is_taken_out() {
    let registry = start();
    register(&registry, "web/1", 1, 2).await;
    // As after a SIGSTOP: the clock jumps, and no task has run.
    tokio::time::advance(Duration::from_secs(60)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(present(&registry, "web/1"));
    sleep(Duration::from_secs(2)).await;
    assert!(!present(&registry, "web/1"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_is_there_and_what_happens() {
    let registry = start();
    register(&registry, "web/1", 1, 60).await;
    register(&registry, "api/1", 1, 60).await;
    let filter = Filter { service: Some(service("web").name), ..Filter::default() };
    let mut watch = registry.watch(filter.clone(), None).expect("a watch");
    let mut next = async || watch.next().await.expect("running");
    assert!(matches!(next().await.0, Step::Present(instance) if instance.value.key == key("web/1")));
    let (synced, token) = next().await;
    assert!(matches!(synced, Step::Synced), "{synced:?}");
    register(&registry, "web/2", 2, 60).await;
    register(&registry, "api/2", 2, 60).await;
    registry.deregister(key("web/1"), None).await.expect("deregistered");
    let mut happened = Vec::new();
    for _ in 0..2 {
        match next().await.0 {
            Step::Happened(Told { entry, seen }) => happened.push((entry.event.instance.value.key.to_string(), seen)),
            step => panic!("{step:?}"),
        }
    }
    let removed = ("default/web/1".to_owned(), Seen::Removed(RemovalCause::Deregistered));
    assert_eq!(happened, [("default/web/2".to_owned(), Seen::Added), removed]);

    // Resumed, it tells the same again; with a token of another store it starts over.
    let token = registry.token(token);
    let mut resumed = registry.watch(filter.clone(), Some(&token)).expect("a watch");
    for expected in &happened {
        match resumed.next().await.expect("running").0 {
            Step::Happened(told) => assert_eq!(told.entry.event.instance.value.key.to_string(), expected.0),
            step => panic!("{step:?}"),
        }
    }
    let mut foreign = registry.watch(filter, Some("other.1")).expect("a watch");
    assert!(matches!(foreign.next().await, Some((Step::Reset, _))));
}

#[tokio::test(start_paused = true)]
async fn watchers_are_limited() {
    let (store, opened) = MemoryStore::open("store".into());
    let limits = Limits { watchers: 1, ..Limits::default() };
    let (registry, _) = Registry::start(Arc::new(store), opened, unbraked(limits), Arc::new(Metrics::default()));
    let first = registry.watch(Filter::default(), None).expect("a watch");
    let error = registry.watch(Filter::default(), None).expect_err("too many");
    assert!(matches!(error, Error::LimitReached { limit: 1, .. }), "{error}");
    drop(first);
    registry.watch(Filter::default(), None).expect("a watch");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_nothing_is_said_to_be_done() {
    let (store, opened): (_, Opened) = MemoryStore::open("store".into());
    let store = Arc::new(Failing::new(store, false));
    let (registry, _) = Registry::start(store.clone(), opened, Limits::default().into(), Arc::new(Metrics::default()));
    register(&registry, "web/1", 1, 30).await;
    let drain = async |incarnation| {
        let drained = registry.drain(key("web/1"), Some(Incarnation(incarnation)), None).await;
        drained.map(|of| of.revision).map_err(|error| matches!(error, Error::Unavailable { .. }))
    };
    let first = drain(1).await;
    store.go_away(true);
    // Elsewhere its next incarnation may stand, which does not drain.
    for incarnation in [0, 1, 2] {
        assert_eq!(drain(incarnation).await, Err(true));
    }
    store.go_away(false);
    assert_eq!((drain(1).await, drain(0).await), (first, Err(false)));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_fails_nothing_changes_and_nobody_expires() {
    let (store, opened): (_, Opened) = MemoryStore::open("store".into());
    let store = Arc::new(Failing::new(store, false));
    let (registry, _) =
        Registry::start(store.clone(), opened, unbraked(Limits::default()), Arc::new(Metrics::default()));
    let lease = register(&registry, "web/1", 1, 1).await;
    store.fail(true);
    let error = registry.deregister(key("web/1"), None).await.expect_err("unavailable");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    sleep(Duration::from_secs(5)).await;
    assert!(present(&registry, "web/1"));
    // What could not be written is not true: the lease can be renewed again.
    assert!(heartbeat(&registry, lease).is_some());
    // Whether one that is not known here was lost with the store, nobody can tell.
    assert_eq!(registry.heartbeat(LeaseId(1), None, None), Heard::Retry);
    store.fail(false);
    assert!(!registry.is_writable());
    sleep(Duration::from_millis(2_500)).await;
    assert!(!present(&registry, "web/1") && registry.is_writable());
}

/// Writes a round each time that it is let.
#[derive(Debug)]
struct Gated {
    memory: MemoryStore,
    calls: usize,
    gate: Semaphore,
    /// How many transactions it was given each time.
    rounds: Mutex<Vec<usize>>,
}

impl Gated {
    fn rounds(&self) -> Vec<usize> {
        self.rounds.lock().expect("nothing panics while it holds this lock").clone()
    }

    async fn has_been_given(&self, rounds: usize) {
        while self.rounds().len() < rounds {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait::async_trait]
impl Storage for Gated {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        self.rounds.lock().expect("nothing panics while it holds this lock").push(transactions.len());
        self.gate.acquire().await.expect("it is never closed").forget();
        self.memory.commit(transactions).await
    }

    fn calls(&self) -> usize {
        self.calls
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_store_writes_waits_for_what_it_is_about_and_for_no_more() {
    for calls in [1, 2] {
        let (memory, opened) = MemoryStore::open("store".into());
        let store = Arc::new(Gated { memory, calls, gate: Semaphore::new(0), rounds: Mutex::default() });
        let (settings, metrics) = (unbraked(Limits::default()), Arc::new(Metrics::default()));
        let registry = Registry::start(store.clone(), opened, settings, metrics).0;
        let come = |name: &'static str, host| {
            let registry = registry.clone();
            tokio::spawn(async move { register(&registry, name, host, 60).await })
        };
        let first = come("a/1", 1);
        store.has_been_given(1).await;
        let others = [come("b/1", 2), come("c/1", 3)];
        // It is not there yet: that it is unknown would be the wrong answer.
        let leaving = tokio::spawn({
            let registry = registry.clone();
            async move { registry.deregister(key("a/1"), None).await }
        });
        sleep(Duration::from_millis(1)).await;
        assert_eq!(store.rounds().len(), calls, "as many as the store takes");
        assert!(!leaving.is_finished());
        store.gate.add_permits(1);
        first.await.expect("no panic");
        assert!(!leaving.is_finished() && present(&registry, "a/1"));
        store.gate.add_permits(9);
        for other in others {
            other.await.expect("no panic");
        }
        leaving.await.expect("no panic").expect("deregistered");
        assert!(!present(&registry, "a/1") && present(&registry, "b/1") && present(&registry, "c/1"));
        assert_eq!(store.rounds().iter().sum::<usize>(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn commands_at_once_are_carried_out_each_once() {
    let registry = start();
    let calls = (0..200u8).map(|number| {
        let registry = registry.clone();
        tokio::spawn(async move { register(&registry, &format!("web/{number}"), number, 60).await })
    });
    let mut leases = std::collections::BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        leases.insert(call.await.expect("no panic"));
    }
    assert_eq!((leases.len(), registry.leases()), (200, 200));
    assert_eq!(registry.snapshot().services[&service("web")].instances.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_lease_goes_with_the_last_who_leaves_it_also_when_they_leave_at_once() {
    let registry = start();
    let instances = (0..20u8).map(|number| (key(&format!("web/{number}")), spec(number).into())).collect();
    let (_, held) = registry.register(None, None, None, instances).await.expect("registered");
    let leave = (0..20).map(|number| registry.deregister(key(&format!("web/{number}")), None));
    futures_util::future::join_all(leave).await.into_iter().for_each(|left| drop(left.expect("deregistered")));
    assert_eq!((registry.leases(), heartbeat(&registry, held.lease)), (0, None));
}

#[tokio::test]
async fn after_a_restart_who_does_not_heartbeat_expires() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        let (store, opened) = crate::storage::redb::RedbStore::open(directory.path(), "store").expect("it opens");
        Registry::start(Arc::new(store), opened, unbraked(Limits::default()), Arc::new(Metrics::default()))
    };
    let (registry, running) = open();
    let lease = register(&registry, "web/1", 1, 1).await;
    drop(registry);
    running.await.expect("it ends with its last handle");
    let (registry, _running) = open();
    assert!(present(&registry, "web/1") && heartbeat(&registry, lease).is_some());
    let mut watch = registry.watch(Filter::default(), None).expect("a watch");
    let removed = async {
        loop {
            if let (Step::Happened(told), _) = watch.next().await.expect("running") {
                return told.entry.event.cause();
            }
        }
    };
    let removed = tokio::time::timeout(Duration::from_secs(10), removed).await.expect("in time");
    assert_eq!((removed, registry.leases()), (Some(RemovalCause::Expired), 0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_for_those_who_come_at_once() {
    let (store, opened) = MemoryStore::open("store".into());
    let limits = Limits { instances_per_service: 10, ..Limits::default() };
    let (registry, _) = Registry::start(Arc::new(store), opened, unbraked(limits), Arc::new(Metrics::default()));
    let calls = (0..50u8).map(|number| {
        let (registry, key) = (registry.clone(), key(&format!("web/{number}")));
        async move { registry.register(None, None, None, vec![(key, spec(number).into())]).await.is_ok() }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    assert_eq!(outcomes.iter().filter(|registered| **registered).count(), 10);
    assert_eq!(registry.snapshot().services[&service("web")].instances.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_of_a_change_finds_it_in_the_snapshot() {
    let registry = start();
    let reader = {
        let registry = registry.clone();
        // Without a pause, so that it looks the moment it can.
        std::thread::spawn(move || {
            loop {
                let Some(dirty) = registry.dirty().now_or_never() else { continue };
                let services: Vec<_> = dirty
                    .into_iter()
                    .filter_map(|dirty| match dirty {
                        Dirty::Service(key) => Some(key),
                        Dirty::Raw(_) => None,
                    })
                    .collect();
                let snapshot = registry.snapshot();
                if let Some(key) = services.iter().find(|key| !snapshot.services.contains_key(*key)) {
                    return Err(format!("{key} has changed and is not there"));
                }
                if services.contains(&service("last")) {
                    return Ok(());
                }
            }
        })
    };
    // Many at once are applied together, which takes a while.
    for round in 0..10 {
        let names: Vec<String> = (0..100).map(|number| format!("web-{round}-{number}/1")).collect();
        futures_util::future::join_all(names.iter().map(|name| register(&registry, name, 1, 60))).await;
    }
    register(&registry, "last/1", 1, 60).await;
    assert_eq!(reader.join().expect("no panic"), Ok(()));
}

fn verdict(registry: &Registry, name: &str) -> Option<Verdict> {
    registry.snapshot().instance(&key(name)).map(|instance| instance.value.verdict())
}

/// Two of web, alone in their service.
async fn two_fall_silent() -> (Registry, [LeaseId; 2]) {
    let (store, opened) = MemoryStore::open("store".into());
    let (registry, _) =
        Registry::start(Arc::new(store), opened, Limits::default().into(), Arc::new(Metrics::default()));
    let leases = [register(&registry, "web/1", 1, 30).await, register(&registry, "web/2", 2, 30).await];
    sleep(Duration::from_millis(30_500)).await;
    assert_eq!([verdict(&registry, "web/1"), verdict(&registry, "web/2")], [Some(Verdict::Suspect); 2]);
    (registry, leases)
}

#[tokio::test(start_paused = true)]
async fn suspects_come_back_with_their_heartbeats_or_go_in_the_end() {
    let (registry, [first, _]) = two_fall_silent().await;
    assert_eq!((registry.braking().groups.len(), registry.braking().overdue), (1, 2));
    assert!(heartbeat(&registry, first).is_some(), "it is kept");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Healthy));
    // The other one is no longer the last: it goes when that has been so for as long as a heartbeat takes.
    for _ in 0..3 {
        sleep(Duration::from_secs(5)).await;
        assert!(heartbeat(&registry, first).is_some());
    }
    assert_eq!(verdict(&registry, "web/2"), None);
    assert!(registry.braking().groups.is_empty());
    let history = registry.snapshot().gone[&key("web/2")].value.history.clone();
    assert_eq!(history.iter().count(), 2, "suspect, and expired");
}

#[tokio::test(start_paused = true)]
async fn suspects_go_after_the_longest_time() {
    let (registry, leases) = two_fall_silent().await;
    sleep(Duration::from_secs(58)).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Suspect));
    sleep(Duration::from_secs(4)).await;
    assert_eq!([verdict(&registry, "web/1"), verdict(&registry, "web/2")], [None; 2]);
    assert!(leases.iter().all(|lease| heartbeat(&registry, *lease).is_none()));
}

#[tokio::test(start_paused = true)]
async fn suspects_go_when_an_operator_says_so_and_may_register_again() {
    let (registry, _) = two_fall_silent().await;
    let outcome = registry.release_brake(Release::Named(crate::model::BrakeScope::Service, "default/web".into()));
    assert_eq!(outcome.await.expect("released").released, 2);
    sleep(Duration::from_millis(100)).await;
    assert_eq!([verdict(&registry, "web/1"), verdict(&registry, "web/2")], [None; 2]);
    register(&registry, "web/1", 1, 30).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Healthy));
}

#[tokio::test(start_paused = true)]
async fn who_registers_again_while_it_is_kept_is_no_suspect() {
    let (registry, [first, _]) = two_fall_silent().await;
    assert_eq!(register(&registry, "web/1", 1, 30).await, first);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Healthy));
    sleep(Duration::from_secs(25)).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Healthy), "it has a whole TTL");
}

/// A registry on a store of a directory; the one before may take a moment to leave it.
async fn open_in(directory: &std::path::Path) -> (Registry, tokio::task::JoinHandle<()>) {
    let begun = std::time::Instant::now();
    loop {
        match crate::storage::redb::RedbStore::open(directory, "store") {
            Ok((store, opened)) => {
                let (store, metrics) = (Arc::new(store), Arc::new(Metrics::default()));
                return Registry::start(store, opened, Limits::default().into(), metrics);
            }
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_suspect_of_before_a_restart_comes_back_with_its_heartbeat() {
    let directory = tempfile::tempdir().expect("a directory");
    let (registry, running) = open_in(directory.path()).await;
    let lease = register(&registry, "web/1", 1, 1).await;
    let mut published = registry.published();
    while verdict(&registry, "web/1") != Some(Verdict::Suspect) {
        published.changed().await.expect("running");
    }
    drop((registry, published));
    running.await.expect("it ends with its last handle");
    let (registry, _running) = open_in(directory.path()).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Suspect), "until it is heard");
    let mut published = registry.published();
    assert!(heartbeat(&registry, lease).is_some());
    while verdict(&registry, "web/1") != Some(Verdict::Healthy) {
        published.changed().await.expect("running");
    }
}

#[tokio::test(start_paused = true)]
async fn no_end_in_mass_keeps_a_change_waiting() {
    let registry = start();
    for number in 0..4_000_u32 {
        let ttl = Some(Duration::from_secs(5));
        let spec = InstanceSpec { address: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), ..spec(1) };
        let instances = vec![(key(&format!("web/{number}")), spec.into())];
        registry.register(None, ttl, None, instances).await.expect("registered");
    }
    let begun = Instant::now();
    sleep(Duration::from_millis(4_990)).await;
    // From here on time stands still: whatever is done is done at once.
    while registry.leases() == 4_000 {
        assert!(begun.elapsed() < Duration::from_secs(6), "they do not end");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let left = registry.leases();
    assert!(left > 1_500, "they have only begun to end: {left}");
    register(&registry, "api/1", 200, 60).await;
    let now = registry.leases();
    assert!(now + 1_100 > left, "who asks waits for a round or two: {now} of {left}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_no_brake() {
    let (registry, leases) = two_fall_silent().await;
    tokio::time::advance(Duration::from_secs(300)).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!([verdict(&registry, "web/1"), verdict(&registry, "web/2")], [Some(Verdict::Suspect); 2]);
    assert!(leases.iter().all(|lease| heartbeat(&registry, *lease).is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_begins_after_a_pause_has_its_whole_time() {
    let registry = start();
    register(&registry, "web/1", 1, 600).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    sleep(Duration::from_millis(100)).await;
    registry.drain(key("web/1"), None, Some(Duration::from_secs(10))).await.expect("draining");
    sleep(Duration::from_secs(9)).await;
    assert!(present(&registry, "web/1"));
    sleep(Duration::from_secs(2)).await;
    assert!(!present(&registry, "web/1"));
}

#[tokio::test(start_paused = true)]
async fn what_of_the_brake_could_not_be_written_is_tried_again() {
    let (store, opened): (_, Opened) = MemoryStore::open("store".into());
    let store = Arc::new(Failing::new(store, false));
    let (registry, _) = Registry::start(store.clone(), opened, Limits::default().into(), Arc::new(Metrics::default()));
    let leases = [register(&registry, "web/1", 1, 30).await, register(&registry, "web/2", 2, 30).await];
    let verdicts = || [verdict(&registry, "web/1"), verdict(&registry, "web/2")];
    store.fail(true);
    sleep(Duration::from_secs(32)).await;
    assert_eq!(verdicts(), [Some(Verdict::Healthy); 2], "nothing can be written");
    store.fail(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(verdicts(), [Some(Verdict::Suspect); 2]);
    store.fail(true);
    assert!(leases.iter().all(|lease| heartbeat(&registry, *lease).is_some()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(verdicts(), [Some(Verdict::Suspect); 2], "nothing can be written");
    store.fail(false);
    assert!(leases.iter().all(|lease| heartbeat(&registry, *lease).is_some()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(verdicts(), [Some(Verdict::Healthy); 2]);
}

#[tokio::test]
async fn all_who_were_kept_before_a_restart_are_kept_after_it() {
    const AGENTS: u8 = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let kept = async |registry: &Registry| {
        let count = || registry.braking().groups.iter().map(|group| group.leases).sum::<usize>();
        while count() < usize::from(AGENTS) && registry.leases() == usize::from(AGENTS) {
            sleep(Duration::from_millis(10)).await;
        }
        registry.leases()
    };
    let (registry, running) = open_in(directory.path()).await;
    for agent in 0..AGENTS {
        register(&registry, &format!("web/{agent}"), agent, 1).await;
    }
    assert_eq!(kept(&registry).await, usize::from(AGENTS));
    drop(registry);
    running.await.expect("it ends with its last handle");
    let (registry, _running) = open_in(directory.path()).await;
    assert_eq!(kept(&registry).await, usize::from(AGENTS), "each is judged with all the others");
}

/// Until the prober has looked at what is stored, the registry knows nothing of how its probes fare.
#[tokio::test(start_paused = true)]
async fn what_is_disbelieved_stays_so_until_it_is_known_how_probes_fare() {
    use crate::{
        model::{CheckKind, CheckState, CheckStatus},
        registry::command::CheckReport,
    };
    for known in [true, false] {
        let registry = start();
        let ttl = Some(Duration::from_secs(600));
        let web = vec![(key("web/1"), spec(1).into())];
        registry.register(None, ttl, Some(Incarnation(1)), web).await.expect("registered");
        let state = CheckState {
            name: "http".into(),
            kind: CheckKind::Readiness,
            status: CheckStatus::Failing,
            since: UnixMillis(5),
            output: "503".into(),
        };
        let report = CheckReport { key: key("web/1"), incarnation: Incarnation(1), state, braked: false, gone: false };
        if known {
            registry.trust().set(4, 1);
        }
        registry.report_checks(vec![report]).await.expect("written");
        let verdict = || registry.snapshot().instance(&key("web/1")).expect("there").value.verdict();
        assert_eq!(verdict(), Verdict::Suspect);
        if known {
            registry.trust().set(4, 3);
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(verdict(), if known { Verdict::Unhealthy } else { Verdict::Suspect });
        // It ends all the same.
        sleep(Duration::from_secs(32)).await;
        assert_eq!(verdict(), Verdict::Unhealthy);
    }
}

/// What is still on its way about it is about nothing, and must not go round for ever.
#[tokio::test(start_paused = true)]
async fn a_lease_that_has_become_another_replicas_is_left_to_that() {
    let (store, mut opened) = MemoryStore::open("store".into());
    opened.replica = ReplicaId(1);
    let (store, metrics) = (Arc::new(store), Arc::new(Metrics::default()));
    let (registry, _) = Registry::start(store.clone(), opened, Limits::default().into(), metrics);
    let leases = [register(&registry, "web/1", 1, 30).await, register(&registry, "web/2", 2, 30).await];
    sleep(Duration::from_millis(30_500)).await;
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Suspect));
    let lease = crate::model::Lease { ttl: Duration::from_secs(30), incarnation: Incarnation(1), owner: ReplicaId(2) };
    let change = |id: LeaseId| Change { key: Key::Lease(id), record: Some(Record::Lease(lease)) };
    let here = |id: u64| {
        let replica = Replica { name: "a".into(), address: ([10, 0, 0, 1], 1).into(), since: UnixMillis(1) };
        Change { key: Key::Replica(ReplicaId(id)), record: Some(Record::Replica(replica.into())) }
    };
    let changes = [here(1), here(2)].into_iter().chain(leases.map(change)).collect();
    let taken = Transaction { changes, ..Transaction::default() };
    assert!(store.commit(vec![taken]).await[0].is_ok());
    sleep(Duration::from_millis(100)).await;
    let revision = registry.snapshot().revision;
    let late = leases.map(|lease| [Notice::Lapsed(lease), Notice::Returned(lease), Notice::ReturnedElsewhere(lease)]);
    registry.note(late.concat()).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(registry.snapshot().revision, revision, "nothing was written");
    assert_eq!(verdict(&registry, "web/1"), Some(Verdict::Suspect), "as its owner left it");
    assert!(heartbeat(&registry, leases[0]).is_some(), "it is passed on");
    assert_eq!(registry.take_heard().iter().map(|heard| heard.owner).collect::<Vec<_>>(), [ReplicaId(2)]);
}
