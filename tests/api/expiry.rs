//! Expiry: an instance leaves within 100 ms after its lease's deadline, never before, and never while it heartbeats; a
//! drained one leaves when its time is over.

use std::time::{Duration, Instant};

use convoy_client::proto::{DrainRequest, LeaseOutcome, RegisterRequest, WatchKind};

use crate::support::{
    api::{Call, Face},
    median,
    sample::{call, instance, instances, seconds},
    server::Convoy,
    watch::Watch,
};

const TTL: Duration = Duration::from_secs(1);
const LEASES: u32 = 20;
/// How late an expiry may be.
const LATE: Duration = Duration::from_millis(100);
/// The registry counts in whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);
/// A busy machine lets nobody run for a while now and then; a round in which that happened measures the machine.
const ROUNDS: usize = 6;
const HICCUP: Duration = Duration::from_millis(40);

/// Looks for times in which this process did not get to run, until it is dropped.
struct Hiccups(tokio::task::JoinHandle<()>, std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Hiccups {
    fn watch() -> Self {
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen_by_task = seen.clone();
        let task = tokio::spawn(async move {
            let (mut ticks, mut last) = (tokio::time::interval(Duration::from_millis(5)), Instant::now());
            loop {
                ticks.tick().await;
                if last.elapsed() > HICCUP {
                    seen_by_task.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                last = Instant::now();
            }
        });
        Self(task, seen)
    }

    fn any(&self) -> bool {
        self.1.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Hiccups {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long after its deadline each lease's instance left. The deadline is one TTL after the last heartbeat, which the
/// server heard between its sending and its answer.
async fn measure() -> Vec<Duration> {
    let convoy = Convoy::start().await;
    let mut watch = Watch::all(&convoy.api, Face::Grpc).await;
    watch.synced().await;
    let mut heartbeats = Vec::new();
    for number in 0..LEASES {
        let request = RegisterRequest { ttl: seconds(1), ..call([instance("web", number)]) };
        let lease = convoy.api.register(request).await.expect("registered").lease.expect("a lease").id;
        assert_eq!(watch.told().await.0, WatchKind::Added);
        let sent = Instant::now();
        assert_eq!(convoy.api.heartbeat(&lease).await.outcome(), LeaseOutcome::Kept);
        heartbeats.push((format!("web-{number}"), sent, Instant::now()));
    }
    let mut late = Vec::new();
    for _ in 0..LEASES {
        let event = watch.next().await;
        let now = Instant::now();
        assert_eq!((event.kind(), event.cause().to_string()), (WatchKind::Removed, "expired".into()));
        let id = event.instance.expect("an instance").id;
        let (_, sent, answered) = heartbeats.iter().find(|(of, ..)| *of == id).expect("one of them");
        assert!(now + GRAIN >= *sent + TTL, "{id} left {:?} after it was heard", now - *sent);
        late.push(now.saturating_duration_since(*answered + TTL));
    }
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_leaves_within_100_ms_after_its_deadline_and_never_before() {
    for round in 1..=ROUNDS {
        let hiccups = Hiccups::watch();
        let late = measure().await;
        let worst = late.iter().max().copied().unwrap_or_default();
        println!("round {round}: {LEASES} leases, median {:?}, worst {worst:?} after the deadline", median(&late));
        if median(&late) <= LATE {
            return;
        }
        assert!(hiccups.any(), "late, and the machine was not: {late:?}");
    }
    panic!("the machine was too busy in all of {ROUNDS} rounds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_heartbeats_never_expires() {
    let convoy = Convoy::start().await;
    let mut watch = Watch::all(&convoy.api, Face::Grpc).await;
    watch.synced().await;
    let register = |service: &str| RegisterRequest { ttl: seconds(1), ..instances(service, 1..2) };
    let mut leases = Vec::new();
    for service in ["over-http", "over-grpc", "again"] {
        let answer = convoy.api.register(register(service)).await.expect("registered");
        leases.push(answer.lease.expect("a lease").id);
        assert_eq!(watch.told().await.0, WatchKind::Added);
    }
    // A silent one, registered anew when it has gone, tells the time: three of its TTLs.
    for _ in 0..3 {
        convoy.api.register(register("silent")).await.expect("registered");
        assert_eq!(watch.told().await, (WatchKind::Added, "silent-1".into()));
        let gone = async { watch.told().await };
        tokio::pin!(gone);
        let mut beat = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                event = &mut gone => {
                    assert_eq!(event, (WatchKind::Removed, "silent-1".into()), "only the silent one leaves");
                    break;
                }
                _ = beat.tick() => {
                    convoy.api.http.post(&format!("/v1/leases/{}/heartbeat", leases[0]), &serde_json::json!({})).await.ok();
                    assert_eq!(convoy.api.heartbeat(&leases[1]).await.outcome(), LeaseOutcome::Kept);
                    // Registering again renews as a heartbeat does.
                    convoy.api.register(register("again")).await.expect("said again");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_instance_leaves_when_its_time_is_over() {
    let convoy = Convoy::start().await;
    let mut watch = Watch::all(&convoy.api, Face::Http).await;
    watch.synced().await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    let drain_time = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    let drain = DrainRequest { service: "web".into(), id: "web-1".into(), drain_time, ..Default::default() };
    let asked = Instant::now();
    let answer = convoy.api.ask(Face::Grpc, Call::Drain(drain.clone())).await.expect("draining");
    assert_eq!(answer["drain_time"], "300ms");
    // Asked again, it goes on as it was.
    convoy.api.ask(Face::Http, Call::Drain(DrainRequest { drain_time: None, ..drain })).await.expect("draining");
    assert_eq!(watch.told().await.0, WatchKind::Added);
    let draining = watch.next().await;
    assert_eq!(draining.kind(), WatchKind::Changed);
    assert_eq!(draining.instance.and_then(|instance| instance.health).map(|health| health.draining), Some(true));
    let removed = watch.next().await;
    let took = asked.elapsed();
    assert_eq!((removed.kind(), removed.cause().to_string()), (WatchKind::Removed, "drained".into()));
    println!("drained {:?} after its time", took.saturating_sub(Duration::from_millis(300)));
    assert!(took + GRAIN >= Duration::from_millis(300), "{took:?}");
}
