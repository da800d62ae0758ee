//! After a start without stored state: a client that returns knows more than Convoy does, and keeps what it has until
//! the window is over.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::support::{
    ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, StateOfTheWorld, names},
    sample::instances,
    server::Convoy,
};

type Stream = ads::Stream<Incremental>;

const SHORT: Duration = Duration::from_millis(1_500);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

async fn settling(window: Duration) -> (Convoy, Instant) {
    let before = Instant::now();
    (Convoy::with(|config| config.settle = window).await, before)
}

fn held(name: &str) -> HashMap<String, String> {
    [(name.to_owned(), "0123456789abcdef0123456789abcdef".to_owned())].into()
}

fn returning(kind: convoy::translate::ResourceType, names: &[&str], of: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { initial_resource_versions: held(of), ..Stream::subscribe(kind, names) }
}

/// The next response, which may not come before the window is over.
async fn after_the_window<D: Dialect>(stream: &mut ads::Stream<D>, before: Instant) -> D::Response {
    let response = stream.next().await;
    assert!(before.elapsed() >= SHORT, "answered {:?} after the start", before.elapsed());
    response
}

#[tokio::test]
async fn rule_23_a_client_that_returns_is_answered_nothing_until_the_window_is_over() {
    let (convoy, before) = settling(SHORT).await;
    let mut stream: Stream = convoy.ads().await;
    stream.say(returning(CLUSTER, &[], "lost")).await;
    stream.say(Stream::subscribe(ENDPOINT, &["web", "lost"])).await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    let clusters = after_the_window(&mut stream, before).await;
    // That one is lost is said when the routes that may still lead to it have been spoken of.
    assert_eq!((names(&clusters.resources), clusters.removed_resources.len()), (vec!["web"], 0));
    let endpoints = stream.next().await;
    assert_eq!((names(&endpoints.resources), &*endpoints.removed_resources), (vec!["web"], &["lost".to_owned()][..]));
}

#[tokio::test]
async fn rule_23_a_client_that_returns_in_state_of_the_world_is_answered_nothing_either() {
    let (convoy, before) = settling(SHORT).await;
    let mut stream: ads::Stream<StateOfTheWorld> = convoy.ads().await;
    let request = ads::Stream::<StateOfTheWorld>::subscribe(CLUSTER, &[]);
    stream.say(DiscoveryRequest { version_info: "of before".into(), ..request }).await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    assert_eq!(after_the_window(&mut stream, before).await.resources.len(), 1);
}

#[tokio::test]
async fn a_client_whose_services_have_all_come_back_keeps_what_it_has() {
    let (first, _) = settling(Duration::ZERO).await;
    first.api.register(instances("web", 1..2)).await.expect("registered");
    let mut stream: Stream = first.ads().await;
    let mut held = HashMap::new();
    for (kind, of_kind) in [(CLUSTER, &[][..]), (ENDPOINT, &["web"])] {
        let answer = stream.ask(Stream::subscribe(kind, of_kind)).await;
        let version = |resource: &envoy_types::pb::envoy::service::discovery::v3::Resource| {
            (resource.name.clone(), resource.version.clone())
        };
        held.insert(kind, answer.resources.iter().map(version).collect::<HashMap<_, _>>());
        stream.ack(&answer).await;
    }
    first.stop().await;

    let (second, before) = settling(SHORT).await;
    let mut stream: Stream = second.ads().await;
    for (kind, of_kind) in [(CLUSTER, &[][..]), (ENDPOINT, &["web"])] {
        let initial_resource_versions = held[&kind].clone();
        stream.say(DeltaDiscoveryRequest { initial_resource_versions, ..Stream::subscribe(kind, of_kind) }).await;
    }
    second.api.register(instances("web", 1..2)).await.expect("it is back");
    let answer = after_the_window(&mut stream, before).await;
    assert_eq!(
        (answer.type_url.as_str(), answer.resources.len(), answer.removed_resources.len()),
        (CLUSTER.type_url(), 0, 0)
    );
    stream.ack(&answer).await;
    stream.nothing_before("probe").await;
}

#[tokio::test]
async fn rule_57_a_new_client_gets_the_names_that_are_there() {
    let (convoy, before) = settling(LONG).await;
    let mut stream: Stream = convoy.ads().await;
    stream.say(Stream::subscribe(ENDPOINT, &["late"])).await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    // Unknown is not empty: of the one that is not there nothing is said.
    let answer = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
    assert_eq!((names(&answer.resources), answer.removed_resources.len()), (vec!["web"], 0));
    stream.ack(&answer).await;
    convoy.api.register(instances("late", 1..2)).await.expect("registered");
    assert_eq!(names(&stream.next().await.resources), ["late"]);
    // A wildcard waits for the first registration, and a second more; not for the window.
    let wildcard = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(names(&wildcard.resources), ["late", "web"]);
    assert!(before.elapsed() < LONG);
}

#[tokio::test]
async fn rule_23_a_new_clients_wildcard_is_not_answered_while_nobody_has_registered() {
    let (convoy, before) = settling(SHORT).await;
    let mut stream: Stream = convoy.ads().await;
    stream.say(Stream::subscribe(CLUSTER, &[])).await;
    let answer = after_the_window(&mut stream, before).await;
    assert_eq!(answer.resources.len(), 0);
}
