//! Draining behind the barrier: complete when nobody picks the instance any more, else who may and why.

use std::time::{Duration, Instant};

use convoy_client::proto::{DrainRequest, Registration};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use serde_json::{Value, json};

use super::{Stream, proxy, refusal, with_services};
use crate::support::{
    ads::{assignment, endpoints},
    api::{Call, FACES, Face},
    sample::{call, instance},
    server::Convoy,
    until,
};

async fn drain(convoy: &Convoy, face: Face, wait: Duration) -> Value {
    let wait = Some(convoy_client::duration(wait));
    let request = DrainRequest { service: "web".into(), id: "web-1".into(), wait, ..Default::default() };
    convoy.api.ask(face, Call::Drain(request)).await.expect("draining")["barrier"].clone()
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

async fn accept_draining(stream: &mut Stream) {
    let pushed = stream.next().await;
    let [(.., health)] = endpoints(&assignment(&pushed.resources[0]))[..] else { panic!("one endpoint: {pushed:?}") };
    assert_eq!(health, HealthStatus::Draining);
    stream.ack(&pushed).await;
}

#[tokio::test]
async fn it_is_complete_when_all_who_follow_have_acked() {
    for face in FACES {
        let convoy = with_services(&["web", "shop"]).await;
        let (mut one, mut two) = (proxy(&convoy, "one", &["web"]).await, proxy(&convoy, "two", &["web"]).await);
        let _other = proxy(&convoy, "other", &["shop"]).await;
        let started = Instant::now();
        let (barrier, (), ()) =
            tokio::join!(drain(&convoy, face, LONG), accept_draining(&mut one), accept_draining(&mut two));
        assert_eq!(barrier["outcome"], "complete", "{barrier}");
        assert_eq!((&barrier["proxies"], &barrier["acked"], &barrier["missing"]), (&json!(2), &json!(2), &json!([])));
        let took = started.elapsed();
        assert!(took > Duration::from_millis(250) && took < LONG / 2, "{took:?}");
        // The instance has its drain time all the same.
        assert_eq!(convoy.api.ids("web").await, ["web-1"]);
        // Asked again, it holds still.
        assert_eq!(drain(&convoy, face, SHORT).await["outcome"], "complete");
    }
}

#[tokio::test]
async fn it_is_incomplete_with_who_is_missing_and_why() {
    let convoy = with_services(&["web"]).await;
    let _late = proxy(&convoy, "late", &["web"]).await;
    let mut unwilling = proxy(&convoy, "unwilling", &["web"]).await;
    let gone = proxy(&convoy, "gone", &["web"]).await;
    drop(gone);
    until("its leaving", async || {
        let shown = convoy.api.http.get("/v1/proxies/gone").await.ok();
        (shown["proxies"][0]["connected"] == false).then_some(())
    })
    .await;
    let refuse = async {
        let pushed = unwilling.next().await;
        unwilling.say(refusal(&pushed, "web: I will not")).await;
    };
    let (barrier, ()) = tokio::join!(drain(&convoy, Face::Http, Duration::from_secs(3)), refuse);
    assert_eq!((&barrier["outcome"], &barrier["proxies"]), (&json!("incomplete"), &json!(3)), "{barrier}");
    let missing = barrier["missing"].as_array().expect("a list");
    let told: Vec<[&str; 3]> =
        missing.iter().map(|of| ["node", "reason", "message"].map(|field| of[field].as_str().expect("text"))).collect();
    let expected =
        [["gone", "disconnected", ""], ["late", "lagging", ""], ["unwilling", "rejected", "web: I will not"]];
    assert_eq!(told, expected);
    assert!(missing[0]["left_at"].is_string());
}

#[tokio::test]
async fn who_is_back_or_left_with_an_ack_is_not_missing() {
    let convoy = with_services(&["web"]).await;
    let mut stream = proxy(&convoy, "one", &["web"]).await;
    let (barrier, ()) = tokio::join!(drain(&convoy, Face::Grpc, LONG), accept_draining(&mut stream));
    assert_eq!(barrier["outcome"], "complete");
    drop(stream);
    until("its leaving", async || {
        let shown = convoy.api.http.get("/v1/proxies/one").await.ok();
        (shown["proxies"][0]["connected"] == false).then_some(())
    })
    .await;
    assert_eq!(drain(&convoy, Face::Grpc, SHORT).await["outcome"], "complete", "it left with an ACK");
    // Another change of the same instance, which it has not heard of; then it is back, and hears.
    let registration = Registration { weight: Some(7), ..instance("web", 1) };
    convoy.api.register(call([registration])).await.expect("changed");
    assert_eq!(drain(&convoy, Face::Grpc, SHORT).await["missing"][0]["reason"], "disconnected");
    let _stream = proxy(&convoy, "one", &["web"]).await;
    assert_eq!(drain(&convoy, Face::Grpc, LONG).await["outcome"], "complete");
}

#[tokio::test]
async fn nobody_to_wait_for_and_waits_that_are_too_long() {
    let convoy = with_services(&["web"]).await;
    for face in FACES {
        let barrier = drain(&convoy, face, SHORT).await;
        assert_eq!((&barrier["outcome"], &barrier["proxies"]), (&json!("complete"), &json!(0)));
        let wait = Some(convoy_client::duration(Duration::from_secs(301)));
        let request = DrainRequest { service: "web".into(), id: "web-1".into(), wait, ..Default::default() };
        let refused = convoy.api.ask(face, Call::Drain(request)).await.expect_err("too long");
        assert_eq!(refused.problem.field, "wait");
    }
}
