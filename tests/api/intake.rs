//! The intake of heartbeats: who is alive does not expire because Convoy was stopped, or busy with something else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use convoy_client::proto::{
    HeartbeatRequest, HeartbeatResponse, LeaseHeartbeat, LeaseOutcome, ListInstancesRequest, RegisterRequest,
    registry_client::RegistryClient,
};
use futures_util::FutureExt;
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::support::{
    api::{Api, Face},
    child::{Child, Home},
    sample::{call, instance, instances, seconds},
    server::{Addresses, Convoy},
    until,
    watch::Watch,
    within,
};

/// A round in which this process did not get to heartbeat says nothing.
const ROUNDS: usize = 5;
/// The shortest that there is.
const TTL: Duration = Duration::from_secs(1);

/// One agent with a lease of its own, on a connection and a stream of its own.
struct Agent {
    beat: HeartbeatRequest,
    say: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
}

impl Agent {
    async fn start(addresses: Addresses, number: u32) -> Self {
        let mut client =
            RegistryClient::<Channel>::connect(format!("http://{}", addresses.grpc)).await.expect("it listens");
        let request = RegisterRequest { ttl: seconds(1), ..call([instance("agents", number)]) };
        let lease = client.register(request).await.expect("registered").into_inner().lease.expect("a lease").id;
        let beat = HeartbeatRequest { leases: vec![LeaseHeartbeat { lease, ..Default::default() }] };
        let (say, said) = mpsc::channel(64);
        say.try_send(beat.clone()).expect("there is room");
        let answers = client.stream_heartbeats(ReceiverStream::new(said)).await.expect("a stream").into_inner();
        let mut agent = Self { beat, say, answers };
        assert_eq!(agent.answered().await, LeaseOutcome::Kept);
        agent
    }

    fn send(&self) {
        self.say.try_send(self.beat.clone()).expect("the stream is open");
    }

    async fn answered(&mut self) -> LeaseOutcome {
        let answer = within("an answer", self.answers.message()).await.expect("no error").expect("an answer");
        answer.leases[0].outcome()
    }

    async fn heartbeat(&mut self) -> LeaseOutcome {
        self.send();
        self.answered().await
    }
}

/// How often a notice of leases has been told.
async fn told(api: &Api, notice: &str) -> u64 {
    let metrics = api.http.get("/metrics").await.text;
    let name = format!("convoy_lease_notices_total{{notice=\"{notice}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn nobody_expires_because_convoy_was_stopped() {
    let child = Child::start(&Home::new("storage: memory\nsettle: 0s\n")).await;
    let mut agents = Vec::new();
    for number in 0..10 {
        agents.push(Agent::start(child.addresses, number).await);
    }
    // Half of them heartbeat meanwhile, into their sockets; the others cannot, as those that wait for an answer.
    child.signal(Signal::STOP);
    let stopped = Instant::now();
    while stopped.elapsed() < TTL * 5 / 2 {
        agents.iter().take(5).for_each(Agent::send);
        tokio::time::sleep(TTL / 2).await;
    }
    child.signal(Signal::CONT);
    for agent in agents.iter_mut().take(5) {
        assert_eq!(agent.answered().await, LeaseOutcome::Kept);
    }
    for agent in agents.iter_mut().skip(5) {
        assert_eq!(agent.heartbeat().await, LeaseOutcome::Kept);
    }
    assert_eq!(told(&child.api, "lapsed").await, 0);
    assert_eq!(child.api.ids("agents").await.len(), 10);
    // It did not become blind: those that now fall silent are noticed.
    until("those that are silent lapse", async || (told(&child.api, "lapsed").await == 10).then_some(())).await;
}

/// What came of the heartbeats of some agents.
#[derive(Debug, Default)]
struct Beaten {
    /// The longest time in which this process did not get to send: no fault of Convoy's.
    unsent: Duration,
    refused: usize,
}

/// Heartbeats of some agents, on a thread of their own: what else this process does must not keep them waiting. They are
/// sent in time, whether or not the last one has been answered.
fn beating(
    addresses: Addresses,
    agents: u32,
    stop: Arc<AtomicBool>,
    started: oneshot::Sender<()>,
) -> std::thread::JoinHandle<Beaten> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut all = Vec::new();
            for number in 0..agents {
                all.push(Agent::start(addresses, number).await);
            }
            started.send(()).expect("the test waits");
            let (mut beaten, mut last) = (Beaten::default(), Instant::now());
            let mut tick = tokio::time::interval(TTL / 10);
            while !stop.load(Relaxed) {
                all.iter().for_each(Agent::send);
                beaten.unsent = beaten.unsent.max(last.elapsed());
                last = Instant::now();
                tick.tick().await;
                for agent in &mut all {
                    while let Some(Ok(answer)) = agent.answers.message().now_or_never() {
                        let answer = answer.expect("the stream goes on");
                        beaten.refused += usize::from(answer.leases[0].outcome() != LeaseOutcome::Kept);
                    }
                }
            }
            beaten
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_expires_because_queries_and_watches_keep_convoy_busy() {
    for _ in 0..ROUNDS {
        let (beaten, lapsed) = keep_busy().await;
        println!("{beaten:?}, {lapsed} lapsed");
        if (lapsed, beaten.refused) == (0, 0) {
            return;
        }
        assert!(beaten.unsent > TTL / 2, "{lapsed} lapsed though they were heard: {beaten:?}");
    }
    panic!("this machine lets nobody send for longer than half a TTL, {ROUNDS} times");
}

/// Agents heartbeat while others ask and watch as much as they can. How many leases lapsed.
async fn keep_busy() -> (Beaten, u64) {
    const HAMMERS: usize = 8;
    let convoy = Convoy::start().await;
    for first in (0..1_000).step_by(50) {
        let request = RegisterRequest { ttl: seconds(3_600), ..instances("web", first..first + 50) };
        convoy.api.register(request).await.expect("registered");
    }
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (started, all_started) = oneshot::channel();
    let agents = beating(convoy.addresses, 20, stop.clone(), started);
    within("the agents' start", all_started).await.expect("they start");
    let mut hammers = tokio::task::JoinSet::new();
    for hammer in 0..HAMMERS {
        let (convoy, stop, asked) = (Api::new(convoy.addresses), stop.clone(), asked.clone());
        let mut registry = convoy.registry.clone().max_decoding_message_size(usize::MAX);
        hammers.spawn(async move {
            while !stop.load(Relaxed) {
                let of = ListInstancesRequest { service: "web".into(), ..Default::default() };
                match hammer % 4 {
                    0 | 2 => {
                        convoy.http.get("/v1/namespaces/default/services/web/instances").await.ok();
                    }
                    1 => drop(registry.list_instances(of).await.expect("a list")),
                    _ => drop(Watch::all(&convoy, Face::Http).await.synced().await),
                }
                asked.fetch_add(1, Relaxed);
            }
        });
    }
    // Several TTLs, and enough to keep it busy.
    let begun = Instant::now();
    let busy = async || (begun.elapsed() > TTL * 4 && asked.load(Relaxed) > 5 * HAMMERS).then_some(());
    until("it was busy for a while", busy).await;
    let lapsed = told(&convoy.api, "lapsed").await;
    stop.store(true, Relaxed);
    while let Some(ended) = hammers.join_next().await {
        ended.expect("no call failed");
    }
    let beaten = tokio::task::spawn_blocking(|| agents.join()).await.expect("joined").expect("no panic");
    (beaten, lapsed)
}
