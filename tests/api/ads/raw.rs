//! Resources that somebody wrote, as clients get them: in place of what is generated and beside it, for all or for some.

use convoy_client::proto::{DeleteResourceRequest, PutResourceRequest};
use envoy_types::pb::envoy::{
    config::{cluster::v3::Cluster, core::v3::Node, route::v3::RouteConfiguration},
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use prost::Message;

use super::with_services;
use crate::support::{
    ads::{self, CLUSTER, Incremental, ROUTE, ResourceType, StateOfTheWorld, decode, names},
    api::{Call, Face},
    server::Convoy,
};

type Stream = ads::Stream<Incremental>;

async fn put(convoy: &Convoy, kind: ResourceType, name: &str, variant: &str, selector: &str, message: impl Message) {
    let body = prost_types::Any { type_url: kind.type_url().into(), value: message.encode_to_vec() };
    let request = PutResourceRequest {
        r#type: kind.as_str().into(),
        name: name.into(),
        variant: variant.into(),
        selector: selector.into(),
        body: Some(body),
        ..Default::default()
    };
    convoy.api.ask(Face::Grpc, Call::PutResource(request)).await.expect("put");
}

async fn delete(convoy: &Convoy, kind: ResourceType, name: &str, variant: &str) {
    let (r#type, name, variant) = (kind.as_str().into(), name.into(), variant.into());
    let request = DeleteResourceRequest { r#type, name, variant };
    convoy.api.ask(Face::Grpc, Call::DeleteResource(request)).await.expect("deleted");
}

fn cluster(name: &str, alt_stat_name: &str) -> Cluster {
    Cluster { name: name.into(), alt_stat_name: alt_stat_name.into(), ..Default::default() }
}

fn stat_names(response: &DeltaDiscoveryResponse) -> Vec<(String, String)> {
    let read = |resource: &envoy_types::pb::envoy::service::discovery::v3::Resource| {
        let cluster: Cluster = decode(CLUSTER, resource.resource.as_ref().expect("a resource"));
        (cluster.name, cluster.alt_stat_name)
    };
    response.resources.iter().map(read).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn one_of_the_same_name_goes_before_what_is_generated() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(stat_names(&first), pairs(&[("web", "")]));
    stream.ack(&first).await;
    put(&convoy, CLUSTER, "web", "", "", cluster("web", "mine")).await;
    let mine = stream.next().await;
    assert_eq!(stat_names(&mine), pairs(&[("web", "mine")]));
    stream.ack(&mine).await;
    put(&convoy, CLUSTER, "extra", "", "", cluster("extra", "one more")).await;
    let extra = stream.next().await;
    assert_eq!(stat_names(&extra), pairs(&[("extra", "one more")]));
    stream.ack(&extra).await;
    // Who comes later gets both, in either dialect.
    let late = convoy.ads::<Incremental>().await.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!(names(&late.resources), ["extra", "web"]);
    let mut sotw = convoy.ads::<StateOfTheWorld>().await;
    assert_eq!(sotw.ask(ads::Stream::<StateOfTheWorld>::subscribe(CLUSTER, &[])).await.resources.len(), 2);
    delete(&convoy, CLUSTER, "web", "").await;
    let generated = stream.next().await;
    assert_eq!((stat_names(&generated), generated.resources == first.resources), (pairs(&[("web", "")]), true));
    stream.ack(&generated).await;
    delete(&convoy, CLUSTER, "extra", "").await;
    assert_eq!(stream.next().await.removed_resources, ["extra"]);
}

#[tokio::test]
async fn some_are_for_those_whom_a_selector_matches() {
    let convoy = with_services(&[]).await;
    let routes = |host: &str| RouteConfiguration {
        name: "edge".into(),
        request_headers_to_remove: vec![host.into()],
        ..Default::default()
    };
    put(&convoy, ROUTE, "edge", "", "", routes("plain")).await;
    put(&convoy, ROUTE, "edge", "a", "node.id == 'one'", routes("for one")).await;
    let said = |response: &DeltaDiscoveryResponse| {
        let [resource] = &response.resources[..] else { panic!("one resource: {response:?}") };
        let routes: RouteConfiguration = decode(ROUTE, resource.resource.as_ref().expect("a resource"));
        routes.request_headers_to_remove.concat()
    };
    let (mut one, mut two): (Stream, Stream) = (convoy.ads().await, convoy.ads().await);
    let ask = |id: &str| DeltaDiscoveryRequest {
        node: Some(Node { id: id.into(), ..Default::default() }),
        ..Stream::subscribe(ROUTE, &["edge"])
    };
    let (for_one, for_two) = (one.ask(ask("one")).await, two.ask(ask("two")).await);
    assert_eq!((said(&for_one).as_str(), said(&for_two).as_str()), ("for one", "plain"));
    one.ack(&for_one).await;
    two.ack(&for_two).await;
    // The choice is made again when what there is to choose from changes.
    put(&convoy, ROUTE, "edge", "a", "node.id == 'two'", routes("for two")).await;
    let (for_one, for_two) = (one.next().await, two.next().await);
    assert_eq!((said(&for_one).as_str(), said(&for_two).as_str()), ("plain", "for two"));
    one.ack(&for_one).await;
    two.ack(&for_two).await;
    delete(&convoy, ROUTE, "edge", "a").await;
    let for_two = two.next().await;
    assert_eq!(said(&for_two), "plain");
    two.ack(&for_two).await;
    delete(&convoy, ROUTE, "edge", "").await;
    assert_eq!(two.next().await.removed_resources, ["edge"]);
    assert_eq!(one.next().await.removed_resources, ["edge"]);
}
