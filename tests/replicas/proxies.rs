//! Envoys whose replicas are killed and stopped, and whose replicas lose etcd, under traffic: no request fails, no endpoint
//! is lost, who moves to another replica is sent nothing again, and later changes arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use convoy_client::{Agent, Protocol};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{
    agents::{Backend, Member},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    etcd::Cluster,
    load::{Load, Plan},
    machine::{self, free_address},
    steady::Steady,
    wait::until,
};

const REPLICAS: usize = 3;
const TTL: Duration = Duration::from_secs(10);
const IDS: [&str; 3] = ["first", "second", "third"];
const PLAN: Plan = Plan { host: "reviews", connections: 4, every: Duration::from_millis(10) };
/// How many requests go through after each fault.
const REQUESTS: usize = 200;
const STOPPED: Duration = Duration::from_secs(20);
const ETCD_AWAY: Duration = Duration::from_secs(5);
/// A replica that is stopped takes connections and says nothing: Envoy leaves it after 15 s, and may come to it once more.
const MOVED: Duration = Duration::from_secs(40);
/// What an Envoy counts when it is sent something, in the state of the world and incremental. Of what it has, the one is
/// sent again by the protocol those names that it asks for (endpoints and routes), so only another version and other hosts
/// count; the other is told that there is no news of clusters and listeners, and nothing of endpoints and routes.
const SENT: [&str; 2] = [
    "((cds|lds)[.]update_success|cluster.reviews.(version|membership_change)|rds.*[.]version)$",
    "((cluster|listener)_(added|modified|updated|removed)|(rds.*|cluster.reviews)[.](update_success|membership_change))$",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_go_on_at_another_replica() {
    let _turn = machine::alone().await;
    let mut etcd = Cluster::start(1, &[]);
    let mut mesh = Mesh::start(&etcd).await;

    for at in 0..mesh.envoys.len() {
        let replica = mesh.settles(at, None).await;
        let before = mesh.updates().await;
        let killed = Instant::now();
        mesh.replicas[replica].kill();
        mesh.settles(at, Some(replica)).await;
        println!("{}: at another replica {:?} after its own was killed", mesh.envoys[at].node, killed.elapsed());
        mesh.goes_on().await;
        assert_eq!(mesh.updates().await, before, "who moves is sent nothing");
        mesh.changes("after a replica was killed").await;
        mesh.replicas[replica].restart().await;
    }

    let replica = mesh.settles(0, None).await;
    let before = mesh.updates().await;
    let stopped = Instant::now();
    mesh.replicas[replica].signal(Signal::STOP);
    mesh.settles(0, Some(replica)).await;
    println!("{}: at another replica {:?} after its own was stopped", mesh.envoys[0].node, stopped.elapsed());
    assert_eq!(mesh.updates().await, before, "who moves is sent nothing");
    mesh.changes("while a replica is stopped").await;
    let before = mesh.updates().await;
    tokio::time::sleep_until(stopped + STOPPED).await;
    mesh.replicas[replica].signal(Signal::CONT);
    mesh.goes_on().await;
    assert_eq!(mesh.updates().await, before, "one that comes back changes nothing");
    mesh.changes("after a replica went on").await;

    let before = mesh.updates().await;
    etcd.kill(0);
    let away = Instant::now();
    mesh.goes_on().await;
    tokio::time::sleep_until(away + ETCD_AWAY).await;
    etcd.revive(0);
    mesh.changes("after etcd came back, from its start on").await;
    let one_more = |(name, count): (&String, &u64)| name.ends_with("version") || count - before[name] <= 1;
    let after = mesh.updates().await;
    assert!(after.iter().all(one_more), "the new one only: {before:?} {after:?}");
    mesh.ends().await;
}

/// Replicas, agents of `reviews`, and two Envoys under traffic, one in each dialect, whose endpoints are looked at all the
/// time.
pub struct Mesh {
    /// The replicas' addresses for agents and callers.
    pub servers: String,
    pub replicas: Vec<Convoy>,
    pub envoys: [Arc<Envoy>; 2],
    pub members: Vec<Member>,
    watchers: [Steady; 2],
    loads: [Load; 2],
}

impl Mesh {
    pub async fn start(etcd: &Cluster) -> Self {
        let configuration = format!("settle: 0s\netcd: {{endpoints: [{}]}}\n", etcd.endpoints().join(", "));
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            replicas.push(Convoy::start_with("etcd", &configuration).await);
        }
        let servers = replicas.iter().map(Convoy::server).collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for id in IDS {
            members.push(join(&servers, id).await);
        }
        let addresses: BTreeSet<SocketAddr> = members.iter().map(|member| member.backend.address).collect();
        let others = replicas[1..].iter().map(|replica| replica.xds.to_string()).collect::<Vec<_>>().join(",");
        let arguments = |dialect| [dialect, "--xds-address", &others];
        let [state_of_the_world, incremental] = [arguments(SOTW), arguments(DELTA)];
        let envoys = [
            Arc::new(Envoy::launch(&replicas[0], &state_of_the_world, free_address()).await),
            Arc::new(Envoy::launch(&replicas[0], &incremental, free_address()).await),
        ];
        for envoy in &envoys {
            envoy.serves().await;
            envoy.sees("reviews", "all agents", |hosts| hosts.keys().eq(&addresses)).await;
        }
        let watchers = envoys.each_ref().map(|envoy| Steady::watch(envoy.clone(), addresses.clone()));
        let loads = envoys.each_ref().map(|envoy| Load::start(envoy.outbound, PLAN));
        let mesh = Self { servers, replicas, envoys, members, watchers, loads };
        mesh.goes_on().await;
        mesh
    }

    /// Waits until an Envoy is in sync at a replica, but not at this one: at which.
    pub async fn settles(&self, envoy: usize, but: Option<usize>) -> usize {
        let what = "Envoy's stream is in sync at a replica";
        until(what, MOVED, async || self.at(envoy, but).await.ok_or("at none".into())).await
    }

    /// A replica says so of itself; the one that is left out may be unable to.
    async fn at(&self, envoy: usize, but: Option<usize>) -> Option<usize> {
        for (at, replica) in self.replicas.iter().enumerate().filter(|(at, _)| Some(*at) != but) {
            let Some(proxy) = replica.proxy(&self.envoys[envoy].node).await else { continue };
            let here = proxy["connected"] == true && proxy["replica"].as_str().is_none_or(str::is_empty);
            let types = proxy["types"].as_array().cloned().unwrap_or_default();
            let synced = |kind: &str| types.iter().any(|of| of["type"] == kind && of["sync"] == "synced");
            if here && ["clusters", "endpoints", "listeners", "routes"].into_iter().all(synced) {
                return Some(at);
            }
        }
        None
    }

    /// What each Envoy has been sent, by its node and the counter.
    pub async fn updates(&self) -> BTreeMap<String, u64> {
        let mut updates = BTreeMap::new();
        for (envoy, filter) in self.envoys.iter().zip(SENT) {
            let counts = envoy.stats(filter).await;
            assert!(counts.len() >= 4, "{counts:?}");
            updates.extend(counts.into_iter().map(|(name, count)| (format!("{} {name}", envoy.node), count)));
        }
        updates
    }

    /// Waits for more requests to be answered.
    pub async fn goes_on(&self) {
        for load in &self.loads {
            load.reaches(load.count() + REQUESTS).await;
        }
    }

    /// An agent comes, by whichever replica takes it, and all Envoys have it.
    pub async fn changes(&mut self, when: &str) {
        let begun = Instant::now();
        let member = join(&self.servers, &format!("new-{}", self.members.len())).await;
        let registered = begun.elapsed();
        for envoy in &self.envoys {
            envoy.sees("reviews", "the new agent", |hosts| hosts.contains_key(&member.backend.address)).await;
        }
        let seen = begun.elapsed();
        println!(
            "{when}: a new agent was registered in {registered:?}, and in all Envoys {:?} later",
            seen - registered
        );
        self.members.push(member);
    }

    pub async fn ends(self) {
        for watcher in self.watchers {
            watcher.has_lost_nothing().await;
        }
        for (load, envoy) in self.loads.into_iter().zip(&self.envoys) {
            load.stop().has_no_failure(&envoy.node);
            let hosts = envoy.hosts("reviews").await.unwrap_or_default();
            let all = self.members.iter().map(|member| &member.backend.address);
            assert!(hosts.keys().eq(all.collect::<BTreeSet<_>>()), "{hosts:?}");
            envoy.has_rejected_nothing().await;
        }
    }
}

async fn join(servers: &str, id: &str) -> Member {
    let backend = Backend::start(id);
    let builder = Agent::builder(servers, "reviews").id(id).address(backend.address.ip().to_string());
    let builder = builder.port("http", backend.address.port(), Protocol::Http).ttl(TTL);
    Member { backend, agent: builder.start().await.expect("registered") }
}
