//! What is told does not depend on the dialect: a state-of-the-world proxy is in sync, lags and holds a drain up alike.

use std::time::Duration;

use convoy_client::proto::{DrainRequest, WaitForConvergenceRequest};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use serde_json::json;

use super::{weigh, with_services};
use crate::support::{
    ads::{self, ENDPOINT, StateOfTheWorld, error},
    api::{Call, Face},
    server::Convoy,
};

type Stream = ads::Stream<StateOfTheWorld>;

async fn converged(convoy: &Convoy, millis: u64) -> bool {
    let timeout = Some(convoy_client::duration(Duration::from_millis(millis)));
    let request = WaitForConvergenceRequest { timeout, ..Default::default() };
    let answer = convoy.api.ask(Face::Http, Call::WaitForConvergence(request)).await.expect("an answer");
    answer["complete"] == true
}

#[tokio::test]
async fn a_state_of_the_world_proxy_lags_and_catches_up() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
    assert!(!converged(&convoy, 50).await);
    stream.say(Stream::acked(&first, &["web"])).await;
    assert!(converged(&convoy, 60_000).await);
    weigh(&convoy, "web", 2).await;
    let second = stream.next().await;
    stream.say(Stream::acked(&second, &["web"])).await;
    assert!(converged(&convoy, 60_000).await);

    let wait = Some(convoy_client::duration(Duration::from_secs(3)));
    let request = DrainRequest { service: "web".into(), id: "web-1".into(), wait, ..Default::default() };
    let (drained, ()) = tokio::join!(convoy.api.ask(Face::Grpc, Call::Drain(request)), async {
        let third = stream.next().await;
        // A refusal says which version it keeps.
        let version_info = second.version_info.clone();
        let refusal = DiscoveryRequest { error_detail: error("no"), ..Stream::acked(&third, &["web"]) };
        stream.say(DiscoveryRequest { version_info, ..refusal }).await;
    });
    let barrier = drained.expect("draining")["barrier"].clone();
    let missing = &barrier["missing"][0];
    assert_eq!((&missing["reason"], &missing["message"]), (&json!("rejected"), &json!("no")), "{barrier}");
}
