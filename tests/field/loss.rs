//! Three of ten packets between agents and Convoy are lost, each way: nobody who is alive leaves, no write that was
//! acknowledged is lost, and afterwards all are who they were.
//!
//! `CONVOY_LOSS_SECONDS=300 CONVOY_LOSS_AGENTS=100 cargo test --test field loss -- --nocapture` for long.

use std::{
    collections::BTreeSet,
    io::Write,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use convoy_client::proto::{ListServicesRequest, Verdict, WatchKind};
use tokio::{process::Command, task::JoinSet};

use crate::{
    field::Field,
    fleet::{Orders, ids},
    lossy::Loss,
    network::Network,
};

const SECONDS_VARIABLE: &str = "CONVOY_LOSS_SECONDS";
const AGENTS_VARIABLE: &str = "CONVOY_LOSS_AGENTS";
const PERCENT: u8 = 30;
/// The default of the API: with heartbeats every 10 s, and TCP that waits longer after each packet that is lost, much less
/// is not enough for a wire like this.
const TTL: Duration = Duration::from_secs(30);
/// Long enough that each lease ends unless it is renewed over the wire.
const LOST: Duration = Duration::from_secs(35);
const AGENTS: u32 = 6;
/// So many come while packets are lost.
const NEW: u32 = 3;
const WRITERS: u32 = 2;

/// Set where the test must not be left out.
const REQUIRED: &str = "CONVOY_TEST_NAMESPACES_REQUIRED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_and_nothing_is_lost_while_packets_are() {
    if let Err(why) = Loss::possible() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
        // Straight to where the runner does not hold it back: nobody is to think that it ran.
        let told = writeln!(std::io::stderr(), "LEFT OUT: the loss of packets, since {why}");
        return told.expect("standard error is there");
    }
    let said = |variable| std::env::var(variable).ok().map(|number| number.parse::<u32>().expect("a number"));
    let lasts = said(SECONDS_VARIABLE).map_or(LOST, |seconds| Duration::from_secs(seconds.into()));
    let agents = said(AGENTS_VARIABLE).unwrap_or(AGENTS);
    let all = agents + NEW;
    let network = Network::new();
    let orders = Orders { namespace: Some(network.namespace.clone()), ..Orders::ttl(TTL) };
    let mut field =
        Field::start(&format!("brake: {{}}\ngrpc_address: {}:0\n", network.convoy), orders, 1..agents + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    let loss = Loss::of(&network, PERCENT);
    field.fleet.start(agents + 1..all + 1);
    let book = Arc::<Mutex<Book>>::default();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(network.namespace.clone(), field.convoy.addresses.grpc.to_string(), writer, book.clone()));
    }
    let from_the_start = ids(1..agents + 1);
    field
        .holds(lasts, async || {
            let there = field.convoy.api.ids("web").await;
            assert!(from_the_start.iter().all(|id| there.contains(id)), "{there:?} after {:?}", begun.elapsed());
        })
        .await;
    let [to_convoy, to_agents] = loss.lost();
    drop(loss);
    let healed = Instant::now();
    // Those under way are killed with their futures: what they wrote may be there or not.
    writers.shutdown().await;
    field.only_are_left(&ids(1..all + 1)).await;
    field.all_are(Verdict::Healthy, all as usize).await;
    println!(
        "{agents} agents, {PERCENT} % lost for {lasts:?} ({to_convoy} packets to Convoy, {to_agents} to agents): all healthy {:.1?} after",
        healed.elapsed()
    );
    let now = field.identities().await;
    for (id, before) in &field.identities {
        assert_eq!(&now[id], before, "{id} did not have to register again");
    }
    assert!(to_convoy > 0 && to_agents > 0, "packets were lost each way");
    assert_eq!(field.journal.left(mark), []);
    assert!(field.proxy.fewest_since(begun) >= agents as usize);
    let told = field.journal.since(mark);
    let doubts = told.iter().filter(|(_, event)| event.kind() == WatchKind::Changed).count();
    let found = services(&field).await;
    let book = book.lock().expect("nobody panics with it");
    let lost: Vec<&String> = book.acknowledged.iter().filter(|service| !found.contains(*service)).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    let acknowledged = book.acknowledged.len();
    println!(
        "{acknowledged} writes acknowledged, {} refused or unanswered, {doubts} changes of instances",
        book.failed
    );
    assert!(acknowledged > 0, "some writes came through");
}

/// The services that were made.
#[derive(Debug, Default)]
struct Book {
    acknowledged: BTreeSet<String>,
    failed: usize,
}

/// Makes one service after the other, from the agents' side of the wire, each by a command of its own.
async fn write(namespace: String, server: String, writer: u32, book: Arc<Mutex<Book>>) {
    for step in 1.. {
        let service = format!("writer-{writer}-{step}");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, env!("CARGO_BIN_EXE_convoy"), "--server", &server]);
        command.args(["service", "put", &service, "--port", "http:80"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let acknowledged = command.status().await.expect("it runs").success();
        let mut book = book.lock().expect("nobody panics with it");
        if acknowledged {
            book.acknowledged.insert(service);
        } else {
            book.failed += 1;
        }
    }
}

async fn services(field: &Field) -> BTreeSet<String> {
    let mut registry = field.convoy.api.registry.clone();
    let listed = registry.list_services(ListServicesRequest::default()).await.expect("a list").into_inner();
    listed.services.into_iter().map(|service| service.name).collect()
}
