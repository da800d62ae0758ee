//! When a drain is told to be complete, no Envoy picks the instance any more: it can be killed at once, with no request
//! failing, though it is still registered and nothing is retried.

use std::time::Duration;

use convoy_client::{
    Protocol,
    proto::{BarrierOutcome, DrainRequest, WaitForConvergenceRequest},
};

use crate::{
    agents::Member,
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    load::{Load, Plan},
    machine,
};

const ROUNDS: usize = 8;
const TTL: Duration = Duration::from_secs(30);
/// It is not the end of the drain that saves the requests.
const DRAIN: Duration = Duration::from_secs(600);
const WAIT: Duration = Duration::from_secs(30);
const PLAN: Plan = Plan { host: "reviews", connections: 8, every: Duration::from_millis(3) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_can_be_killed_when_its_drain_is_complete() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let mut members = Vec::new();
    for number in 0..3 {
        members.push(join(&convoy, number).await);
    }
    let envoys =
        [Envoy::start_without_retries(&convoy, SOTW).await, Envoy::start_without_retries(&convoy, DELTA).await];
    for envoy in &envoys {
        envoy.sees("reviews", "all three", |hosts| hosts.len() == 3).await;
    }
    let client = convoy.client();
    let loads = envoys.each_ref().map(|envoy| Load::start(envoy.outbound, PLAN));
    for round in 0..ROUNDS {
        let leaves = members.remove(0);
        let request = DrainRequest {
            service: "reviews".into(),
            id: leaves.backend.id.clone(),
            drain_time: Some(convoy_client::duration(DRAIN)),
            wait: Some(convoy_client::duration(WAIT)),
            ..Default::default()
        };
        let barrier = client.drain(request).await.expect("draining").barrier.expect("a barrier");
        assert_eq!(barrier.outcome(), BarrierOutcome::Complete, "{barrier:?}");
        assert_eq!((barrier.proxies, barrier.acked), (2, 2), "{barrier:?}");
        println!("round {round}: complete after {:?}", barrier.waited);
        drop(leaves);
        members.push(join(&convoy, 3 + round).await);
        let timeout = Some(convoy_client::duration(WAIT));
        let request = WaitForConvergenceRequest { timeout, ..Default::default() };
        let convergence = client.wait_for_convergence(request).await.expect("an answer");
        assert!(convergence.complete && convergence.proxies == 2, "{convergence:?}");
    }
    for (load, envoy) in loads.into_iter().zip(&envoys) {
        load.stop().has_no_failure(&envoy.node);
        envoy.has_rejected_nothing().await;
    }
}

async fn join(convoy: &Convoy, number: usize) -> Member {
    Member::join(convoy, "reviews", &format!("reviews-{number}"), Protocol::Http, TTL).await
}
