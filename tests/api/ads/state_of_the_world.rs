//! State of the world.

use envoy_types::pb::envoy::{
    config::{cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener},
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

use super::{weigh, with_services};
use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, LISTENER, StateOfTheWorld, decode, endpoints},
    sample::instances,
    server::Convoy,
};

type Stream = ads::Stream<StateOfTheWorld>;

fn clusters(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| decode::<Cluster>(CLUSTER, any).name).collect()
}

fn assignments(response: &DiscoveryResponse) -> Vec<String> {
    let name = |any| decode::<ClusterLoadAssignment>(ENDPOINT, any).cluster_name;
    response.resources.iter().map(name).collect()
}

/// The next response is the answer to a question about endpoints that nobody has asked yet on this stream.
async fn nothing_before(stream: &mut Stream, service: &str) -> DiscoveryResponse {
    let answer = stream.ask(Stream::subscribe(ENDPOINT, &[service])).await;
    assert_eq!(assignments(&answer), [service], "{answer:?}");
    answer
}

#[tokio::test]
async fn rule_22_a_wildcard_of_clusters_is_always_whole() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(clusters(&first), ["web"]);
    stream.say(Stream::acked(&first, &[])).await;
    convoy.api.register(instances("shop", 1..2)).await.expect("registered");
    let second = stream.next().await;
    assert_eq!(clusters(&second), ["shop", "web"]);
    assert!(first.version_info != second.version_info && first.nonce != second.nonce);
    stream.say(Stream::acked(&second, &[])).await;
    convoy.api.http.delete("/v1/namespaces/default/services/web/instances/web-1").await.ok();
    convoy.api.http.delete("/v1/namespaces/default/services/web").await.ok();
    assert_eq!(clusters(&stream.next().await), ["shop"]);
}

#[tokio::test]
async fn rule_18_and_19_an_ack_gets_no_reply_and_a_stale_nonce_none_either() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    stream.say(Stream::acked(&first, &[])).await;
    let foreign = DiscoveryRequest { response_nonce: "of-nowhere".into(), ..Stream::acked(&first, &["shop"]) };
    stream.say(foreign).await;
    nothing_before(&mut stream, "web").await;
    // The stale request did not count: the wildcard stands.
    convoy.api.register(instances("late", 1..2)).await.expect("registered");
    assert_eq!(clusters(&stream.next().await), ["late", "shop", "web"]);
}

#[tokio::test]
async fn rule_26_and_28_a_subscription_changes_with_each_request() {
    let convoy = with_services(&["a", "b", "c"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(ENDPOINT, &["a"])).await;
    assert_eq!(assignments(&first), ["a"]);
    // One more: it is answered. One less: it is not.
    let second = stream.ask(Stream::acked(&first, &["a", "b"])).await;
    assert!(assignments(&second).contains(&"b".to_owned()));
    stream.say(Stream::acked(&second, &["b"])).await;
    weigh(&convoy, "a", 5).await;
    weigh(&convoy, "b", 6).await;
    let third = stream.next().await;
    assert_eq!(assignments(&third), ["b"], "what is not subscribed to any more does not come");
    // Named again it comes again, though unchanged; an unknown one comes when it is there.
    let fourth = stream.ask(Stream::acked(&third, &["a", "b", "late"])).await;
    assert_eq!(assignments(&fourth), ["a"]);
    stream.say(Stream::acked(&fourth, &["a", "b", "late"])).await;
    convoy.api.register(instances("late", 1..3)).await.expect("registered");
    let fifth = stream.next().await;
    assert_eq!(assignments(&fifth), ["late"]);
    let late: ClusterLoadAssignment = decode(ENDPOINT, &fifth.resources[0]);
    assert_eq!(endpoints(&late).len(), 2);
}

#[tokio::test]
async fn rule_20_a_wildcard_of_clusters_and_listeners_resumes_without_a_byte() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let clusters_held = stream.ask(Stream::subscribe(CLUSTER, &[])).await.version_info;
    let listeners_held = stream.ask(Stream::subscribe(LISTENER, &[])).await.version_info;
    drop(stream);
    let mut stream: Stream = convoy.ads().await;
    for (kind, version) in [(CLUSTER, &clusters_held), (LISTENER, &listeners_held)] {
        let version_info = version.clone();
        stream.say(DiscoveryRequest { version_info, ..Stream::subscribe(kind, &[]) }).await;
    }
    nothing_before(&mut stream, "web").await;
    convoy.api.register(instances("shop", 1..2)).await.expect("registered");
    assert_eq!(clusters(&stream.next().await), ["shop", "web"], "and follows what happens next");
    // Another version is answered with everything.
    let mut stream: Stream = convoy.ads().await;
    let stale = DiscoveryRequest { version_info: clusters_held, ..Stream::subscribe(CLUSTER, &[]) };
    assert_eq!(clusters(&stream.ask(stale).await), ["shop", "web"]);
}

#[tokio::test]
async fn rule_56_named_listeners_are_answered_as_far_as_they_are() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let answer = stream.ask(Stream::subscribe(LISTENER, &["web", "late"])).await;
    let names = |response: &DiscoveryResponse| -> Vec<String> {
        response.resources.iter().map(|any| decode::<Listener>(LISTENER, any).name).collect()
    };
    assert_eq!(names(&answer), ["web"], "a client must not wait for those that are not");
    stream.say(Stream::acked(&answer, &["web", "late"])).await;
    convoy.api.register(instances("late", 1..2)).await.expect("registered");
    assert_eq!(names(&stream.next().await), ["late", "web"]);
}

#[tokio::test]
async fn rule_42_an_empty_wildcard_is_answered() {
    let convoy = Convoy::start().await;
    let mut stream: Stream = convoy.ads().await;
    assert_eq!(clusters(&stream.ask(Stream::subscribe(CLUSTER, &[])).await), [""; 0]);
}
