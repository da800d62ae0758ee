//! Refusals: a NACK is kept with its text and shown, and blocks no other type; a broken stream is told why it ends.

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use serde_json::{Value, json};
use tonic::Code;

use super::{weigh, with_services};
use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, Incremental, StateOfTheWorld, error, names},
    api::{Api, Call, FACES},
    until,
};

type Stream = ads::Stream<Incremental>;

/// The type's row of the only proxy, when it is as wanted.
async fn shown(api: &Api, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut rows = Vec::new();
    for face in FACES {
        let row = until("the proxy's state", async || {
            let listed = api.ask(face, Call::ListProxies).await.expect("a list");
            let [proxy] = listed["proxies"].as_array().expect("a list").as_slice() else { return None };
            assert_eq!((&proxy["node"], &proxy["cluster"]), (&json!("tester"), &json!("tests")));
            let types = proxy["types"].as_array().expect("types");
            types.iter().find(|of| of["type"] == kind && wanted(of)).cloned()
        });
        rows.push(row.await);
    }
    assert_eq!(rows[0], rows[1], "both faces show the same");
    rows.remove(0)
}

#[tokio::test]
async fn rule_5_a_nack_is_shown_and_blocks_no_other_type() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream: Stream = convoy.ads().await;
    let clusters = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(shown(&convoy.api, "clusters", |_| true).await["sync"], "pending");
    let text = "Error adding cluster web: no such thing";
    stream
        .say(DeltaDiscoveryRequest {
            type_url: clusters.type_url.clone(),
            response_nonce: clusters.nonce.clone(),
            error_detail: error(text),
            ..Default::default()
        })
        .await;
    let row = shown(&convoy.api, "clusters", |row| row["nacks"] == 1).await;
    let nack = &row["last_nack"];
    assert_eq!((&nack["message"], &nack["resources"]), (&json!(text), &json!(["web"])));
    assert_eq!(nack["version"], clusters.system_version_info);
    assert_eq!((&row["wildcard"], &row["version_acked"]), (&json!(true), &json!("")));
    // What was not at fault goes once more, and is accepted.
    let again = stream.next().await;
    assert_eq!(names(&again.resources), ["shop"]);
    stream.ack(&again).await;
    let endpoints = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
    assert_eq!(names(&endpoints.resources), ["web"]);
    stream.ack(&endpoints).await;
    weigh(&convoy, "web", 2).await;
    let pushed = stream.next().await;
    assert_eq!((pushed.type_url.as_str(), names(&pushed.resources)), (ENDPOINT.type_url(), vec!["web"]));
    stream.ack(&pushed).await;
    let row = shown(&convoy.api, "endpoints", |row| row["sync"] == "synced").await;
    assert_eq!(
        (&row["subscribed"], &row["nacks"], &row["version_acked"]),
        (&json!(1), &json!(0), &row["version_sent"])
    );
    drop(stream);
    until("the proxy's leaving", async || {
        let listed = convoy.api.http.get("/v1/proxies").await.ok();
        let proxy = &listed["proxies"][0];
        (proxy["connected"] == false && proxy["left_at"].is_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rule_2_and_3_a_first_request_without_node_or_type_ends_the_stream() {
    let convoy = with_services(&["web"]).await;
    let nobody = Some(Node::default());
    for (node, type_url, says) in
        [(None, CLUSTER.type_url(), "node"), (nobody, CLUSTER.type_url(), "node.id"), (ads::node(), "", "type_url")]
    {
        let mut stream: ads::Stream<StateOfTheWorld> = convoy.ads().await;
        stream.say(DiscoveryRequest { node: node.clone(), type_url: type_url.into(), ..Default::default() }).await;
        let status = stream.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
        let mut stream: Stream = convoy.ads().await;
        stream.say(DeltaDiscoveryRequest { node, type_url: type_url.into(), ..Default::default() }).await;
        assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn rule_4_an_unknown_type_does_not_stop_the_known_ones() {
    const UNKNOWN: &str = "type.googleapis.com/envoy.service.unheard_of.v3.Thing";
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let request = Stream::subscribe(CLUSTER, &["some", "name"]);
    let answer = stream.ask(DeltaDiscoveryRequest { type_url: UNKNOWN.into(), ..request }).await;
    assert_eq!((answer.type_url.as_str(), answer.removed_resources.len()), (UNKNOWN, 2), "nothing of it exists");
    stream.ack(&answer).await;
    let answer = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(names(&answer.resources), ["web"]);

    let mut stream: ads::Stream<StateOfTheWorld> = convoy.ads().await;
    let request = ads::Stream::<StateOfTheWorld>::subscribe(CLUSTER, &["web"]);
    stream.say(DiscoveryRequest { type_url: UNKNOWN.into(), ..request.clone() }).await;
    assert_eq!(stream.ask(request).await.type_url, CLUSTER.type_url());
}
