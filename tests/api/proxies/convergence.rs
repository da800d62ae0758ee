//! Who has ACKed everything up to a revision, and waiting for it.

use std::time::{Duration, Instant};

use convoy_client::proto::{GetConvergenceRequest, WaitForConvergenceRequest};
use serde_json::{Value, json};

use super::{proxy, refusal, weigh, with_services};
use crate::support::{
    api::{Call, FACES, Face},
    sample::instances,
    server::Convoy,
    within,
};

async fn wait(convoy: &Convoy, face: Face, revision: Option<u64>, millis: u64) -> Value {
    let timeout = Some(convoy_client::duration(Duration::from_millis(millis)));
    let request = WaitForConvergenceRequest { revision, timeout, ..Default::default() };
    convoy.api.ask(face, Call::WaitForConvergence(request)).await.expect("an answer")
}

fn counts(convergence: &Value) -> [&Value; 3] {
    ["complete", "proxies", "converged"].map(|field| &convergence[field])
}

#[tokio::test]
async fn it_is_reached_when_all_have_acked_what_concerns_them() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut web = proxy(&convoy, "web-1", &["web"]).await;
    let _shop = proxy(&convoy, "shop-1", &["shop"]).await;
    for face in FACES {
        let all = wait(&convoy, face, None, 60_000).await;
        assert_eq!(counts(&all), [&json!(true), &json!(2), &json!(2)], "{all}");
    }
    let revision = weigh(&convoy, "web", 2).await.revision;
    let pushed = web.next().await;
    for face in FACES {
        let one = wait(&convoy, face, Some(revision), 50).await;
        assert_eq!(counts(&one), [&json!(false), &json!(2), &json!(1)], "{one}");
        let [laggard] = one["lagging"].as_array().expect("a list").as_slice() else { panic!("one: {one}") };
        assert_eq!((&laggard["node"], &laggard["types"][0]["type"]), (&json!("web-1"), &json!("endpoints")));
        assert_eq!(laggard["types"][0]["sync"], "pending");
    }
    // Who waits is told when it happens.
    let started = Instant::now();
    let (all, ()) = tokio::join!(wait(&convoy, Face::Grpc, Some(revision), 60_000), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        web.ack(&pushed).await;
    });
    assert_eq!(counts(&all), [&json!(true), &json!(2), &json!(2)], "{all}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_refusal_lags_until_another_content_is_accepted() {
    let convoy = with_services(&["web"]).await;
    let mut web = proxy(&convoy, "web-1", &["web"]).await;
    let revision = weigh(&convoy, "web", 2).await.revision;
    let pushed = web.next().await;
    web.say(refusal(&pushed, "web: too heavy")).await;
    let seen = crate::support::until("the refusal", async || {
        let request = GetConvergenceRequest { revision: Some(revision), ..Default::default() };
        let seen = convoy.api.ask(Face::Http, Call::GetConvergence(request)).await.expect("an answer");
        (seen["lagging"][0]["types"][0]["sync"] == "rejected").then_some(seen)
    });
    let seen = seen.await;
    assert_eq!(seen["lagging"][0]["types"][0]["last_nack"]["message"], "web: too heavy");
    let later = weigh(&convoy, "web", 3).await.revision;
    let pushed = web.next().await;
    web.ack(&pushed).await;
    assert_eq!(wait(&convoy, Face::Http, Some(later), 60_000).await["complete"], true);
}

#[tokio::test]
async fn without_proxies_it_is_reached_and_a_revision_to_come_is_not() {
    let convoy = with_services(&["web"]).await;
    let none = wait(&convoy, Face::Grpc, None, 60_000).await;
    assert_eq!(counts(&none), [&json!(true), &json!(0), &json!(0)], "{none}");
    let future = wait(&convoy, Face::Grpc, Some(1_000_000), 10).await;
    assert_eq!(future["complete"], false, "{future}");
    for (path, field) in [
        ("/v1/convergence?wait=1", "wait"),
        ("/v1/convergence?wait=6m", "wait"),
        ("/v1/convergence?revision=x", "query"),
    ] {
        let refused = convoy.api.http.get(path).await;
        assert_eq!((refused.status, &refused.json()["error"]["field"]), (400, &json!(field)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_without_end_hold_no_revision_up() {
    let convoy = with_services(&["web"]).await;
    let api = convoy.api.clone();
    let churn = tokio::spawn(async move {
        for number in 0.. {
            // A new service is the most that can change.
            api.register(instances(&format!("s{number}"), 1..2)).await.expect("registered");
        }
    });
    for _ in 0..20 {
        let told = wait(&convoy, Face::Grpc, None, 60_000).await;
        assert_eq!(told["complete"], true, "{told}");
    }
    churn.abort();
}

#[tokio::test]
async fn a_wait_ends_when_convoy_stops() {
    let convoy = with_services(&["web"]).await;
    let api = convoy.api.clone();
    let waiting = tokio::spawn(async move { api.http.get("/v1/convergence?revision=1000000&wait=5m").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    convoy.stop().await;
    assert_eq!(within("the answer", waiting).await.expect("an answer").ok()["complete"], false);
    assert!(started.elapsed() < Duration::from_secs(4));
}
