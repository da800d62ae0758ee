//! The life of streams: who is admitted first, when they end, and what is sent again on request.

use std::time::Duration;

use convoy_client::proto::RetryProxyRequest;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::with_services;
use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, Incremental, error, names},
    api::{Call, FACES},
    sample::instances,
    server::Convoy,
    until, within,
};

type Stream = ads::Stream<Incremental>;

#[tokio::test]
async fn who_begins_from_nothing_waits_its_turn_and_who_comes_back_does_not() {
    let convoy = Convoy::with(|config| config.cold_starts = 1).await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    let (mut first, mut second): (Stream, Stream) = (convoy.ads().await, convoy.ads().await);
    let clusters = first.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(names(&clusters.resources), ["web"]);
    // It has not taken it yet: the next one waits.
    second.say(Stream::subscribe(CLUSTER, &[])).await;
    let versions = clusters.resources.iter().map(|of| (of.name.clone(), of.version.clone())).collect();
    let returning = DeltaDiscoveryRequest { initial_resource_versions: versions, ..Stream::subscribe(CLUSTER, &[]) };
    let back = convoy.ads::<Incremental>().await.ask(returning).await;
    assert!(back.resources.is_empty(), "it has all there is");
    first.ack(&clusters).await;
    assert_eq!(names(&second.next().await.resources), ["web"]);
}

#[tokio::test]
async fn a_stream_ends_well_at_its_age() {
    let convoy = Convoy::with(|config| config.max_stream_age = Some(Duration::from_millis(300))).await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    let mut stream: Stream = convoy.ads().await;
    let clusters = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    stream.ack(&clusters).await;
    let end = within("the stream's end", stream.message()).await.expect("no error");
    assert_eq!(end, None);
}

#[tokio::test]
async fn what_was_refused_is_sent_again_on_request() {
    for face in FACES {
        let convoy = with_services(&["web"]).await;
        let mut stream: Stream = convoy.ads().await;
        let endpoints = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
        let nack = DeltaDiscoveryRequest {
            type_url: endpoints.type_url.clone(),
            response_nonce: endpoints.nonce.clone(),
            error_detail: error("not today"),
            ..Default::default()
        };
        stream.say(nack).await;
        let retry = || convoy.api.ask(face, Call::RetryProxy(RetryProxyRequest { node: "tester".into() }));
        // The refusal has to be heard first.
        until("something refused", async || (retry().await.expect("an answer")["resources"] == 1).then_some(())).await;
        assert_eq!(stream.next().await.resources, endpoints.resources);
        let nobody = Call::RetryProxy(RetryProxyRequest { node: "nobody".into() });
        assert_eq!(convoy.api.ask(face, nobody).await.expect_err("not connected").problem.code, "not_found");
    }
}
