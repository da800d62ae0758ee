//! What a proxy may see: nothing of a service that is not exported to its namespace, by wildcard or by name; and what it
//! does not import it may name.

use envoy_types::pb::{
    envoy::{
        config::{core::v3::Node, route::v3::RouteConfiguration},
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
    },
    google::protobuf::{Any, Struct, Value, value::Kind},
};
use serde_json::json;

use super::with_services;
use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, Incremental, LISTENER, ROUTE, ResourceType, StateOfTheWorld, decode, names, node},
    server::Convoy,
};

type Delta = ads::Stream<Incremental>;
type Sotw = ads::Stream<StateOfTheWorld>;

const ROUTES: &str = "convoy/outbound";

/// A node in a namespace that imports these.
fn in_namespace(namespace: &str, imports: Option<&str>) -> Option<Node> {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let imports = imports.map(|imports| ("imports".to_owned(), text(imports)));
    let fields = [("namespace".to_owned(), text(namespace))].into_iter().chain(imports).collect();
    node().map(|node| Node { metadata: Some(Struct { fields }), ..node })
}

fn delta(node: &Option<Node>, kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: node.clone(), ..Delta::subscribe(kind, names) }
}

fn sotw(node: &Option<Node>, kind: ResourceType, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest { node: node.clone(), ..Sotw::subscribe(kind, names) }
}

/// The hosts of the route configuration.
fn hosts(any: &Any) -> Vec<String> {
    decode::<RouteConfiguration>(ROUTE, any).virtual_hosts.into_iter().map(|host| host.name).collect()
}

fn hosts_of(response: &DeltaDiscoveryResponse) -> Vec<String> {
    hosts(response.resources[0].resource.as_ref().expect("routes"))
}

fn hosts_of_sotw(response: &DiscoveryResponse) -> Vec<String> {
    hosts(&response.resources[0])
}

async fn export(convoy: &Convoy, to: &[&str]) {
    let put = json!({"export_to": {"namespaces": to}});
    convoy.api.http.put("/v1/namespaces/default/services/web", &put).await.ok();
}

#[tokio::test]
async fn what_is_not_exported_is_not_told_by_wildcard_or_by_name() {
    let convoy = with_services(&["web"]).await;
    let node = in_namespace("shop", None);
    let unseen = ["web", "web.default"];
    let mut stream: Delta = convoy.ads().await;
    let answer = stream.ask(delta(&node, CLUSTER, &["*", "web"])).await;
    assert_eq!((names(&answer.resources), &*answer.removed_resources), (vec![], &["web".to_owned()][..]));
    stream.ack(&answer).await;
    for (kind, of_kind) in [(ENDPOINT, &["web"][..]), (LISTENER, &unseen)] {
        let answer = stream.ask(delta(&node, kind, of_kind)).await;
        assert_eq!((answer.resources.len(), answer.removed_resources.len()), (0, of_kind.len()), "{kind:?}");
        stream.ack(&answer).await;
    }
    let routes = stream.ask(delta(&node, ROUTE, &[ROUTES])).await;
    assert_eq!(hosts_of(&routes), [""; 0]);

    let mut stream: Sotw = convoy.ads().await;
    for (kind, of_kind) in [(CLUSTER, &["*", "web"][..]), (LISTENER, &unseen)] {
        let answer = stream.ask(sotw(&node, kind, of_kind)).await;
        assert_eq!((answer.type_url.as_str(), answer.resources.len()), (kind.type_url(), 0));
        stream.say(Sotw::acked(&answer, of_kind)).await;
    }
    stream.say(sotw(&node, ENDPOINT, &["web"])).await;
    loop {
        let answer = stream.ask(sotw(&node, ROUTE, &[ROUTES])).await;
        if answer.type_url == ROUTE.type_url() {
            assert_eq!(hosts_of_sotw(&answer), [""; 0]);
            break;
        }
        assert_eq!((answer.type_url.as_str(), answer.resources.len()), (ENDPOINT.type_url(), 0));
    }
}

#[tokio::test]
async fn rule_49_and_50_what_is_exported_comes_clusters_first_and_goes_routes_first() {
    let convoy = with_services(&["web"]).await;
    let node = in_namespace("shop", None);
    let mut stream: Delta = convoy.ads().await;
    for (kind, of_kind) in [(CLUSTER, &["*"][..]), (ENDPOINT, &["web"]), (ROUTE, &[ROUTES])] {
        let answer = stream.ask(delta(&node, kind, of_kind)).await;
        stream.ack(&answer).await;
    }
    export(&convoy, &["shop"]).await;
    let mut come = Vec::new();
    while come.last() != Some(&ROUTE.type_url().to_owned()) {
        let answer = stream.next().await;
        assert_eq!(answer.removed_resources.len(), 0, "{answer:?}");
        come.push(answer.type_url.clone());
        stream.ack(&answer).await;
    }
    assert_eq!(come, [CLUSTER.type_url(), ENDPOINT.type_url(), ROUTE.type_url()]);
    export(&convoy, &["bank"]).await;
    let routes = stream.next().await;
    assert_eq!((routes.type_url.as_str(), hosts_of(&routes)), (ROUTE.type_url(), vec![]), "routes go first");
    stream.ack(&routes).await;
    for kind in [CLUSTER, ENDPOINT] {
        let answer = stream.next().await;
        assert_eq!((answer.type_url.as_str(), &*answer.removed_resources), (kind.type_url(), &["web".to_owned()][..]));
        stream.ack(&answer).await;
    }
}

#[tokio::test]
async fn rule_66_imports_narrow_the_wildcard_and_the_routes_and_not_names() {
    let convoy = with_services(&["web", "shop", "bank"]).await;
    let node = in_namespace("default", Some("shop"));
    let mut stream: Delta = convoy.ads().await;
    let answer = stream.ask(delta(&node, CLUSTER, &[])).await;
    assert_eq!(names(&answer.resources), ["shop"]);
    stream.ack(&answer).await;
    let routes = stream.ask(delta(&node, ROUTE, &[ROUTES])).await;
    assert_eq!(hosts_of(&routes), ["shop"]);
    stream.ack(&routes).await;
    // On demand, beside the wildcard: answered, followed, and taken back when it is not wanted any more.
    let answer = stream.ask(delta(&node, CLUSTER, &["web", "unknown"])).await;
    assert_eq!((names(&answer.resources), &*answer.removed_resources), (vec!["web"], &["unknown".to_owned()][..]));
    stream.ack(&answer).await;
    let answer = stream.ask(delta(&node, ENDPOINT, &["web"])).await;
    assert_eq!(names(&answer.resources), ["web"]);
    stream.ack(&answer).await;
    let answer = stream.ask(Delta::change(CLUSTER, &[], &["web"])).await;
    assert_eq!((answer.resources.len(), &*answer.removed_resources), (0, &["web".to_owned()][..]));

    let mut stream: Sotw = convoy.ads().await;
    let clusters = stream.ask(sotw(&node, CLUSTER, &["*"])).await;
    assert_eq!(clusters.resources.len(), 1);
    let clusters = stream.ask(Sotw::acked(&clusters, &["*", "web"])).await;
    assert_eq!(clusters.resources.len(), 2);
    let clusters = stream.ask(Sotw::acked(&clusters, &["*"])).await;
    assert_eq!(clusters.resources.len(), 1);
}
