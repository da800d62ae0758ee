//! Every path of the HTTP API, every service of the gRPC port, and what is beside them.

use hyper::Method;
use serde_json::json;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{ads::connect, sample::unpaced, server::Convoy, within};

const WEB: &str = "/v1/namespaces/default/services/web";

#[tokio::test]
async fn a_body_is_one_json_object() {
    let convoy = Convoy::start().await;
    let http = &convoy.api.http;
    for body in ["[]", " [[]]", "{\"leases\": []}{}", "{\"leases\": []} x", "null", "7"] {
        let answer = http.call(Method::POST, "/v1/heartbeats", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
    for body in ["", "{}", " {\"leases\": []} \n"] {
        http.call(Method::POST, "/v1/heartbeats", body).await.ok();
    }
}

#[tokio::test]
async fn every_path_answers_to_its_methods() {
    let convoy = Convoy::start().await;
    let http = convoy.api.http;
    let body = json!({"incarnation": 1, "address": "10.0.0.1", "ports": [{"name": "http", "port": 80}]});
    let registered = http.put(&format!("{WEB}/instances/web-1"), &body).await.ok();
    assert_eq!(registered["instance"]["ports"][0]["protocol"], "tcp", "a port that says nothing speaks tcp");
    let lease = registered["lease"]["id"].as_str().expect("a lease").to_owned();
    let many = json!({"incarnation": 1, "instances": [
        {"service": "web", "id": "web-2", "address": "10.0.0.2", "ports": [{"name": "http", "port": 80}]}]});
    assert_eq!(http.post("/v1/registrations", &many).await.ok()["instances"][0]["id"], "web-2");

    assert_eq!(http.get(&format!("{WEB}/instances/web-1")).await.ok()["id"], "web-1");
    let listed = http.get(&format!("{WEB}/instances")).await.ok();
    let ids: Vec<_> = listed["instances"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["web-1", "web-2"]);
    let service = http.get(WEB).await.ok();
    assert_eq!(
        (&service["instances"], &service["healthy"], &service["drain_time"]),
        (&json!(2), &json!(2), &json!("15s"))
    );
    assert_eq!(http.get("/v1/services").await.ok()["services"], json!([service]));
    assert_eq!(http.get("/v1/services?namespace=other").await.ok()["services"], json!([]));
    assert_eq!(http.get("/v1/proxies").await.ok(), json!({"proxies": [], "unknown_replicas": []}));

    let beat = http.call(Method::POST, &format!("/v1/leases/{lease}/heartbeat"), "").await.ok();
    let kept = json!({"outcome": "kept", "lease": {"id": lease, "ttl": "30s"}, "elsewhere": false});
    assert_eq!(unpaced(beat), kept);
    let beats = http.post("/v1/heartbeats", &json!({"leases": [{"lease": lease}]})).await.ok();
    assert_eq!(unpaced(beats), json!({"leases": [kept]}));

    let drained = http.call(Method::POST, &format!("{WEB}/instances/web-1/drain"), "").await.ok();
    assert_eq!(
        (&drained["drain_time"], &drained["instance"]["health"]["verdict"]),
        (&json!("15s"), &json!("draining"))
    );
    let gone = http.delete(&format!("{WEB}/instances/web-1")).await.ok();
    assert_eq!(gone["revision"].as_u64(), drained["revision"].as_u64().map(|revision| revision + 1));
    assert_eq!(http.get(&format!("{WEB}/instances/web-1")).await.status, 404);

    for path in ["/livez", "/readyz"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let metrics = http.get("/metrics").await;
    assert!(metrics.text.contains("convoy_instances") && metrics.text.ends_with("# EOF\n"), "{}", metrics.text);
}

#[tokio::test]
async fn what_there_is_not_is_an_error_with_a_code() {
    let convoy = Convoy::start().await;
    let http = convoy.api.http;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/v1", 404, "not_found"),
        (Method::GET, "/v2/services", 404, "not_found"),
        (Method::GET, "/v1/services/", 404, "not_found"),
        (Method::POST, "/v1/services", 405, "method_not_allowed"),
        (Method::PATCH, "/v1/namespaces/default/services/web", 405, "method_not_allowed"),
        (Method::GET, "/v1/heartbeats", 405, "method_not_allowed"),
        (Method::GET, "/v1/namespaces/default/services/web", 404, "not_found"),
        (Method::GET, "/v1/namespaces/default/services/web/instances", 404, "not_found"),
        (Method::GET, "/v1/namespaces/default/services/web/instances/web-1", 404, "not_found"),
        (Method::DELETE, "/v1/namespaces/default/services/web/instances/web-1", 404, "not_found"),
        (Method::POST, "/v1/namespaces/default/services/web/instances/web-1/drain", 404, "not_found"),
        (Method::DELETE, "/v1/namespaces/default/services/web", 404, "not_found"),
        (Method::POST, "/v1/leases/0123456789abcdef0123456789abcdef/heartbeat", 404, "lease_not_found"),
        (Method::POST, "/v1/leases/mine/heartbeat", 400, "invalid_argument"),
        (Method::GET, "/v1/watch?namespace=A", 400, "invalid_argument"),
        (Method::GET, "/v1/watch?unknown=1", 400, "invalid_argument"),
        (Method::GET, "/v1/services?namespce=default", 400, "invalid_argument"),
    ] {
        let answer = http.call(method.clone(), path, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], code, "{method} {path}");
        assert_ne!(answer.json()["error"]["message"], "", "{method} {path}");
    }
}

/// A body that names another place than the path is a mistake, and not silently one of the two.
#[tokio::test]
async fn a_body_cannot_contradict_its_path() {
    let convoy = Convoy::start().await;
    let http = convoy.api.http;
    let ports = json!([{"name": "http", "port": 80, "protocol": "http"}]);
    let instance = format!("{WEB}/instances/web-1");
    http.put(&instance, &json!({"address": "10.0.0.1", "ports": ports})).await.ok();
    let lease = http.get(&instance).await.ok()["lease"].as_str().expect("a lease").to_owned();
    for (method, path, body, field) in [
        (Method::PUT, instance.clone(), json!({"id": "web-2", "ports": ports}), "id"),
        (Method::PUT, instance.clone(), json!({"service": "shop", "ports": ports}), "service"),
        (Method::PUT, instance.clone(), json!({"namespace": "shop", "ports": ports}), "namespace"),
        (Method::PUT, WEB.to_owned(), json!({"service": "shop", "ports": ports}), "service"),
        (Method::PUT, WEB.to_owned(), json!({"namespace": "shop", "ports": ports}), "namespace"),
        (Method::POST, format!("{instance}/drain"), json!({"id": "web-2"}), "id"),
        (Method::POST, format!("{instance}/drain"), json!({"service": "shop"}), "service"),
        (Method::POST, format!("/v1/leases/{lease}/heartbeat"), json!({"lease": "0".repeat(32)}), "lease"),
    ] {
        let answer = http.call(method, &path, body.to_string()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert_eq!(answer.json()["error"]["field"], field, "{path} {body}");
    }
}

#[tokio::test]
async fn the_xds_port_describes_its_services() {
    let convoy = Convoy::start().await;
    for symbol in [
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "envoy.service.status.v3.ClientStatusDiscoveryService",
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    ] {
        let request = ServerReflectionRequest {
            message_request: Some(MessageRequest::FileContainingSymbol(symbol.into())),
            ..Default::default()
        };
        let mut reflection = ServerReflectionClient::new(connect(convoy.addresses.xds).await);
        let answers = within("reflection", reflection.server_reflection_info(tokio_stream::iter([request]))).await;
        let answer = within("reflection", answers.expect("an answer").into_inner().message()).await.expect("no error");
        let described = answer.and_then(|answer| answer.message_response);
        assert!(matches!(described, Some(MessageResponse::FileDescriptorResponse(_))), "{symbol}: {described:?}");
    }
}

#[tokio::test]
async fn grpc_has_health_and_reflection_and_knows_what_it_has_not() {
    let convoy = Convoy::start().await;
    for (address, service) in [(convoy.addresses.grpc, "convoy.v1.Registry"), (convoy.addresses.xds, "")] {
        let request = HealthCheckRequest { service: service.into() };
        let checked = within("health", HealthClient::new(connect(address).await).check(request)).await;
        assert_eq!(checked.expect("an answer").into_inner().status, 1, "serving");
    }
    let channel = connect(convoy.addresses.grpc).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let answers = within("reflection", reflection.server_reflection_info(tokio_stream::iter([request]))).await;
    let answer = within("reflection", answers.expect("an answer").into_inner().message()).await.expect("no error");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.and_then(|answer| answer.message_response) else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"convoy.v1.Registry") && names.contains(&"convoy.v1.Proxies"), "{names:?}");

    let mut grpc = tonic::client::Grpc::new(channel);
    within("a channel", grpc.ready()).await.expect("ready");
    let codec: tonic_prost::ProstCodec<(), ()> = Default::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/convoy.v1.Registry/Unknown");
    let answer = within("an answer", grpc.unary(tonic::Request::new(()), path, codec)).await;
    assert_eq!(answer.expect_err("no such call").code(), tonic::Code::Unimplemented);
}
