//! One request, one response: the fetch calls of the single-type services.

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use hyper::Method;
use serde_json::json;
use tonic::{Code, Status, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use super::with_services;
use crate::support::{
    ads::{CLUSTER, ENDPOINT, ROUTE, ResourceType, connect, node},
    http::Http,
    server::Convoy,
    within,
};

async fn fetch(convoy: &Convoy, path: &'static str, request: DiscoveryRequest) -> Result<DiscoveryResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(connect(convoy.addresses.xds).await);
    within("a channel", grpc.ready()).await.expect("a channel");
    let codec: ProstCodec<DiscoveryRequest, DiscoveryResponse> = ProstCodec::default();
    let call = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec);
    within("an answer", call).await.map(tonic::Response::into_inner)
}

const CLUSTERS: &str = "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters";
const ENDPOINTS: &str = "/envoy.service.endpoint.v3.EndpointDiscoveryService/FetchEndpoints";
const SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";

fn request(kind: Option<ResourceType>, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node(),
        type_url: kind.map(ResourceType::type_url).unwrap_or_default().into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_is_asked_for_is_answered_as_it_is_now() {
    let convoy = with_services(&["api", "web"]).await;
    let all = fetch(&convoy, CLUSTERS, request(None, &[])).await.expect("clusters");
    assert_eq!((all.resources.len(), &*all.type_url), (2, CLUSTER.type_url()));
    // What the client had before is of no matter: an answer without clusters would empty it.
    let again = DiscoveryRequest { version_info: all.version_info.clone(), ..request(None, &[]) };
    let again = fetch(&convoy, CLUSTERS, again).await.expect("clusters");
    assert_eq!((again.resources.len(), again.version_info), (2, all.version_info));
    let one = fetch(&convoy, ENDPOINTS, request(Some(ENDPOINT), &["web", "nothing"])).await.expect("endpoints");
    assert_eq!(one.resources.len(), 1);
    let none = fetch(&convoy, SECRETS, request(None, &["nothing"])).await.expect("an answer");
    assert!(none.resources.is_empty());
}

#[tokio::test]
async fn what_breaks_the_protocol_is_refused() {
    let convoy = with_services(&[]).await;
    for (request, says) in [
        (DiscoveryRequest { node: None, ..request(None, &[]) }, "node"),
        (request(Some(ROUTE), &[]), "type_url"),
        (request(None, &[&"x".repeat(5_000)]), "resource names"),
    ] {
        let refused = fetch(&convoy, CLUSTERS, request).await.expect_err(says);
        assert!(matches!(refused.code(), Code::InvalidArgument | Code::ResourceExhausted), "{refused}");
        assert!(refused.message().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn it_is_answered_over_rest_as_well() {
    let convoy = with_services(&["web"]).await;
    let http = Http(convoy.addresses.xds);
    let ask = |version: &str| json!({"node": {"id": "n"}, "version_info": version, "resource_names": []}).to_string();
    let call = |path: &'static str, body: String| http.call(Method::POST, path, body);
    let all = call("/v3/discovery:clusters", ask("")).await.ok();
    assert_eq!((&all["type_url"], &all["resources"][0]["name"]), (&json!(CLUSTER.type_url()), &json!("web")));
    assert_eq!(all["resources"][0]["@type"], CLUSTER.type_url());
    let version = all["version_info"].as_str().expect("a version");
    assert_eq!(call("/v3/discovery:clusters", ask(version)).await.status, 304);
    assert_eq!(call("/v3/discovery:clusters", ask("another")).await.status, 200);
    for (body, says) in [("{", "body"), ("{\"nodes\": 1}", "nodes"), ("{}", "node")] {
        let refused = call("/v3/discovery:clusters", body.to_owned()).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text.contains(says), "{refused:?}");
    }
}
