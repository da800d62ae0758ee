//! The services of one type: what ADS says of that type, and nothing else.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Code;

use super::with_services;
use crate::support::ads::{self, CLUSTER, ENDPOINT, Incremental, LISTENER, ROUTE, StateOfTheWorld, node, strings};

macro_rules! path {
    ($service:literal, $call:literal) => {
        concat!("/envoy.service.", $service, "DiscoveryService/", $call)
    };
}

#[tokio::test]
async fn rule_3_each_answers_for_its_type_with_and_without_being_told() {
    let convoy = with_services(&["web"]).await;
    for (kind, name, state_of_the_world, incremental) in [
        (CLUSTER, "web", path!("cluster.v3.Cluster", "StreamClusters"), path!("cluster.v3.Cluster", "DeltaClusters")),
        (
            ENDPOINT,
            "web",
            path!("endpoint.v3.Endpoint", "StreamEndpoints"),
            path!("endpoint.v3.Endpoint", "DeltaEndpoints"),
        ),
        (
            LISTENER,
            "web",
            path!("listener.v3.Listener", "StreamListeners"),
            path!("listener.v3.Listener", "DeltaListeners"),
        ),
        (ROUTE, "convoy/outbound", path!("route.v3.Route", "StreamRoutes"), path!("route.v3.Route", "DeltaRoutes")),
    ] {
        for type_url in ["", kind.type_url()] {
            let mut stream = ads::Stream::<StateOfTheWorld>::open(convoy.addresses.xds, state_of_the_world).await;
            let (type_url, names) = (type_url.to_owned(), strings(&[name]));
            let request = DiscoveryRequest {
                node: node(),
                type_url: type_url.clone(),
                resource_names: names.clone(),
                ..Default::default()
            };
            let answer = stream.ask(request).await;
            assert_eq!((answer.type_url.as_str(), answer.resources.len()), (kind.type_url(), 1), "{kind:?}");

            let mut stream = ads::Stream::<Incremental>::open(convoy.addresses.xds, incremental).await;
            let request =
                DeltaDiscoveryRequest { node: node(), type_url, resource_names_subscribe: names, ..Default::default() };
            let answer = stream.ask(request).await;
            assert_eq!((answer.type_url.as_str(), ads::names(&answer.resources)), (kind.type_url(), vec![name]));
        }
    }
}

#[tokio::test]
async fn rule_3_another_type_is_refused() {
    let convoy = with_services(&["web"]).await;
    let path = path!("cluster.v3.Cluster", "StreamClusters");
    let mut stream = ads::Stream::<StateOfTheWorld>::open(convoy.addresses.xds, path).await;
    stream.say(ads::Stream::<StateOfTheWorld>::subscribe(ENDPOINT, &["web"])).await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("type_url") && status.message().contains("Cluster"), "{status:?}");
}
