//! Raw resources that are none, and selectors that would take the server down.

use convoy::{envoy_json, model::ResourceType};
use convoy_client::proto::{PutResourceRequest, resources_client::ResourcesClient};
use hyper::{Method, Request, body::Bytes};
use prost_types::Any;
use rand::RngExt;
use serde_json::json;

use super::Witness;
use crate::support::{
    api::{escape, resource},
    seeded,
};

const ROUNDS: usize = 300;

fn listener() -> serde_json::Value {
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let manager = json!({"@type": hcm, "stat_prefix": "in", "http_filters": [{"name": "a", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": true}}]});
    json!({"name": "a", "filter_chains": [{"filters": [{"name": "b", "typed_config": manager}]}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_that_are_too_much_are_refused() {
    let mut witness = Witness::start().await;
    for text in
        ["(".repeat(1000), "1+".repeat(500), "[1].all(x,".repeat(90), "-".repeat(1024), "a?".repeat(500), "é".into()]
    {
        let path = format!("{}?selector={}", resource("clusters", "a"), escape(&text));
        let answer = witness.api().http.call(Method::PUT, &path, "{}").await;
        assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("selector")), "{text:.50}");
        assert!(answer.text.len() < 4_096, "{}", answer.text);
    }
    witness.check("selectors").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_too_deep_or_too_much_are_refused() {
    let mut witness = Witness::start().await;
    let http = witness.api().http;
    let nest = |open: &str, close: &str, depth: usize| [&open.repeat(depth), "1", &close.repeat(depth)].concat();
    let bombs: String = (0..30).map(|of| format!("a{}: &a{} [*a{of}, *a{of}, *a{of}]\n", of + 1, of + 1)).collect();
    for (kind, body) in [
        ("json", nest("{\"a\":", "}", 100)),
        ("json", nest("[", "]", 400_000)),
        ("json", format!("{{\"metadata\":{{\"filter_metadata\":{{\"a\":{}}}}}}}", nest("{\"a\":", "}", 110))),
        ("yaml", nest("{a: ", "}", 1000)),
        ("yaml", nest("- ", "", 100_000)),
        ("yaml", format!("a0: &a0 [x]\n{bombs}")),
        ("yaml", "\u{0}\u{1}".into()),
    ] {
        let request = Request::builder().method(Method::PUT).uri(resource("clusters", "a")).header("host", "convoy");
        let request = request.header("content-type", format!("application/{kind}"));
        let body = http_body_util::Full::new(Bytes::from(body));
        let response = http.send(request.body(body).expect("a request")).await;
        assert_eq!(response.status().as_u16(), 400, "{kind}");
    }
    witness.check("documents").await;
}

/// A good resource with some bytes changed is taken, and shown again, or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_with_changed_bytes_do_no_harm() {
    let mut random = seeded("resources_with_changed_bytes_do_no_harm");
    let mut witness = Witness::start().await;
    let http = witness.api().http;
    let text = listener().to_string();
    let bytes = envoy_json::read(ResourceType::Listener, "a", listener()).expect("valid");
    let grpc = format!("http://{}", witness.child.addresses.grpc);
    let mut resources = ResourcesClient::connect(grpc).await.expect("connected");
    for _ in 0..ROUNDS {
        let mut changed = text.clone().into_bytes();
        let mut value = bytes.to_vec();
        for _ in 0..random.random_range(1..4) {
            let (at, with) = (random.random_range(0..changed.len()), random.random_range(b' '..b'\x7f'));
            changed[at] = with;
            let at = random.random_range(0..value.len());
            value[at] = random.random();
        }
        let status = http.call(Method::PUT, &resource("listeners", "a"), changed).await.status;
        assert!(matches!(status, 200 | 400), "{status}");
        let body = Some(Any { type_url: ResourceType::Listener.type_url().into(), value });
        let request = PutResourceRequest { r#type: "listeners".into(), name: "a".into(), body, ..Default::default() };
        match resources.put_resource(request).await {
            Ok(_) => assert_eq!(http.get(&resource("listeners", "a")).await.status, 200),
            Err(status) => assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}"),
        }
    }
    witness.check("changed bytes").await;
}
