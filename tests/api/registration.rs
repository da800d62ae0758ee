//! Registering: the answer's shape, field by field, and what saying it again means.

use convoy_client::proto::{self, Registration, WatchKind};
use serde_json::{Value, json};

use crate::support::{
    api::{Call, FACES, Face},
    sample::{call, instance, unpaced},
    server::Convoy,
    watch::Watch,
};

const REVIEWS_1: &str = "/v1/namespaces/default/services/reviews/instances/reviews-1";

/// The registration that the HTTP API is described by.
fn described() -> Value {
    json!({
        "incarnation": 1, "address": "10.0.0.7", "ports": [{"name": "http", "port": 8080, "protocol": "http"}],
        "weight": 100, "ttl": "30s", "ready": true, "labels": {"language": "python"},
        "capabilities": [{"name": "image-classification", "version": "2.1"}],
        "locality": {"region": "us-east-1", "zone": "us-east-1a"},
        "sla": {"latency_p99": "50ms", "throughput_rps": 200}
    })
}

#[tokio::test]
async fn the_described_put_is_answered_field_by_field() {
    let convoy = Convoy::start().await;
    let mut answer = convoy.api.http.put(REVIEWS_1, &described()).await.ok();
    let lease = answer["lease"]["id"].as_str().expect("a lease id").to_owned();
    assert!(lease.len() == 32 && lease.bytes().all(|c| c.is_ascii_hexdigit()), "{lease}");
    let digest = answer["digest"].take();
    assert_eq!(digest.as_str().map(str::len), Some(16), "{digest}");
    for time in ["/instance/registered_at", "/instance/health/since", "/instance/health/axes/1/since"] {
        let text = answer.pointer_mut(time).expect(time).take();
        let time: prost_types::Timestamp = text.as_str().expect("a text").parse().expect("RFC 3339");
        let age = std::time::SystemTime::now().duration_since(time.try_into().expect("a time")).expect("in the past");
        assert!(age.as_secs() < 30, "{text}");
    }
    assert_eq!(
        unpaced(answer),
        json!({
            "instance": {
                "namespace": "default", "service": "reviews", "id": "reviews-1", "incarnation": 1,
                "address": "10.0.0.7", "ports": [{"name": "http", "port": 8080, "protocol": "http"}], "weight": 100,
                "health": {
                    "verdict": "healthy", "reason": "its agent says that it is ready", "since": null, "ready": true,
                    "draining": false,
                    "axes": [
                        {"axis": "lease", "state": "held", "reason": ""},
                        {"axis": "readiness", "state": "ready", "since": null, "reason": ""}
                    ]
                },
                "labels": {"language": "python"},
                "capabilities": [{"name": "image-classification", "version": "2.1", "attributes": {}, "description": ""}],
                "locality": {"region": "us-east-1", "zone": "us-east-1a", "sub_zone": ""},
                "sla": {"latency_p99": "50ms", "throughput_rps": 200.0},
                "lease": lease, "registered_at": null, "revision": 1,
                "description": "", "effective_weight": 100, "history": []
            },
            "lease": {"id": lease, "ttl": "30s"},
            "revision": 1, "digest": null
        })
    );
    let got = convoy.api.http.get(REVIEWS_1).await.ok();
    assert_eq!((&got["id"], &got["revision"], &got["lease"]), (&json!("reviews-1"), &json!(1), &json!(lease)));
    let listed = convoy.api.http.get("/v1/namespaces/default/services/reviews/instances").await.ok();
    assert_eq!(listed, json!({"instances": [got], "revision": 1}));
}

#[tokio::test]
async fn both_faces_give_the_same_answer() {
    let convoy = Convoy::start().await;
    let read = |convoy: &Convoy, face: Face| {
        let api = convoy.api.clone();
        async move {
            let of = |service: &str| proto::ListInstancesRequest { service: service.into(), ..Default::default() };
            let key = proto::GetInstanceRequest { service: "web".into(), id: "web-1".into(), ..Default::default() };
            let service = proto::GetServiceRequest { service: "web".into(), ..Default::default() };
            let mut answers = Vec::new();
            for call in [
                Call::Register(call([instance("web", 1), instance("web", 2)])),
                Call::GetInstance(key),
                Call::ListInstances(of("web")),
                Call::GetService(service),
                Call::ListServices(Default::default()),
                Call::ListProxies,
            ] {
                answers.push(unpaced(api.ask(face, call).await.expect("an answer")));
            }
            answers
        }
    };
    assert_eq!(read(&convoy, Face::Grpc).await, read(&convoy, Face::Http).await);
}

#[tokio::test]
async fn a_registration_said_twice_is_one_without_revision_or_event() {
    let convoy = Convoy::start().await;
    let mut watch = Watch::all(&convoy.api, Face::Grpc).await;
    watch.synced().await;
    let first = convoy.api.http.put(REVIEWS_1, &described()).await.ok();
    let again = convoy.api.http.put(REVIEWS_1, &described()).await.ok();
    assert_eq!(unpaced(first.clone()), unpaced(again));
    // Without incarnation it is the present one.
    let mut unsaid = described();
    unsaid.as_object_mut().expect("an object").remove("incarnation");
    assert_eq!(unpaced(convoy.api.http.put(REVIEWS_1, &unsaid).await.ok()), unpaced(first));
    assert_eq!(watch.told().await, (WatchKind::Added, "reviews-1".into()));
    // The next event is of the next change: nothing came between.
    convoy.api.register(call([instance("probe", 1)])).await.expect("registered");
    assert_eq!(watch.told().await, (WatchKind::Added, "probe-1".into()));
}

#[tokio::test]
async fn other_content_changes_the_instance() {
    let convoy = Convoy::start().await;
    let mut watch = Watch::all(&convoy.api, Face::Http).await;
    watch.synced().await;
    let mut told = described();
    let first = convoy.api.http.put(REVIEWS_1, &told).await.ok();
    assert_eq!(watch.told().await.0, WatchKind::Added);
    for (revision, (field, value)) in [
        ("weight", json!(7)),
        ("labels", json!({"language": "rust"})),
        ("address", json!("10.0.0.8")),
        ("sla", json!({"cost_per_request": 0.5})),
        ("locality", json!({"region": "eu"})),
        ("ready", json!(false)),
    ]
    .into_iter()
    .enumerate()
    {
        told[field] = value.clone();
        let answer = convoy.api.http.put(REVIEWS_1, &told).await.ok();
        assert_eq!(
            (&answer["revision"], &answer["instance"]["revision"]),
            (&json!(revision + 2), &json!(revision + 2))
        );
        assert_eq!(answer["instance"]["registered_at"], first["instance"]["registered_at"], "{field}");
        assert_eq!(answer["lease"]["id"], first["lease"]["id"], "{field}");
        let event = watch.next().await;
        assert_eq!((event.kind(), event.revision), (WatchKind::Changed, revision as u64 + 2), "{field}");
        let shown = if field == "ready" { &answer["instance"]["health"][field] } else { &answer["instance"][field] };
        assert!(contains(shown, &value), "{field}: {shown}");
    }
}

/// Whether a value has everything that another has; what was not said may have been filled in.
fn contains(all: &Value, some: &Value) -> bool {
    match (all, some) {
        (Value::Object(all), Value::Object(some)) => some.iter().all(|(key, value)| all.get(key) == Some(value)),
        _ => all == some,
    }
}

#[tokio::test]
async fn readiness_and_weight_say_whether_it_is_in_traffic() {
    let convoy = Convoy::start().await;
    for (service, (ready, weight, then_ready)) in
        [(None, None, true), (Some(true), Some(0), true), (Some(false), Some(65_535), true), (Some(false), None, false)]
            .into_iter()
            .enumerate()
            .map(|(number, case)| (format!("s{number}"), case))
    {
        let registration = Registration { ready, weight, ..instance(&service, 1) };
        let first = convoy.api.register(call([registration.clone()])).await.expect("registered");
        let shown = &first.instances[0];
        let verdict = |instance: &proto::Instance| instance.health.clone().expect("health").verdict().to_string();
        let expected = if ready == Some(false) { "starting" } else { "healthy" };
        assert_eq!((verdict(shown), shown.weight), (expected.to_owned(), weight.unwrap_or(100)));
        let ready = Registration { ready: Some(then_ready), ..registration.clone() };
        let then = convoy.api.register(call([ready])).await.expect("registered");
        assert_eq!(verdict(&then.instances[0]), if then_ready { "healthy" } else { "starting" });
        let unready = Registration { ready: Some(false), ..registration };
        let last = convoy.api.register(call([unready])).await.expect("registered");
        // Whoever was ready once is not starting any more.
        assert_eq!(verdict(&last.instances[0]), if then_ready { "unhealthy" } else { "starting" });
    }
}

#[tokio::test]
async fn an_absent_address_is_the_connections() {
    let convoy = Convoy::start().await;
    for (face, service) in FACES.into_iter().zip(["over-http", "over-grpc"]) {
        let unsaid = Registration { address: String::new(), ..instance(service, 1) };
        let answer = convoy.api.ask(face, Call::Register(call([unsaid]))).await.expect("registered");
        assert_eq!(answer["instances"][0]["address"], "127.0.0.1", "{face:?}");
    }
    let mut put = described();
    put["address"] = json!("");
    let answer = convoy.api.http.put(REVIEWS_1, &put).await.ok();
    assert_eq!(answer["instance"]["address"], "127.0.0.1");
}

#[tokio::test]
async fn one_refused_instance_refuses_the_whole_call() {
    let convoy = Convoy::start().await;
    for face in FACES {
        let bad = Registration { address: "nowhere".into(), ..instance("web", 2) };
        let refused = convoy.api.ask(face, Call::Register(call([instance("web", 1), bad]))).await.expect_err("bad");
        assert_eq!(refused.problem.field, "instances[1].address");
        let services = convoy.api.ask(face, Call::ListServices(Default::default())).await.expect("a list");
        assert_eq!(services, json!({"services": [], "revision": 0}));
    }
}
