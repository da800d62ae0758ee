//! Raw resources over both faces: put, shown, listed, deleted, refused, and kept.

use convoy::{envoy_json, model::ResourceType};
use convoy_client::proto::{
    DeleteResourceRequest, GetResourceRequest, ListResourcesRequest, PutResourceRequest,
    resources_client::ResourcesClient,
};
use hyper::{Method, Request, body::Bytes};
use prost_types::Any;
use serde_json::{Value, json};

use crate::support::{
    api::{Call, FACES, resource},
    child::{Child, Home},
    sample::seconds,
    server::Convoy,
};

const EDGE: &str = "node.metadata.role == \"edge\"";

fn put(kind: ResourceType, name: &str, body: Value) -> PutResourceRequest {
    let value = envoy_json::read(kind, name, body).expect("a resource").to_vec();
    let body = Some(Any { type_url: kind.type_url().into(), value });
    PutResourceRequest { r#type: kind.as_str().into(), name: name.into(), body, ..Default::default() }
}

fn get(kind: &str, name: &str, variant: &str) -> Call {
    Call::GetResource(GetResourceRequest { r#type: kind.into(), name: name.into(), variant: variant.into() })
}

fn delete(kind: &str, name: &str, variant: &str) -> Call {
    Call::DeleteResource(DeleteResourceRequest { r#type: kind.into(), name: name.into(), variant: variant.into() })
}

#[tokio::test]
async fn a_resource_is_put_got_changed_and_deleted() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let ask = async |call| convoy.api.ask(face, call).await;
        let routes = json!({"name": "convoy/outbound", "validate_clusters": false});
        let request = PutResourceRequest {
            variant: "edge".into(),
            selector: EDGE.into(),
            ttl: seconds(60),
            ..put(ResourceType::Route, "convoy/outbound", routes.clone())
        };
        let made = ask(Call::PutResource(request.clone())).await.expect("put");
        let mut expected = json!({"type": "routes", "name": "convoy/outbound", "variant": "edge", "selector": EDGE,
            "ttl": "1m", "revision": 1, "version": made["version"], "resource": routes});
        assert_eq!(made, expected);
        assert_eq!(ask(Call::PutResource(request.clone())).await.expect("said again"), made, "nothing has changed");
        assert_eq!(ask(get("routes", "convoy/outbound", "edge")).await.expect("there"), made);
        let by_url = get(ResourceType::Route.type_url(), "convoy/outbound", "edge");
        if face == crate::support::api::Face::Grpc {
            assert_eq!(ask(by_url).await.expect("there"), made);
        }
        let refused = ask(get("routes", "convoy/outbound", "")).await.expect_err("another variant");
        assert_eq!((&*refused.problem.code, &*refused.problem.field), ("not_found", "resource"));

        let changed = ask(Call::PutResource(PutResourceRequest { ttl: None, ..request })).await.expect("changed");
        expected["revision"] = json!(2);
        expected.as_object_mut().expect("an object").remove("ttl");
        assert_eq!(changed, expected, "another TTL, the same bytes");
        assert_eq!(ask(delete("routes", "convoy/outbound", "edge")).await.expect("deleted"), json!({"revision": 3}));
        let refused = ask(delete("routes", "convoy/outbound", "edge")).await.expect_err("gone");
        assert_eq!(refused.problem.code, "not_found");
    }
}

#[tokio::test]
async fn a_list_is_by_type_and_name_and_without_bodies() {
    for face in FACES {
        let convoy = Convoy::start().await;
        for (kind, name, variant) in [
            (ResourceType::Secret, "a", ""),
            (ResourceType::Cluster, "b", "edge"),
            (ResourceType::Cluster, "b", ""),
            (ResourceType::Cluster, "a", ""),
        ] {
            let request = PutResourceRequest { variant: variant.into(), ..put(kind, name, json!({})) };
            convoy.api.ask(face, Call::PutResource(request)).await.expect("put");
        }
        for (kind, name, expected) in [
            ("", "", vec!["clusters a ", "clusters b ", "clusters b edge", "secrets a "]),
            ("clusters", "", vec!["clusters a ", "clusters b ", "clusters b edge"]),
            ("", "a", vec!["clusters a ", "secrets a "]),
            ("routes", "", vec![]),
        ] {
            let request = ListResourcesRequest { r#type: kind.into(), name: name.into() };
            let listed = convoy.api.ask(face, Call::ListResources(request)).await.expect("a list");
            let of = |one: &Value, field: &str| one[field].as_str().expect(field).to_owned();
            let found: Vec<String> = listed["resources"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| format!("{} {} {}", of(one, "type"), of(one, "name"), of(one, "variant")))
                .collect();
            assert_eq!(found, expected);
            assert!(listed["resources"].as_array().is_some_and(|all| all.iter().all(|one| one["resource"].is_null())));
            assert_eq!(listed["revision"], 4);
        }
    }
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_by_its_name() {
    let convoy = Convoy::with(|config| config.limits.raw_resources = 1).await;
    let cluster = |name: &str| put(ResourceType::Cluster, name, json!({}));
    for face in FACES {
        for (request, field, says) in [
            (PutResourceRequest { r#type: "cars".into(), ..cluster("a") }, "type", "clusters, endpoints, listeners"),
            (PutResourceRequest { variant: "No".into(), ..cluster("a") }, "variant", "a DNS label"),
            (
                PutResourceRequest { selector: "node.idd == 'a'".into(), ..cluster("a") },
                "selector",
                "did you mean \"id\"?",
            ),
            (PutResourceRequest { ttl: seconds(0), ..cluster("a") }, "ttl", "from 1s to 24h"),
            (PutResourceRequest { name: "b".into(), ..cluster("a") }, "name", "under which it is put"),
            (PutResourceRequest { name: "n".repeat(1025), ..cluster("a") }, "name", "1 to 1024 bytes"),
        ] {
            let refused = convoy.api.ask(face, Call::PutResource(request)).await.expect_err(field);
            let problem = &refused.problem;
            assert_eq!((&*problem.code, &*problem.field), ("invalid_argument", field), "{problem:?}");
            assert!(problem.rule.contains(says), "{problem:?}");
        }
        convoy.api.ask(face, Call::PutResource(cluster("a"))).await.expect("one");
        let refused = convoy.api.ask(face, Call::PutResource(cluster("b"))).await.expect_err("two");
        assert_eq!(refused.problem.code, "limit_reached");
    }
}

#[tokio::test]
async fn json_is_read_strictly_and_told_by_its_path() {
    let convoy = Convoy::start().await;
    let filter = json!({"name": "f", "typed_config": {"@type": "type.googleapis.com/acme.Filter"}});
    for (kind, body, field) in [
        ("clusters", json!({"nam": "a"}).to_string(), "nam"),
        ("clusters", json!({"name": "b"}).to_string(), "name"),
        (
            "clusters",
            json!({"load_assignment": {"endpoints": [{}, {"priority": "high"}]}}).to_string(),
            "load_assignment.endpoints[1].priority",
        ),
        (
            "listeners",
            json!({"filter_chains": [{"filters": [filter]}]}).to_string(),
            "filter_chains[0].filters[0].typed_config.@type",
        ),
        ("clusters", "{".into(), "body"),
        ("clusters", String::new(), "body"),
        ("clusters", "[]".into(), "resource"),
        ("clusters", "[".repeat(100_000), "body"),
        ("clusters", json!({"metadata": {"filter_metadata": {"a": {"b": vec![1; 400_000]}}}}).to_string(), "body"),
    ] {
        let answer = convoy.api.http.call(Method::PUT, &resource(kind, "a"), body.clone()).await;
        assert_eq!(answer.status, 400, "{body:.100}: {answer:?}");
        assert_eq!(answer.json()["error"]["field"], field, "{answer:?}");
    }
    for (query, field) in [("?ttl=soon", "ttl"), ("?varient=a", "query")] {
        let answer = convoy.api.http.put(&(resource("clusters", "a") + query), &json!({})).await;
        assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!(field)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_name_is_taken_exactly_and_yaml_is_understood() {
    let convoy = Convoy::start().await;
    let http = convoy.api.http;
    for name in
        ["a", "a/b", "a//b", "convoy/outbound", "xdstp://authority/envoy.config.cluster.v3.Cluster/a b?c=d", "ä%2F"]
    {
        let made = http.put(&resource("clusters", name), &json!({})).await.ok();
        assert_eq!((&made["name"], &made["resource"]["name"]), (&json!(name), &json!(name)));
        assert_eq!(http.get(&resource("clusters", name)).await.ok(), made);
    }
    let yaml = "connect_timeout: 1s\ntype: STATIC\nload_assignment:\n  cluster_name: y\n";
    let request = Request::builder().method(Method::PUT).uri(resource("clusters", "y")).header("host", "convoy");
    let request = request.header("content-type", "application/yaml");
    let status = |request| async move { http.send(request).await.status().as_u16() };
    let body = http_body_util::Full::new(Bytes::from_static(yaml.as_bytes()));
    assert_eq!(status(request.body(body).expect("a request")).await, 200);
    let shown = http.get(&resource("clusters", "y")).await.ok();
    assert_eq!(shown["resource"]["load_assignment"], json!({"cluster_name": "y"}));
}

#[tokio::test]
async fn grpc_keeps_bytes_as_they_are() {
    let convoy = Convoy::start().await;
    let mut resources = ResourcesClient::connect(format!("http://{}", convoy.addresses.grpc)).await.expect("connected");
    // A name, and a field that nobody knows.
    let value = b"\x0a\x01a\xfa\xff\x03\x01x".to_vec();
    let any = Any { type_url: ResourceType::Cluster.type_url().into(), value };
    let body = Some(any.clone());
    let request =
        PutResourceRequest { r#type: "clusters".into(), name: "a".into(), body: body.clone(), ..Default::default() };
    let made = resources.put_resource(request.clone()).await.expect("put").into_inner();
    assert_eq!(made.body, body);
    let other = Some(Any { type_url: ResourceType::Route.type_url().into(), ..any });
    for body in [other, None, Some(Any { type_url: ResourceType::Cluster.type_url().into(), value: b"\xff".to_vec() })]
    {
        let refused = resources.put_resource(PutResourceRequest { body, ..request.clone() }).await.expect_err("bad");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test]
async fn what_was_put_survives_a_kill() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    let listener = json!({"name": "edge/in", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}}});
    let path = resource("listeners", "edge/in") + "?variant=edge&ttl=30s&selector=node.id%20%3D%3D%20%27a%27";
    let made = child.api.http.put(&path, &listener).await.ok();
    child.kill().await;
    let child = Child::start(&home).await;
    assert_eq!(child.api.http.get(&(resource("listeners", "edge/in") + "?variant=edge")).await.ok(), made);
    assert_eq!((&made["ttl"], &made["selector"]), (&json!("30s"), &json!("node.id == 'a'")));
}
