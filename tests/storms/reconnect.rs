//! Convoy is killed and started again, and thousands of agents and proxies come back at once: no agent that is alive
//! expires, and no proxy is told that anything is gone.
//!
//! `CONVOY_STORM_AGENTS=10000 CONVOY_STORM_STREAMS=1000 cargo test --test storms reconnect -- --nocapture` for long.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use convoy_client::{Agent, Protocol, State, proto::ListInstancesRequest};
use tokio::task::JoinSet;

use crate::{
    field::Identity,
    machine::{self, free_address},
    sidecar::Sidecars,
    size,
    support::child::{Child, Home},
};

const AGENTS: (&str, usize) = ("CONVOY_STORM_AGENTS", 300);
const STREAMS: (&str, usize) = ("CONVOY_STORM_STREAMS", 50);
/// Of each service, so far as there are that many.
const INSTANCES: usize = 100;
const FEWEST_SERVICES: usize = 10;
/// So many begin at a time: what is asked of the store at first is not what is looked at.
const BEGIN: usize = 64;
/// The default of the API.
const TTL: Duration = Duration::from_secs(30);
/// Files for all else that the test has open.
const SPARE_FILES: usize = 500;
/// Only a test that fails waits so long: in the long form everybody comes back on two cores.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_lost_when_all_come_back_at_once() {
    let _turn = machine::alone().await;
    let (mut agents, streams) = (size::said(AGENTS.0, AGENTS.1), size::said(STREAMS.0, STREAMS.1));
    let files = size::open_files();
    if agents + streams + SPARE_FILES > files {
        agents = files - streams - SPARE_FILES;
        println!("{files} files may be open: {agents} agents only");
    }
    let ports = ["http", "grpc", "xds"].map(|port| format!("{port}_address: {}\n", free_address())).concat();
    // With the brake, as in the field: whoever lapses is told apart below.
    let home = Home::new(&format!("storage: redb\nbrake: {{}}\n{ports}"));
    let mut convoy = Child::start(&home).await;
    let services = (agents / INSTANCES).max(FEWEST_SERVICES);
    let begun = Instant::now();
    let fleet = Agents::start(&convoy, agents, services).await;
    println!("{agents} agents of {services} services, a connection each: registered in {:.1?}", begun.elapsed());
    let names: Vec<String> = (0..services).map(service).collect();
    let begun = Instant::now();
    let sidecars = Sidecars::start(convoy.addresses.xds, streams, names.clone());
    eventually("all proxies have all endpoints", async || sidecars.having(agents) == streams).await;
    eventually("all proxies are in sync", async || in_sync(&convoy).await == streams).await;
    let cold = begun.elapsed();
    let identities = who_is_there(&convoy, &names).await;
    assert_eq!(identities.len(), agents);
    let (first, before) = (sidecars.sent(), convoy.memory_mib());
    println!(
        "proxies that began from nothing were in sync after {cold:.1?}: {first}; Convoy has {before} MiB, {} at most",
        convoy.peak_memory_mib()
    );

    convoy.kill().await;
    eventually("all agents know", async || fleet.standing(|state| matches!(state, State::Away(_))) == agents).await;
    let down = Instant::now();
    convoy = Child::start(&home).await;
    let started = Instant::now();
    let (heard, synced) = tokio::join!(
        async {
            let heard = async || fleet.standing(|state| matches!(state, State::Registered { .. })) == agents;
            eventually("all agents have heartbeated", heard).await;
            started.elapsed()
        },
        async {
            eventually("all proxies are in sync", async || in_sync(&convoy).await == streams).await;
            started.elapsed()
        }
    );
    let sent = sidecars.sent();
    println!(
        "Convoy started in {:.1?}; then all agents had heartbeated after {heard:.1?}, and all proxies were in sync after \
         {synced:.1?}; {} MiB at most; {sent}",
        started - down,
        convoy.peak_memory_mib()
    );
    sidecars.have_lost_nothing();
    assert_eq!(sidecars.having(agents), streams);
    assert_eq!(who_is_there(&convoy, &names).await, identities, "nobody had to register again");
    let metrics = convoy.api.http.get("/metrics").await.text;
    let removed = metrics.lines().filter(|line| line.starts_with("convoy_removals") && !line.ends_with(" 0"));
    assert_eq!(removed.count(), 0, "{metrics}");

    // All of them are there for what comes next, too.
    let begun = Instant::now();
    let _new = Agents::join(&convoy, agents, services).await;
    eventually("all proxies have the new endpoint", async || sidecars.having(agents + 1) == streams).await;
    println!("one more agent was in all proxies after {:.1?}", begun.elapsed());
    sidecars.have_lost_nothing();
    convoy.assert_running();
}

fn service(number: usize) -> String {
    format!("service-{number}")
}

/// Agents in this process, as an application has one: each with a connection, and a task of its own.
struct Agents(Vec<Agent>);

impl Agents {
    async fn start(convoy: &Child, count: usize, services: usize) -> Self {
        let (mut agents, mut beginning) = (Vec::new(), JoinSet::new());
        for number in 0..count {
            if beginning.len() == BEGIN {
                agents.extend(beginning.join_next().await.map(|agent| agent.expect("no panic")));
            }
            beginning.spawn(Self::join(convoy, number, services));
        }
        agents.extend(beginning.join_all().await);
        Self(agents)
    }

    /// The agent with this number; its service and its address follow from that.
    fn join(convoy: &Child, number: usize, services: usize) -> impl Future<Output = Agent> + 'static {
        let server = format!("http://{}", convoy.addresses.grpc);
        let [_, high, middle, low] = u32::try_from(number).expect("not so many").to_be_bytes();
        let builder = Agent::builder(server, service(number % services)).id(format!("agent-{number}"));
        let builder = builder.address(format!("10.{high}.{middle}.{low}")).port("http", 8080, Protocol::Http);
        let agent = builder.ttl(TTL).start_timeout(PATIENCE).start();
        async move { agent.await.expect("registered") }
    }

    /// How many stand like this.
    fn standing(&self, like: impl Fn(&State) -> bool) -> usize {
        self.0.iter().filter(|agent| like(&agent.states().borrow())).count()
    }
}

/// How many proxies are connected and have everything.
async fn in_sync(convoy: &Child) -> usize {
    let convergence = convoy.api.http.get("/v1/convergence").await.ok();
    convergence["converged"].as_u64().unwrap_or_default().try_into().expect("not so many")
}

async fn who_is_there(convoy: &Child, services: &[String]) -> BTreeMap<String, Identity> {
    let mut identities = BTreeMap::new();
    for service in services {
        let request = ListInstancesRequest { service: service.clone(), ..Default::default() };
        let listed = convoy.api.registry.clone().list_instances(request).await.expect("a service").into_inner();
        for instance in listed.instances {
            identities.insert(instance.id, Identity { incarnation: instance.incarnation, lease: instance.lease });
        }
    }
    identities
}

/// Looks until it is so. It may take longer than what other tests wait for.
async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}
