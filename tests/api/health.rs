//! An operator's word, the brake, and why an instance is or is not in a proxy's endpoints, over both faces.

use std::time::Duration;

use convoy::registry::brake::BrakeConfig;
use convoy_client::{
    Client,
    proto::{
        BrakeScope, ExplainInstanceRequest, Explanation, ListBrakesRequest, OverrideHealth, ReleaseBrakeRequest,
        SetOverrideRequest, StepOutcome, Verdict,
    },
};
use serde_json::json;

use crate::{
    proxies::{proxy, refusal},
    support::{
        sample::{call, instances},
        server::Convoy,
        until,
    },
};

const WEB_1: &str = "/v1/namespaces/default/services/web/instances/web-1";

fn client(convoy: &Convoy) -> Client {
    Client::new(&convoy.addresses.grpc.to_string()).expect("an address")
}

async fn explain(convoy: &Convoy, proxy: &str) -> Explanation {
    let request =
        ExplainInstanceRequest { service: "web".into(), id: "web-1".into(), proxy: proxy.into(), ..Default::default() };
    let told = client(convoy).explain_instance(request).await.expect("an explanation");
    let over_http = convoy.api.http.get(&format!("{WEB_1}/explain?proxy={proxy}")).await.ok();
    assert_eq!(over_http["summary"], told.summary);
    told
}

#[tokio::test]
async fn an_operators_word_goes_over_health_until_it_is_taken_back() {
    let convoy = Convoy::start().await;
    convoy.api.register(instances("web", 1..3)).await.expect("registered");
    let path = format!("{WEB_1}/override");
    let said = convoy.api.http.put(&path, &json!({"health": "unhealthy", "reason": "disk"})).await.ok();
    assert_eq!(said["instance"]["health"]["verdict"], "unhealthy");
    assert_eq!(said["instance"]["health"]["reason"], "an operator: disk");
    let axes = said["instance"]["health"]["axes"].as_array().expect("axes").clone();
    assert!(axes.iter().any(|axis| axis["axis"] == "operator" && axis["reason"] == "disk"), "{axes:?}");
    assert!(explain(&convoy, "").await.summary.ends_with("is out of traffic: an operator says unhealthy: disk"));
    let took_back = convoy.api.http.delete(&path).await.ok();
    assert_eq!(took_back["instance"]["health"]["verdict"], "healthy");
    let history = convoy.api.http.get(WEB_1).await.ok()["history"].clone();
    let verdicts: Vec<_> = history.as_array().expect("a history").iter().map(|turn| turn["verdict"].clone()).collect();
    assert_eq!(verdicts, ["unhealthy", "healthy"]);

    let request = SetOverrideRequest {
        service: "web".into(),
        id: "web-1".into(),
        health: OverrideHealth::Degraded.into(),
        ..Default::default()
    };
    let said = client(&convoy).set_override(request).await.expect("said").instance.expect("an instance");
    assert_eq!(said.health.map(|health| health.verdict()), Some(Verdict::Degraded));
    for (body, field) in [(json!({}), "health"), (json!({"health": "unhealthy", "reason": "x".repeat(257)}), "reason")]
    {
        let refused = convoy.api.http.put(&path, &body).await;
        assert_eq!((refused.status, refused.json()["error"]["field"].clone()), (400, json!(field)));
    }
}

#[tokio::test]
async fn a_proxy_is_explained_by_what_it_sees_was_sent_and_accepted() {
    let convoy = Convoy::start().await;
    convoy.api.register(instances("web", 1..3)).await.expect("registered");
    let mut stream = proxy(&convoy, "edge", &["web"]).await;
    let told = explain(&convoy, "edge").await;
    assert_eq!(told.summary, "edge has default/web/web-1 in web as HEALTHY, weight 100");
    let [cluster] = &told.proxies[0].clusters[..] else { panic!("one cluster: {told:?}") };
    assert!(cluster.subscribed && cluster.now == cluster.accepted && cluster.version_now == cluster.version_acked);

    // It refuses what is newer, and goes on with what it had.
    convoy.api.http.put(&format!("{WEB_1}/override"), &json!({"health": "degraded"})).await.ok();
    let pushed = stream.next().await;
    stream.say(refusal(&pushed, "web: I will not")).await;
    let told = until("the refusal", async || {
        let told = explain(&convoy, "edge").await;
        told.summary.ends_with("it refused what is newer").then_some(told)
    })
    .await;
    let cluster = &told.proxies[0].clusters[0];
    assert_eq!(cluster.last_nack.as_ref().map(|nack| nack.message.as_str()), Some("web: I will not"));
    let status = |endpoint: &Option<convoy_client::proto::ExplainedEndpoint>| {
        endpoint.as_ref().map(|endpoint| endpoint.health_status.clone()).unwrap_or_default()
    };
    assert_eq!((status(&cluster.now), status(&cluster.accepted)), ("DEGRADED".into(), "HEALTHY".into()));

    // One that does not ask, and one of another namespace.
    let _other = proxy(&convoy, "idle", &["other"]).await;
    let told = explain(&convoy, "idle").await;
    assert!(told.summary.ends_with("it has not asked for the endpoints of web"), "{}", told.summary);

    // Those that left are explained by their history; what never was is not found.
    convoy.api.http.delete(WEB_1).await.ok();
    let told = explain(&convoy, "edge").await;
    assert!(told.summary.contains("it was deregistered") && told.instance.is_none(), "{}", told.summary);
    assert_eq!(told.steps[0].outcome(), StepOutcome::Blocks);
    assert_eq!(convoy.api.http.get(&format!("{WEB_1}0/explain")).await.status, 404);
}

#[tokio::test]
async fn what_the_brake_keeps_is_shown_and_let_go() {
    let convoy = Convoy::with(|config| config.brake = BrakeConfig::default()).await;
    let of_two = instances("web", 1..3).instances;
    for registration in of_two {
        let ttl = Some(convoy_client::duration(Duration::from_secs(1)));
        let request = convoy_client::proto::RegisterRequest { ttl, ..call([registration]) };
        convoy.api.register(request).await.expect("registered");
    }
    let kept = until("both to be kept", async || {
        let brakes = client(&convoy).list_brakes(ListBrakesRequest {}).await.expect("brakes");
        brakes.brakes.first().filter(|brake| brake.kept == 2).cloned()
    })
    .await;
    assert_eq!((kept.scope(), kept.name.as_str(), kept.overdue, kept.of), (BrakeScope::Service, "default/web", 2, 2));
    assert_eq!(convoy.api.http.get("/v1/brakes").await.ok()["brakes"][0]["scope"], "service");
    let health = convoy.api.http.get(WEB_1).await.ok()["health"].clone();
    assert_eq!((&health["verdict"], &health["brake"]["scope"]), (&json!("suspect"), &json!("service")));
    assert!(convoy.api.http.get("/metrics").await.text.contains("convoy_braked_leases{scope=\"service\"} 2"));

    let refused = convoy.api.http.post("/v1/brakes/release", &json!({"scope": "intake", "name": "x"})).await;
    assert_eq!(refused.status, 400);
    let request = ReleaseBrakeRequest { scope: BrakeScope::Service.into(), name: "default/web".into() };
    assert_eq!(client(&convoy).release_brake(request).await.expect("released").leases, 2);
    until("both to go", async || convoy.api.ids("web").await.is_empty().then_some(())).await;
    assert_eq!(convoy.api.http.post("/v1/brakes/release", &json!({})).await.ok(), json!({"leases": 0}));
}
