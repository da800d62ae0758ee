//! Rules that are about the wire, by their numbers; the others are tried on the session alone.

use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use serde_json::json;
use tonic::Code;

use super::{weigh, with_services};
use crate::support::{
    ads::{
        self, CLUSTER, Dialect, ENDPOINT, Incremental, ROUTE, StateOfTheWorld, assignment, decode, endpoints, names,
        node, numbered,
    },
    sample::instances,
    server::Convoy,
    within,
};

type Delta = ads::Stream<Incremental>;
type Sotw = ads::Stream<StateOfTheWorld>;

#[tokio::test]
async fn rule_1_only_the_first_request_of_a_stream_names_the_node() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Delta = convoy.ads().await;
    stream.ask(Delta::subscribe(CLUSTER, &[])).await;
    let without = DeltaDiscoveryRequest { node: None, ..Delta::subscribe(ENDPOINT, &["web"]) };
    assert_eq!(names(&stream.ask(without).await.resources), ["web"]);
    let mut stream: Sotw = convoy.ads().await;
    stream.ask(Sotw::subscribe(CLUSTER, &[])).await;
    let without = DiscoveryRequest { node: None, ..Sotw::subscribe(ENDPOINT, &["web"]) };
    assert_eq!(stream.ask(without).await.resources.len(), 1);
}

/// How a stream ends when Convoy stops, whatever comes before.
async fn end<D: Dialect>(convoy: Convoy, mut stream: ads::Stream<D>) -> Result<(), tonic::Status> {
    let ended = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    };
    within("the stream's end", async { tokio::join!(ended, convoy.stop()).0 }).await
}

#[tokio::test]
async fn rule_12_a_stream_that_was_not_served_ends_with_an_error() {
    // Nobody has registered yet, and a wildcard is not answered before that.
    let unknown = || Convoy::with(|config| config.settle = std::time::Duration::from_secs(600));
    let (convoy, other) = (unknown().await, unknown().await);
    let stream: Delta = convoy.ads().await;
    stream.say(Delta::subscribe(CLUSTER, &[])).await;
    assert_eq!(end(convoy, stream).await.expect_err("not served").code(), Code::Unavailable);
    let stream: Sotw = other.ads().await;
    stream.say(Sotw::subscribe(CLUSTER, &[])).await;
    assert_eq!(end(other, stream).await.expect_err("not served").code(), Code::Unavailable);
    // Nor one that has not said a word.
    let convoy = Convoy::start().await;
    let stream: Delta = convoy.ads().await;
    assert_eq!(end(convoy, stream).await.expect_err("not served").code(), Code::Unavailable);
}

#[tokio::test]
async fn rule_12_a_stream_that_was_served_ends_well() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Delta = convoy.ads().await;
    stream.ask(Delta::subscribe(CLUSTER, &[])).await;
    end(convoy, stream).await.expect("an end, and no error");
    let convoy = with_services(&["web"]).await;
    let mut stream: Sotw = convoy.ads().await;
    stream.ask(Sotw::subscribe(CLUSTER, &[])).await;
    end(convoy, stream).await.expect("an end, and no error");
}

#[tokio::test]
async fn rule_25_an_assignment_is_always_whole() {
    let convoy = Convoy::start().await;
    convoy.api.register(instances("web", 1..4)).await.expect("registered");
    let mut delta: Delta = convoy.ads().await;
    let first = delta.ask(Delta::subscribe(ENDPOINT, &["web"])).await;
    delta.ack(&first).await;
    let mut sotw: Sotw = convoy.ads().await;
    let first = sotw.ask(Sotw::subscribe(ENDPOINT, &["web"])).await;
    sotw.say(Sotw::acked(&first, &["web"])).await;
    weigh(&convoy, "web", 7).await;
    let weights = |assignment: &ClusterLoadAssignment| -> Vec<u32> {
        endpoints(assignment).into_iter().map(|(_, weight, _)| weight).collect()
    };
    assert_eq!(weights(&assignment(&delta.next().await.resources[0])), [7, 100, 100]);
    let whole: ClusterLoadAssignment = decode(ENDPOINT, &sotw.next().await.resources[0]);
    assert_eq!(weights(&whole), [7, 100, 100]);
}

#[tokio::test]
async fn rule_59_and_60_a_ttl_is_only_on_what_somebody_wrote_with_one() {
    let convoy = with_services(&["web"]).await;
    let body = json!({"name": "written", "type": "STATIC"});
    convoy.api.http.put("/v1/resources/clusters/written?ttl=1s", &body).await.ok();
    let knows = |feature: Option<&str>| {
        let client_features = feature.into_iter().map(str::to_owned).collect();
        let node = node().map(|node| Node { client_features, ..node });
        DeltaDiscoveryRequest { node, ..Delta::subscribe(CLUSTER, &[]) }
    };
    let mut stream: Delta = convoy.ads().await;
    let first = stream.ask(knows(Some("xds.config.supports-resource-ttl"))).await;
    let ttls: Vec<_> = first.resources.iter().map(|of| (of.name.as_str(), of.ttl.map(|ttl| ttl.seconds))).collect();
    assert_eq!(ttls, [("web", None), ("written", Some(1))]);
    stream.ack(&first).await;
    let heartbeat = stream.next().await;
    let [written] = &heartbeat.resources[..] else { panic!("of one resource: {heartbeat:?}") };
    assert_eq!((&*written.name, &written.resource, written.ttl.is_some()), ("written", &None, true));
    assert_eq!(written.version, first.resources[1].version, "the version that was sent last");
    let mut stream: Delta = convoy.ads().await;
    let first = stream.ask(knows(None)).await;
    assert!(first.resources.iter().all(|resource| resource.ttl.is_none()), "{first:?}");
}

#[tokio::test]
async fn rule_62_a_first_request_of_many_mebibytes_is_accepted() {
    let convoy = with_services(&["web"]).await;
    let many = numbered("a-name-of-some-length-as-names-of-services-have-them.namespace-", 60_000);
    let version = |name: &String| (name.clone(), "0123456789abcdef0123456789abcdef".to_owned());
    let request = DeltaDiscoveryRequest {
        node: node(),
        type_url: ENDPOINT.type_url().into(),
        resource_names_subscribe: many.iter().cloned().chain(["web".to_owned()]).collect(),
        initial_resource_versions: many.iter().map(version).collect::<HashMap<_, _>>(),
        ..Default::default()
    };
    assert!(prost::Message::encoded_len(&request) > 8 * 1024 * 1024);
    let mut stream: Delta = convoy.ads().await;
    stream.say(request).await;
    let (mut found, mut gone) = (Vec::new(), 0);
    while found.is_empty() || gone < many.len() {
        let answer = stream.next().await;
        // Rule 63: what a gRPC client takes unless told otherwise.
        assert!(prost::Message::encoded_len(&answer) < 4 * 1024 * 1024);
        found.extend(names(&answer.resources).into_iter().map(str::to_owned));
        gone += answer.removed_resources.len();
        stream.ack(&answer).await;
    }
    assert_eq!((found, gone), (vec!["web".to_owned()], many.len()));
}

#[tokio::test]
async fn rule_65_hosts_on_demand_over_their_own_service() {
    const HOSTS: &str = "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts";
    let convoy = Convoy::start().await;
    let kind = convoy::model::ResourceType::VirtualHost;
    let host = json!({"name": "routes/a.test", "domains": ["a.test"]});
    convoy.api.http.put("/v1/resources/virtual_hosts/routes%2Fa.test", &host).await.ok();
    let mut stream = Delta::open(convoy.addresses.xds, HOSTS).await;
    let answer = stream.ask(Delta::subscribe(kind, &["routes/a.test", "routes/b.test"])).await;
    let mut found: Vec<_> = answer
        .resources
        .iter()
        .map(|host| (host.name.as_str(), host.aliases.as_slice(), host.resource.is_some()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("routes/a.test", &[][..], true), ("routes/b.test", &["routes/b.test".to_owned()][..], false)]);
    assert_eq!(answer.removed_resources.len(), 0);
    stream.ack(&answer).await;
    convoy.api.http.delete("/v1/resources/virtual_hosts/routes%2Fa.test").await.ok();
    let gone = stream.next().await;
    assert_eq!((gone.resources.len(), &*gone.removed_resources), (0, &["routes/a.test".to_owned()][..]));
}

#[tokio::test]
async fn rule_4_and_5_a_refusal_and_an_unknown_type_stop_no_other() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Delta = convoy.ads().await;
    let clusters = stream.ask(Delta::subscribe(CLUSTER, &[])).await;
    let refusal = DeltaDiscoveryRequest {
        response_nonce: clusters.nonce,
        error_detail: ads::error("no"),
        ..Delta::subscribe(CLUSTER, &[])
    };
    stream.say(refusal).await;
    let unknown = DeltaDiscoveryRequest { type_url: "no.such/Type".into(), ..Delta::subscribe(ROUTE, &["x"]) };
    assert_eq!(stream.ask(unknown).await.removed_resources, ["x"]);
    assert_eq!(names(&stream.ask(Delta::subscribe(ENDPOINT, &["web"])).await.resources), ["web"]);
}
