//! One proxy: who it is, what it has, since when.

use convoy_client::proto::{GetProxyConfigRequest, GetProxyRequest};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde_json::{Value, json};

use super::{Stream, ask, proxy, refusal, weigh, with_services};
use crate::support::{
    ads::ENDPOINT,
    api::{Call, FACES, Face},
    server::Convoy,
    until,
};

/// The only stream of a node, when it is as wanted; both faces show the same.
async fn shown(convoy: &Convoy, node: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until("the proxy as wanted", async || {
        let of = || Call::GetProxy(GetProxyRequest { node: node.into() });
        let http = convoy.api.ask(Face::Http, of()).await.ok()?;
        let grpc = convoy.api.ask(Face::Grpc, of()).await.ok()?;
        let one = http["proxies"].as_array().is_some_and(|proxies| proxies.len() == 1);
        (one && http == grpc && wanted(&http["proxies"][0])).then(|| http["proxies"][0].clone())
    })
    .await
}

async fn config(convoy: &Convoy, face: Face, kind: &str, name: &str) -> Vec<Value> {
    let request = GetProxyConfigRequest { node: "web-1".into(), r#type: kind.into(), name: name.into() };
    let answer = convoy.api.ask(face, Call::GetProxyConfig(request)).await.expect("a configuration");
    answer["resources"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_proxy_is_in_sync_with_a_revision() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream = proxy(&convoy, "web-1", &["web"]).await;
    let synced = shown(&convoy, "web-1", |proxy| proxy["sync"] == "synced").await;
    assert_eq!(synced["locality"], json!({"region": "us", "zone": "us-a", "sub_zone": ""}));
    assert_eq!((&synced["connected"], synced.get("left_at")), (&json!(true), None));
    let types: Vec<&Value> = synced["types"].as_array().expect("types").iter().map(|of| &of["type"]).collect();
    assert_eq!(types, ["clusters", "endpoints"]);
    let before = synced["synced_revision"].as_u64().expect("a revision");

    // What does not concern it, it has.
    let changed = weigh(&convoy, "shop", 2).await.revision;
    assert!(changed > before);
    shown(&convoy, "web-1", |proxy| proxy["synced_revision"] == changed).await;

    let changed = weigh(&convoy, "web", 2).await.revision;
    let pushed = stream.next().await;
    let pending = shown(&convoy, "web-1", |proxy| proxy["sync"] == "pending").await;
    assert_eq!(pending["types"][0]["sync"], "synced", "{pending}");
    assert_eq!(pending["types"][1]["sync"], "pending", "{pending}");
    assert_eq!(pending["synced_revision"], changed - 1, "{pending}");
    stream.ack(&pushed).await;
    shown(&convoy, "web-1", |proxy| proxy["synced_revision"] == changed && proxy["sync"] == "synced").await;
}

#[tokio::test]
async fn who_came_back_up_to_date_has_the_versions_that_it_brought() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let endpoints = stream.ask(ask("web-1", ENDPOINT, &["web"])).await;
    stream.ack(&endpoints).await;
    let first = shown(&convoy, "web-1", |proxy| proxy["sync"] == "synced").await;
    drop(stream);
    shown(&convoy, "web-1", |proxy| proxy["connected"] == false).await;
    let stream: Stream = convoy.ads().await;
    let held = endpoints.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone()));
    let versions = held.collect();
    stream.say(DeltaDiscoveryRequest { initial_resource_versions: versions, ..ask("web-1", ENDPOINT, &["web"]) }).await;
    let back = shown(&convoy, "web-1", |proxy| proxy["connected"] == true && proxy["sync"] == "synced").await;
    let (was, is) = (&first["types"][0], &back["types"][0]);
    assert_eq!((&is["version_acked"], &is["version_sent"]), (&was["version_acked"], &was["version_acked"]), "{back}");
    assert_eq!(is["acked_at"], back["connected_at"]);
}

#[tokio::test]
async fn each_resource_is_told_with_its_version_and_state() {
    let convoy = with_services(&["web"]).await;
    let mut stream = proxy(&convoy, "web-1", &["web", "nothing"]).await;
    shown(&convoy, "web-1", |proxy| proxy["sync"] == "synced").await;
    for face in FACES {
        let all = config(&convoy, face, "", "").await;
        let told: Vec<[&str; 3]> =
            all.iter().map(|of| ["type", "name", "sync"].map(|field| of[field].as_str().expect("text"))).collect();
        let expected =
            [["clusters", "web", "synced"], ["endpoints", "nothing", "absent"], ["endpoints", "web", "synced"]];
        assert_eq!(told, expected);
        let endpoints = config(&convoy, face, "endpoints", "web").await;
        let [web] = endpoints.as_slice() else { panic!("one: {endpoints:?}") };
        assert_eq!((&web["version_acked"], &web["resource"]["cluster_name"]), (&web["version_sent"], &json!("web")));
    }
    weigh(&convoy, "web", 2).await;
    let pushed = stream.next().await;
    let pending = &config(&convoy, Face::Grpc, ENDPOINT.type_url(), "web").await[0];
    assert_eq!(pending["sync"], "pending");
    assert_ne!(pending["version_acked"], pending["version_sent"]);
    stream.say(refusal(&pushed, "web: too heavy")).await;
    shown(&convoy, "web-1", |proxy| proxy["sync"] == "rejected").await;
    let rejected = &config(&convoy, Face::Http, "endpoints", "web").await[0];
    assert_eq!((&rejected["sync"], &rejected["version_acked"]), (&json!("rejected"), &pending["version_acked"]));
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let convoy = with_services(&["web"]).await;
    let _stream = proxy(&convoy, "web-1", &["web"]).await;
    for face in FACES {
        let nobody = convoy.api.ask(face, Call::GetProxy(GetProxyRequest { node: "nobody".into() })).await;
        let problem = nobody.expect_err("nobody").problem;
        assert_eq!((&*problem.code, &*problem.field, &*problem.value), ("not_found", "node", "nobody"));
        let of = |node: &str, kind: &str| GetProxyConfigRequest {
            node: node.into(),
            r#type: kind.into(),
            ..Default::default()
        };
        let nobody = convoy.api.ask(face, Call::GetProxyConfig(of("nobody", ""))).await;
        assert_eq!(nobody.expect_err("nobody").problem.code, "not_found");
        let refused = convoy.api.ask(face, Call::GetProxyConfig(of("web-1", "things"))).await.expect_err("no type");
        assert_eq!((&*refused.problem.code, &*refused.problem.field), ("invalid_argument", "type"));
    }
    let other = convoy.api.http.get("/v1/proxies?namespace=other").await.ok();
    assert_eq!(other["proxies"], json!([]));
    let own = convoy.api.http.get("/v1/proxies?namespace=default").await.ok();
    assert_eq!(own["proxies"][0]["node"], "web-1");
}
