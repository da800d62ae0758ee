//! All replicas and all members of etcd are killed at the same moment, as when a cluster loses its power, and started
//! again: no request fails, nobody who heartbeats leaves or registers again, no Envoy is sent anything, and nothing that
//! was acknowledged is lost. Those that died with them go.
//!
//! `CONVOY_OUTAGE_SECONDS=60 cargo test --test replicas together -- --nocapture` for one that lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use convoy_client::{
    Agent, Client, Protocol, State,
    proto::{ListInstancesRequest, ListServicesRequest, PutServiceRequest, ServicePort},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{convoy::Convoy, etcd::Cluster, machine, proxies::Mesh, wait::until};

const SECONDS: &str = "CONVOY_OUTAGE_SECONDS";
/// Where Envoys do not look, so that what is written there is no reason to tell them anything.
const ELSEWHERE: &str = "elsewhere";
/// Of these the first two die with the cluster: fewer than would be braked.
const SHORT_LIVED: u16 = 4;
const DIE: usize = 2;
const TTL: Duration = Duration::from_secs(3);
const WRITERS: usize = 4;
const WRITES: usize = 100;
/// The old replicas' keys end, the new ones adopt their leases, and give each its time: about 30 s.
const GONE: Duration = Duration::from_secs(180);
/// Everybody is back.
const BACK: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_all_are_killed_at_once() {
    let _turn = machine::alone().await;
    let outage = std::env::var(SECONDS).map_or(0, |seconds| seconds.parse().expect("a number of seconds"));
    let mut etcd = Cluster::start(3, &[]);
    let mut mesh = Mesh::start(&etcd).await;
    let mut agents = Vec::new();
    for number in 0..SHORT_LIVED {
        let builder = Agent::builder(&mesh.servers, "short").namespace(ELSEWHERE).id(format!("short-{number}"));
        let builder = builder.address("10.0.0.1").port("http", 8080 + number, Protocol::Http).ttl(TTL);
        agents.push(builder.start().await.expect("registered"));
    }
    let before = [who(&mesh.replicas[0], "default", "reviews").await, who(&mesh.replicas[0], ELSEWHERE, "short").await];
    assert_eq!(before.each_ref().map(BTreeMap::len), [3, usize::from(SHORT_LIVED)]);
    for envoy in 0..mesh.envoys.len() {
        mesh.settles(envoy, None).await;
    }
    let updates = mesh.updates().await;

    let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = mesh.replicas[writer % mesh.replicas.len()].client();
        writers.spawn(write(client, writer, acknowledged.clone()));
    }
    let written = || acknowledged.lock().expect("nobody panics with it").len();
    until("writes", BACK, async || if written() >= WRITES { Ok(()) } else { Err(written().to_string()) }).await;

    let killed = Instant::now();
    agents.drain(..DIE);
    mesh.replicas.iter().for_each(|replica| replica.signal(Signal::KILL));
    etcd.kill_all();
    mesh.replicas.iter_mut().for_each(Convoy::kill);
    // Each writer ends with the first write that fails: what was acknowledged by then is known.
    while let Some(ended) = writers.join_next().await {
        ended.expect("no panic");
    }
    let written = acknowledged.lock().expect("nobody panics with it").clone();
    // Not a wait for anything: what the outage is in the long form.
    tokio::time::sleep(Duration::from_secs(outage)).await;

    let restarted = Instant::now();
    (0..3).for_each(|at| etcd.revive(at));
    join_all(mesh.replicas.iter_mut().map(Convoy::restart)).await;
    println!(
        "all killed for {:.1?}, all replicas ready {:.1?} after the start",
        restarted - killed,
        restarted.elapsed()
    );
    for agent in mesh.members.iter().map(|member| &member.agent).chain(&agents) {
        let mut states = agent.states();
        let back = states.wait_for(|state| matches!(state, State::Registered { .. }));
        let _registered = tokio::time::timeout(BACK, back).await.expect("in time").expect("it goes on");
    }
    println!("all agents have heartbeated {:.1?} after the start", restarted.elapsed());
    for envoy in 0..mesh.envoys.len() {
        mesh.settles(envoy, None).await;
    }
    println!("both Envoys are in sync {:.1?} after the start", restarted.elapsed());
    mesh.goes_on().await;
    assert_eq!(mesh.updates().await, updates, "no Envoy is sent anything");

    let mut left = before[1].clone();
    left.retain(|id, _| agents.iter().any(|agent| agent.id() == id));
    for replica in &mesh.replicas {
        until("those that died are gone, and nobody else", GONE, async || {
            let there = who(replica, ELSEWHERE, "short").await;
            if there == left { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }
    println!("those that died are gone {:.1?} after the start", restarted.elapsed());
    for replica in &mesh.replicas {
        assert_eq!(who(replica, "default", "reviews").await, before[0], "under their incarnation and lease");
        let found = services(&replica.client()).await;
        let lost: Vec<&String> = written.iter().filter(|service| !found.contains(*service)).collect();
        assert!(lost.is_empty(), "of {} acknowledged writes {} are lost: {lost:?}", written.len(), lost.len());
    }
    println!("{} acknowledged writes, none lost", written.len());
    mesh.changes("after all were killed").await;
    mesh.ends().await;
}

/// The instances of a service as a replica has them: incarnation and lease, by id.
async fn who(replica: &Convoy, namespace: &str, service: &str) -> BTreeMap<String, (u64, String)> {
    let (namespace, service) = (namespace.to_owned(), service.to_owned());
    let request = ListInstancesRequest { namespace, service };
    let listed = replica.client().list_instances(request).await.expect("a list");
    listed.instances.into_iter().map(|of| (of.id, (of.incarnation, of.lease))).collect()
}

async fn services(client: &Client) -> BTreeSet<String> {
    let request = ListServicesRequest { namespace: ELSEWHERE.into() };
    let listed = client.list_services(request).await.expect("a list");
    listed.services.into_iter().map(|service| service.name).collect()
}

/// Makes one service after the other, until that fails.
async fn write(client: Client, writer: usize, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    for step in 0.. {
        let service = format!("written-{writer}-{step}");
        let port = ServicePort { name: "http".into(), protocol: Protocol::Http.into(), port: 8080 };
        let request = PutServiceRequest {
            namespace: ELSEWHERE.into(),
            service: service.clone(),
            ports: vec![port],
            ..Default::default()
        };
        if client.put_service(request).await.is_err() {
            return;
        }
        acknowledged.lock().expect("nobody panics with it").insert(service);
    }
}
