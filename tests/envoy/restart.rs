//! Convoy is killed with `kill -9` under traffic and started again: no request fails, no endpoint leaves Envoy, and the
//! agents are back by themselves.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use convoy_client::{Protocol, State};
use tokio::time::Instant;

use crate::{
    agents::Member,
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    load::{Load, Plan},
    machine,
    steady::Steady,
    wait::{PATIENCE, until},
};

const TTL: Duration = Duration::from_secs(30);
const IDS: [&str; 3] = ["first", "second", "third"];
const PLAN: Plan = Plan { host: "reviews", connections: 4, every: Duration::from_millis(10) };
/// How many requests go through before, while Convoy is away, and after.
const REQUESTS: usize = 400;
/// Without stored state Convoy tells returning Envoys nothing for the settle window, 15 s.
const SETTLED: Duration = Duration::from_secs(30);
const TYPES: [&str; 4] = ["clusters", "endpoints", "listeners", "routes"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_redb_changes_nothing_in_envoy() {
    a_restart_is_not_noticed("redb", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_memory_loses_no_endpoint() {
    a_restart_is_not_noticed("memory", 1).await;
}

/// Kills Convoy so often, and looks that only what happens afterwards is seen.
async fn a_restart_is_not_noticed(storage: &str, kills: usize) {
    let _turn = machine::share().await;
    let mut convoy = Convoy::start_with(storage, "").await;
    let mut members = Vec::new();
    for id in IDS {
        members.push(Member::join(&convoy, "reviews", id, Protocol::Http, TTL).await);
    }
    let addresses: BTreeSet<SocketAddr> = members.iter().map(|member| member.backend.address).collect();
    let envoys = [Arc::new(Envoy::start(&convoy, SOTW).await), Arc::new(Envoy::start(&convoy, DELTA).await)];
    for envoy in &envoys {
        envoy.sees("reviews", "all agents", |hosts| hosts.keys().eq(&addresses)).await;
        synced(&convoy, envoy).await;
    }
    let before = changes(&envoys).await;
    let watchers = envoys.each_ref().map(|envoy| Steady::watch(envoy.clone(), addresses.clone()));
    let loads = envoys.each_ref().map(|envoy| Load::start(envoy.outbound, PLAN));
    goes_on(&loads).await;

    let mut begun = Instant::now();
    for _ in 0..kills {
        convoy.kill();
        for envoy in &envoys {
            connected(envoy, 0).await;
        }
        goes_on(&loads).await;
        begun = Instant::now();
        convoy.restart().await;
        let serves = begun.elapsed();
        if storage == "redb" {
            assert_eq!(convoy.instances("reviews").await, IDS, "what was acknowledged has survived");
        }
        agents_are_back(&convoy, &members).await;
        let agents = begun.elapsed();
        for envoy in &envoys {
            connected(envoy, 1).await;
            synced(&convoy, envoy).await;
        }
        let proxies = begun.elapsed();
        println!(
            "{storage}: after the start it served in {serves:?}, all agents were back in {agents:?}, all Envoys in {proxies:?}"
        );
        assert_eq!(changes(&envoys).await, before, "no host came or went");
    }

    // It goes on: who comes now is seen, and is the only change.
    let new = Member::join(&convoy, "reviews", "new", Protocol::Http, TTL).await;
    for envoy in &envoys {
        until("the new agent is seen", SETTLED, async || {
            let hosts = envoy.hosts("reviews").await.unwrap_or_default();
            if hosts.contains_key(&new.backend.address) { Ok(()) } else { Err(format!("{hosts:?}")) }
        })
        .await;
        envoy.has_rejected_nothing().await;
    }
    println!("{storage}: a change was in Envoy again {:?} after the start", begun.elapsed());
    assert_eq!(changes(&envoys).await, before.map(|count| count + 1), "one host came");
    goes_on(&loads).await;
    for watcher in watchers {
        watcher.has_lost_nothing().await;
    }
    for (load, envoy) in loads.into_iter().zip(&envoys) {
        load.stop().has_no_failure(&format!("{storage}, {}", envoy.node));
    }
}

/// Waits for more requests to be answered.
async fn goes_on(loads: &[Load]) {
    for load in loads {
        load.reaches(load.count() + REQUESTS).await;
    }
}

async fn connected(envoy: &Envoy, state: u64) {
    until("Envoy's connection to Convoy", PATIENCE, async || {
        let now = envoy.stat("control_plane.connected_state").await;
        if now == state { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

/// Waits until Envoy has asked for everything and acknowledged what it got.
async fn synced(convoy: &Convoy, envoy: &Envoy) {
    until("Envoy is in sync", PATIENCE, async || {
        let proxy = convoy.proxy(&envoy.node).await.ok_or("it is not connected")?;
        let types = proxy["types"].as_array().cloned().unwrap_or_default();
        let synced = |kind: &&str| types.iter().any(|of| of["type"] == *kind && of["sync"] == "synced");
        if TYPES.iter().all(synced) { Ok(()) } else { Err(proxy.to_string()) }
    })
    .await;
}

async fn agents_are_back(convoy: &Convoy, members: &[Member]) {
    until("the agents are registered again", PATIENCE, async || {
        let registered =
            members.iter().all(|member| matches!(*member.agent.states().borrow(), State::Registered { .. }));
        let instances = convoy.instances("reviews").await;
        if registered && instances == IDS { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

/// How often a host came or went, for each Envoy.
async fn changes(envoys: &[Arc<Envoy>; 2]) -> [u64; 2] {
    let [first, second] = envoys.each_ref().map(|envoy| envoy.stat("cluster.reviews.membership_change"));
    [first.await, second.await]
}
