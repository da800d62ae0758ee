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
use rustix::process::Signal;
use tokio::sync::mpsc;
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

/// Heartbeats of some agents, on a thread of their own: what else this process does must not keep them waiting.
fn beating(addresses: Addresses, agents: u32, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<(Duration, usize)> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut all = Vec::new();
            for number in 0..agents {
                all.push(Agent::start(addresses, number).await);
            }
            let (mut longest, mut refused, mut last) = (Duration::ZERO, 0, Instant::now());
            while !stop.load(Relaxed) {
                for agent in &mut all {
                    refused += usize::from(agent.heartbeat().await != LeaseOutcome::Kept);
                }
                longest = longest.max(last.elapsed());
                last = Instant::now();
                tokio::time::sleep(TTL / 10).await;
            }
            (longest, refused)
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_expires_because_queries_and_watches_keep_convoy_busy() {
    const HAMMERS: usize = 8;
    let convoy = Convoy::start().await;
    for first in (0..2_000).step_by(50) {
        convoy
            .api
            .register(RegisterRequest { ttl: seconds(3_600), ..instances("web", first..first + 50) })
            .await
            .expect("registered");
    }
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let agents = beating(convoy.addresses, 20, stop.clone());
    let mut hammers = tokio::task::JoinSet::new();
    for hammer in 0..HAMMERS {
        let (convoy, stop, asked) = (Api::new(convoy.addresses), stop.clone(), asked.clone());
        hammers.spawn(async move {
            while !stop.load(Relaxed) {
                if hammer % 2 == 0 {
                    convoy.http.get("/v1/namespaces/default/services/web/instances").await.ok();
                } else if hammer % 4 == 1 {
                    let of = ListInstancesRequest { service: "web".into(), ..Default::default() };
                    convoy
                        .registry
                        .clone()
                        .max_decoding_message_size(usize::MAX)
                        .list_instances(of)
                        .await
                        .expect("a list");
                } else {
                    Watch::all(&convoy, Face::Http).await.synced().await;
                }
                asked.fetch_add(1, Relaxed);
            }
        });
    }
    // Several TTLs, and enough to keep it busy.
    let begun = Instant::now();
    until("it was busy for a while", async || {
        (begun.elapsed() > TTL * 4 && asked.load(Relaxed) > 10 * HAMMERS).then_some(())
    })
    .await;
    let (lapsed, overdue) = (told(&convoy.api, "lapsed").await, told(&convoy.api, "overdue").await);
    stop.store(true, Relaxed);
    while let Some(ended) = hammers.join_next().await {
        ended.expect("no call failed");
    }
    let (longest, refused) = tokio::task::spawn_blocking(|| agents.join()).await.expect("joined").expect("no panic");
    println!("{} calls; the longest time between two heartbeats of one agent: {longest:?}", asked.load(Relaxed));
    assert_eq!((lapsed, refused), (0, 0), "{overdue} were overdue; longest {longest:?}");
}
