//! Agents come, change and go in order, and nobody who sends a request notices.

use std::time::Duration;

use convoy_client::{Drained, Protocol};

use crate::{
    agents::Member,
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    load::{Load, Plan},
    machine,
};

const REQUESTS: usize = 10_000;
const TTL: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_millis(500);
const PLAN: Plan = Plan { host: "reviews", connections: 8, every: Duration::from_millis(6) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_agents_come_go_and_drain() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let mut members = Vec::new();
    for id in ["first", "second", "third"] {
        members.push(join(&convoy, id.to_owned()).await);
    }
    let envoys = [Envoy::start(&convoy, SOTW).await, Envoy::start(&convoy, DELTA).await];
    for envoy in &envoys {
        envoy.sees("reviews", "all three", |hosts| hosts.len() == 3).await;
    }
    let loads = envoys.each_ref().map(|envoy| Load::start(envoy.outbound, PLAN));
    let mut rounds = 0;
    while loads.iter().any(|load| load.count() < REQUESTS) {
        rounds += 1;
        members.push(join(&convoy, format!("come-{rounds}")).await);
        members.push(join(&convoy, format!("more-{rounds}")).await);

        // One goes at once, and serves on until nobody asks it any more.
        let leaves = members.remove(0);
        leaves.agent.deregister().await.expect("deregistered");
        leaves.backend.finish().await;

        // One drains, and is gone the moment its drain is over.
        let drains = members.remove(0);
        assert_eq!(drains.agent.drain_for(DRAIN).await.expect("drained"), Drained::Gone);
        drop(drains.backend);

        // One takes a pause.
        members[0].agent.set_ready(false).await.expect("heard");
        members[0].agent.set_ready(true).await.expect("heard");
    }
    println!("{rounds} rounds: in each two agents came, one was deregistered, one drained, one paused");
    for (load, envoy) in loads.into_iter().zip(&envoys) {
        load.stop().has_no_failure(&envoy.node);
        let retries = envoy.stat("cluster.reviews.upstream_rq_retry").await;
        println!("{}: {retries} retries", envoy.node);
        envoy.has_rejected_nothing().await;
    }
}

async fn join(convoy: &Convoy, id: String) -> Member {
    Member::join(convoy, "reviews", &id, Protocol::Http, TTL).await
}
