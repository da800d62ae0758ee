//! What Envoy holds is exactly what is registered: its configuration dump against a file that people can read.
//!
//! `UPDATE_GOLDEN=1 cargo test --test envoy golden` writes the file anew.

use std::path::Path;

use convoy_client::{Agent, Protocol};
use serde_json::{Map, Value, json};

use crate::{
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    machine,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_holds_exactly_what_is_registered() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    register(&convoy).await;
    for dialect in [SOTW, DELTA] {
        let envoy = Envoy::start(&convoy, dialect).await;
        for (cluster, count) in [("reviews", 2), ("reviews:admin", 2), ("ratings.shop", 1), ("queue", 1)] {
            envoy.sees(cluster, cluster, |hosts| hosts.len() == count).await;
        }
        let dump = envoy.admin("/config_dump?include_eds").await.json();
        is_golden("config_dump.json", &essence(dump, &envoy));
    }
}

async fn register(convoy: &Convoy) {
    let at = |service: &str, id: &str, address: &str| {
        let agent = Agent::builder(convoy.server(), service).id(id).address(address);
        agent.locality("us-east-1", format!("us-east-1{}", &id[id.len() - 1..]), "")
    };
    let web = |agent: convoy_client::AgentBuilder| {
        agent.port("http", 8080, Protocol::Http).port("admin", 9090, Protocol::Grpc)
    };
    let agents = [
        web(at("reviews", "reviews-a", "10.0.0.1")),
        web(at("reviews", "reviews-b", "10.0.0.2").weight(300)),
        // Neither of these takes requests.
        web(at("reviews", "reviews-c", "10.0.0.3").ready(false)),
        web(at("reviews", "reviews-d", "10.0.0.4").weight(0)),
        at("ratings", "ratings-a", "10.0.1.1").namespace("shop").port("http", 8080, Protocol::Http2),
        at("queue", "queue-a", "fd00::1").port("amqp", 5672, Protocol::Tcp),
    ];
    for agent in agents {
        convoy.client().register(agent.into_request()).await.expect("registered");
    }
    convoy.run(&["--namespace", "shop", "service", "put", "ratings", "--export-to", "default"]).await;
}

/// What came from Convoy, without times, versions and this test's port.
fn essence(mut dump: Value, envoy: &Envoy) -> Value {
    let mut essence = Map::new();
    let parts = [
        (".ClustersConfigDump", "dynamic_active_clusters", "cluster"),
        (".EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config"),
        (".ListenersConfigDump", "dynamic_listeners", "active_state"),
        (".RoutesConfigDump", "dynamic_route_configs", "route_config"),
    ];
    for (dump_type, list, field) in parts {
        let dumps = dump["configs"].as_array_mut().expect("dumps");
        let part = dumps.iter_mut().find(|part| part["@type"].as_str().is_some_and(|kind| kind.ends_with(dump_type)));
        let resources = part.map(|part| part[list].take()).unwrap_or_default();
        let mut resources: Vec<Value> =
            resources.as_array().into_iter().flatten().map(|resource| resource[field].clone()).collect();
        resources.sort_by_key(|resource| name(resource).to_owned());
        essence.insert(list.to_owned(), resources.into());
    }
    let listeners = &mut essence["dynamic_listeners"];
    let listener = &mut listeners[0];
    let address = &mut listener["listener"]["address"]["socket_address"]["port_value"];
    assert_eq!(*address, json!(envoy.outbound.port()));
    *address = json!(15001);
    for volatile in ["version_info", "last_updated"] {
        listener.as_object_mut().expect("a listener").remove(volatile);
    }
    essence.into()
}

fn name(resource: &Value) -> &str {
    resource["name"].as_str().or(resource["cluster_name"].as_str()).unwrap_or_default()
}

fn is_golden(file: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/golden").join(file);
    let text = format!("{value:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(text.lines()).position(|(golden, now)| golden != now);
    let at = differs.unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    assert!(golden == text, "{file} differs from line {}; all of what Envoy has:\n{text}", at + 1);
}
