//! Services: made by hand or by their first instance, what they fix, and who may have an address.

use convoy_client::proto::{
    DeregisterRequest, DrainRequest, ExportTo, Protocol, PutServiceRequest, Registration, ServicePort, WatchKind,
};
use serde_json::{Value, json};

use crate::support::{
    api::{Call, FACES, Face},
    sample::{call, instance, instances, port},
    server::Convoy,
    watch::Watch,
};

const WEB: &str = "/v1/namespaces/default/services/web";

fn port_of(name: &str, protocol: &str, port: u32) -> Value {
    json!({"name": name, "protocol": protocol, "port": port})
}

#[tokio::test]
async fn a_service_is_put_got_changed_and_deleted() {
    let convoy = Convoy::start().await;
    let http = convoy.api.http;
    let put = json!({"default_port": "admin", "drain_time": "2s",
        "ports": [port_of("http", "http", 80), port_of("admin", "grpc", 81)]});
    let made = http.put(WEB, &put).await.ok();
    let service = json!({"namespace": "default", "name": "web", "default_port": "admin", "drain_time": "2s",
        "ports": [port_of("admin", "grpc", 81), port_of("http", "http", 80)],
        "instances": 0, "healthy": 0, "revision": 1, "export_to": {"namespaces": []}, "brake": {"off": false},
        "load": {"off": false, "min_share": 10, "slow_start": "0s", "interval": "5s"}, "selector": "", "left_out": 0});
    assert_eq!(made, json!({"service": service, "revision": 1}));
    assert_eq!(http.get(WEB).await.ok(), service);
    assert_eq!(http.put(WEB, &put).await.ok(), made, "said twice is said once");

    // Ports are added, never taken away.
    let changed = http.put(WEB, &json!({"ports": [port_of("extra", "tcp", 82)]})).await.ok();
    let names: Vec<_> =
        changed["service"]["ports"].as_array().expect("ports").iter().map(|p| p["name"].clone()).collect();
    assert_eq!((names, &changed["revision"]), (vec![json!("admin"), json!("extra"), json!("http")], &json!(2)));
    assert_eq!(http.delete(WEB).await.ok(), json!({"revision": 3}));
    let gone = http.get(WEB).await;
    assert_eq!((gone.status, gone.stale), (404, None), "nothing is stale where there is one writer");
}

#[tokio::test]
async fn what_a_put_leaves_out_stays() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let ask = async |request| convoy.api.ask(face, Call::PutService(request)).await;
        let web = || PutServiceRequest { service: "web".into(), ..Default::default() };
        let refused = ask(web()).await.expect_err("a new service needs a port");
        assert_eq!(refused.problem.field, "ports");
        let port = |name: &str, port| ServicePort { name: name.into(), protocol: Protocol::Http.into(), port };
        let ports = vec![port("http", 80), port("admin", 81)];
        let made = ask(PutServiceRequest { ports, ..web() }).await.expect("made")["service"].clone();
        assert_eq!((&made["default_port"], &made["drain_time"]), (&json!("http"), &json!("15s")));
        let to = |names: &[&str]| Some(ExportTo { namespaces: names.iter().map(|name| (*name).into()).collect() });
        for (change, field, value) in [
            (PutServiceRequest { drain_time: crate::support::sample::seconds(1), ..web() }, "drain_time", json!("1s")),
            (PutServiceRequest { default_port: "admin".into(), ..web() }, "default_port", json!("admin")),
            (
                PutServiceRequest { export_to: to(&["shop", "bank"]), ..web() },
                "export_to",
                json!({"namespaces": ["bank", "shop"]}),
            ),
            (PutServiceRequest { ports: vec![port("http", 80)], ..web() }, "default_port", json!("admin")),
            (PutServiceRequest { export_to: to(&["*"]), ..web() }, "export_to", json!({"namespaces": ["*"]})),
            (PutServiceRequest { export_to: to(&[]), ..web() }, "export_to", json!({"namespaces": []})),
        ] {
            let before = convoy.api.http.get(WEB).await.ok();
            let mut after = ask(change).await.expect(field)["service"].clone();
            assert_eq!(after[field], value);
            for same in [field, "revision"] {
                after[same] = before[same].clone();
            }
            assert_eq!(after, before, "all but {field} has stayed");
        }
        for (change, field) in [
            (PutServiceRequest { export_to: to(&["No"]), ..web() }, "export_to.namespaces[0]"),
            (PutServiceRequest { default_port: "none".into(), ..web() }, "default_port"),
        ] {
            assert_eq!(ask(change).await.expect_err(field).problem.field, field);
        }
    }
}

#[tokio::test]
async fn a_first_instance_makes_the_service_and_fixes_its_ports() {
    let convoy = Convoy::start().await;
    let ports = vec![port("grpc", 9090, Protocol::Grpc), port("http", 8080, Protocol::Http)];
    convoy.api.register(call([Registration { ports, ..instance("web", 1) }])).await.expect("registered");
    let service = convoy.api.http.get(WEB).await.ok();
    assert_eq!(service["default_port"], "grpc", "the first");
    // Another number is that instance's own affair; another protocol is not.
    let elsewhere = Registration { ports: vec![port("grpc", 7070, Protocol::Grpc)], ..instance("web", 2) };
    convoy.api.register(call([elsewhere])).await.expect("registered");
    assert_eq!(convoy.api.http.get(WEB).await.ok()["ports"], service["ports"]);
    for face in FACES {
        let other = Registration { ports: vec![port("grpc", 9090, Protocol::Http2)], ..instance("web", 3) };
        let refused = convoy.api.ask(face, Call::Register(call([other]))).await.expect_err("another protocol");
        let problem = refused.problem;
        assert_eq!((&*problem.code, &*problem.value), ("protocol_conflict", "http2"));
        assert!(problem.rule.contains("grpc") && problem.message.contains("speaks grpc"), "{problem:?}");
        assert!(problem.field.ends_with("protocol"), "{problem:?}");
        let ports = vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp.into(), port: 8080 }];
        let put = PutServiceRequest { service: "web".into(), ports, ..Default::default() };
        let refused = convoy.api.ask(face, Call::PutService(put)).await.expect_err("another protocol");
        assert_eq!(refused.problem.code, "protocol_conflict");
    }
}

#[tokio::test]
async fn a_virtual_service_lists_whom_it_selects_and_takes_none_of_its_own() {
    let convoy = Convoy::start().await;
    convoy.api.register(instances("web", 1..4)).await.expect("registered");
    let http = convoy.api.http;
    let all = "/v1/namespaces/default/services/all";
    let selector = "instance.service == 'web' && instance.id != 'web-2'";
    let made = http.put(all, &json!({"ports": [port_of("http", "http", 80)], "selector": selector})).await.ok();
    let service = &made["service"];
    let counts = (&service["instances"], &service["left_out"]);
    assert_eq!((&service["selector"], counts), (&json!(selector), (&json!(2), &json!(0))));
    let listed = http.get(&format!("{all}/instances")).await.ok();
    let name = |instance: &Value| json!([instance["service"], instance["id"]]);
    let names: Vec<Value> = listed["instances"].as_array().expect("a list").iter().map(name).collect();
    assert_eq!(names, [json!(["web", "web-1"]), json!(["web", "web-3"])]);
    for (id, outcome, says) in [("web-1", "passes", "selects it"), ("web-2", "note", "does not select it")] {
        let told = http.get(&format!("{WEB}/instances/{id}/explain")).await.ok();
        let steps = told["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == "selector").expect("a step about selectors");
        let detail = format!("the virtual service default/all {says}: {selector}");
        assert_eq!((&step["outcome"], &step["detail"]), (&json!(outcome), &json!(detail)));
    }
    for face in FACES {
        let refused = convoy.api.ask(face, Call::Register(instances("all", 1..2))).await.expect_err("none of its own");
        assert!(refused.problem.rule.contains("virtual"), "{refused:?}");
        let put = PutServiceRequest { service: "web".into(), selector: "true".into(), ..Default::default() };
        let refused = convoy.api.ask(face, Call::PutService(put)).await.expect_err("it has instances");
        assert_eq!(refused.problem.field, "selector");
        let load = PutServiceRequest {
            service: "all".into(),
            selector: "instance.load.cpu > 0.5".into(),
            ..Default::default()
        };
        assert_eq!(
            convoy.api.ask(face, Call::PutService(load)).await.expect_err("it is not stored").problem.field,
            "selector"
        );
    }
}

#[tokio::test]
async fn a_service_with_instances_is_not_deleted_and_outlives_them() {
    let convoy = Convoy::start().await;
    convoy.api.register(instances("web", 1..2)).await.expect("registered");
    for face in FACES {
        let delete = convoy_client::proto::DeleteServiceRequest { service: "web".into(), ..Default::default() };
        let refused = convoy.api.ask(face, Call::DeleteService(delete)).await.expect_err("it has one");
        let problem = refused.problem;
        assert_eq!((&*problem.code, &*problem.field, &*problem.value), ("not_empty", "service", "default/web"));
    }
    convoy.api.http.delete(&format!("{WEB}/instances/web-1")).await.ok();
    assert_eq!(convoy.api.http.get(&format!("{WEB}/instances")).await.ok()["instances"], json!([]));
    convoy.api.http.delete(WEB).await.ok();
}

#[tokio::test]
async fn namespaces_keep_their_names_apart() {
    let convoy = Convoy::start().await;
    let shop = Registration { namespace: "shop".into(), ..instance("web", 1) };
    convoy.api.register(call([instance("web", 1)])).await.expect("registered");
    convoy.api.register(call([shop])).await.expect("registered: the same address in another service");
    convoy.api.http.delete(&format!("{WEB}/instances/web-1")).await.ok();
    let path = "/v1/namespaces/shop/services/web/instances/web-1";
    assert_eq!(convoy.api.http.get(path).await.ok()["namespace"], "shop");
}

#[tokio::test]
async fn the_newest_registration_of_an_address_replaces_the_older() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut watch = Watch::all(&convoy.api, face).await;
        watch.synced().await;
        convoy.api.register(instances("web", 1..2)).await.expect("registered");
        assert_eq!(watch.told().await, (WatchKind::Added, "web-1".into()));
        let heir = Registration { id: "heir".into(), ..instance("web", 1) };
        convoy.api.ask(face, Call::Register(call([heir]))).await.expect("registered");
        let mut events = [watch.next().await, watch.next().await];
        events.sort_by_key(|event| event.kind);
        let [added, removed] = events;
        assert_eq!((added.kind(), removed.kind()), (WatchKind::Added, WatchKind::Removed));
        assert_eq!(added.revision, removed.revision, "one write");
        assert_eq!(removed.cause().to_string(), "replaced");
        assert_eq!(removed.instance.expect("an instance").id, "web-1");
        assert_eq!(convoy.api.ids("web").await, ["heir"]);
        // The older may not take it back by saying the same again.
        let refused = convoy.api.ask(face, Call::Register(instances("web", 1..2))).await.expect_err("replaced");
        assert_eq!(refused.problem.code, "incarnation_fenced");
    }
}

#[tokio::test]
async fn a_drain_takes_the_services_time_unless_it_says_its_own() {
    let convoy = Convoy::start().await;
    convoy.api.http.put(WEB, &json!({"drain_time": "1h", "ports": [port_of("http", "http", 8080)]})).await.ok();
    convoy.api.register(instances("web", 1..3)).await.expect("registered");
    let drain = |id: &str, seconds: Option<i64>| {
        let drain_time = seconds.and_then(crate::support::sample::seconds);
        Call::Drain(DrainRequest { service: "web".into(), id: id.into(), drain_time, ..Default::default() })
    };
    for face in FACES {
        let answer = convoy.api.ask(face, drain("web-1", None)).await.expect("draining");
        assert_eq!(answer["drain_time"], "1h");
        assert_eq!(answer["instance"]["health"]["draining"], true);
        let answer = convoy.api.ask(face, drain("web-2", Some(60))).await.expect("draining");
        assert_eq!(answer["drain_time"], "1m");
    }
    // A registration said again meanwhile does not end it.
    let answer = convoy.api.register(instances("web", 1..2)).await.expect("said again");
    assert!(answer.instances[0].health.clone().expect("health").draining);
    let gone = DeregisterRequest { service: "web".into(), id: "web-1".into(), ..Default::default() };
    convoy.api.ask(Face::Grpc, Call::Deregister(gone)).await.expect("an explicit end comes at once");
    assert_eq!(convoy.api.ids("web").await, ["web-2"]);
}
