//! Resources that somebody wrote, over the HTTP API: beside what is generated, in its place, and for some Envoys only.

use convoy_client::Protocol;
use serde_json::{Value, json};

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::{Connection, leads},
    load::{Load, Plan},
    machine::{self, free_address},
    nack::of_type,
    wait::{PATIENCE, until},
    written,
};

/// `node.metadata.role == "edge"`, as a query has it.
const AT_THE_EDGE: &str = "node.metadata.role%20%3D%3D%20%22edge%22";
/// Of a cluster that says EDS and not from where.
const ENVOY_SAYS: &str = "EDS cluster without an EDS config";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_and_its_cluster_are_put_changed_and_deleted_by_http() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    for dialect in [SOTW, DELTA] {
        let envoy = Envoy::start(&convoy, dialect).await;
        let (first, second) = (free_address(), free_address());
        let gateway = |at| written::listener("gateway", at, &[], &json!({ "cluster": "legacy" }));
        convoy.put_resource("clusters/legacy", &written::cluster("legacy", one.address)).await;
        convoy.put_resource("listeners/gateway", &gateway(first)).await;
        answers(first, Some("one")).await;
        convoy.put_resource("clusters/legacy", &written::cluster("legacy", two.address)).await;
        answers(first, Some("two")).await;
        convoy.put_resource("listeners/gateway", &gateway(second)).await;
        answers(second, Some("two")).await;
        answers(first, None).await;
        convoy.delete_resource("listeners/gateway").await;
        answers(second, None).await;
        convoy.delete_resource("clusters/legacy").await;
        is_gone(&envoy, "legacy").await;
        assert_eq!(rejected(&envoy).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_the_place_of_a_generated_one_comes_and_goes_without_a_failed_request() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let (generated, own) = (Backend::start("generated"), Backend::start("own"));
    let _web = registration(&convoy, "web", &generated, Protocol::Http).start().await.expect("registered");
    for dialect in [SOTW, DELTA] {
        let envoy = Envoy::start(&convoy, dialect).await;
        let mut asks = Connection::new(envoy.outbound);
        leads(&mut asks, "web", "generated").await;
        let every = std::time::Duration::from_millis(3);
        let load = Load::start(envoy.outbound, Plan { host: "web", connections: 4, every });
        for _ in 0..3 {
            convoy.put_resource("clusters/web", &written::cluster("web", own.address)).await;
            leads(&mut asks, "web", "own").await;
            load.reaches(load.count() + 100).await;
            convoy.delete_resource("clusters/web").await;
            leads(&mut asks, "web", "generated").await;
            load.reaches(load.count() + 100).await;
        }
        load.stop().has_no_failure(dialect);
        envoy.has_rejected_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_for_the_edge_reach_no_other_envoy() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let web = Backend::start("web");
    let _web = registration(&convoy, "web", &web, Protocol::Http).start().await.expect("registered");
    let put = format!("routes/convoy/outbound?variant=edge&selector={AT_THE_EDGE}");
    for dialect in [SOTW, DELTA] {
        let edge = Envoy::start_with_metadata(&convoy, dialect, "role", "edge").await;
        let inner = Envoy::start_with_metadata(&convoy, dialect, "role", "inner").await;
        let (mut at_edge, mut within) = (Connection::new(edge.outbound), Connection::new(inner.outbound));
        for asks in [&mut at_edge, &mut within] {
            leads(asks, "web", "web").await;
        }
        let routes = json!({ "virtual_hosts": [written::host("only", &["only.edge"], &json!({ "cluster": "web" }))] });
        convoy.put_resource(&put, &routes).await;
        leads(&mut at_edge, "only.edge", "web").await;
        leads(&mut at_edge, "web", "").await;
        settles(&convoy, &inner).await;
        for (host, answer) in [("only.edge", ""), ("web", "web")] {
            assert_eq!(within.get(host, "/").await.expect("an answer").body, answer, "{host} within");
        }
        convoy.delete_resource("routes/convoy/outbound?variant=edge").await;
        leads(&mut at_edge, "web", "web").await;
        leads(&mut at_edge, "only.edge", "").await;
        for envoy in [&edge, &inner] {
            envoy.has_rejected_nothing().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_convoy_takes_and_envoy_refuses_is_shown_and_holds_nothing_else_up() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    let _first = registration(&convoy, "first", &first, Protocol::Http).start().await.expect("registered");
    let envoys = [Envoy::start(&convoy, SOTW).await, Envoy::start(&convoy, DELTA).await];
    // It is well formed, and lacks what its type needs.
    convoy.put_resource("clusters/broken", &json!({ "type": "EDS" })).await;
    for envoy in &envoys {
        let nack = refusal(&convoy, envoy).await;
        assert!(nack["message"].as_str().is_some_and(|text| text.contains(ENVOY_SAYS)), "{nack}");
        assert_eq!(nack["resources"], json!(["broken"]), "{nack}");
        let table = convoy.run(&["proxy", "status", &envoy.node]).await;
        assert!(table.contains("REJECTED") && table.contains(ENVOY_SAYS), "{table}");
    }
    let _second = registration(&convoy, "second", &second, Protocol::Http).start().await.expect("registered");
    for envoy in &envoys {
        let mut asks = Connection::new(envoy.outbound);
        leads(&mut asks, "second", "second").await;
        leads(&mut asks, "first", "first").await;
        assert_eq!(envoy.hosts("broken").await, None);
    }
    // Mended, it is taken; and Envoy has no complaint left.
    convoy.put_resource("clusters/broken", &written::cluster("broken", first.address)).await;
    for envoy in &envoys {
        envoy.sees("broken", "the mended one", |hosts| hosts.len() == 1).await;
        settles(&convoy, envoy).await;
    }
}

/// Waits until a new connection to an address is answered, or refused.
async fn answers(address: std::net::SocketAddr, expected: Option<&str>) {
    until(&format!("{expected:?} at {address}"), PATIENCE, async || {
        let answer = Connection::new(address).get("anything", "/").await;
        let body = answer.as_ref().ok().map(|answer| answer.body.as_str());
        if body == expected { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

async fn is_gone(envoy: &Envoy, cluster: &str) {
    until(&format!("{cluster} is gone"), PATIENCE, async || match envoy.hosts(cluster).await {
        None => Ok(()),
        Some(hosts) => Err(format!("{hosts:?}")),
    })
    .await;
}

async fn rejected(envoy: &Envoy) -> Vec<(String, u64)> {
    envoy.stats("update_rejected").await.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Waits until Convoy knows that an Envoy has accepted everything.
async fn settles(convoy: &Convoy, envoy: &Envoy) {
    until("everything is accepted", PATIENCE, async || {
        let proxy = convoy.proxy(&envoy.node).await.ok_or("it is not connected")?;
        if proxy["sync"] == "synced" { Ok(()) } else { Err(proxy.to_string()) }
    })
    .await;
}

/// Waits until an Envoy has refused clusters: what it said.
async fn refusal(convoy: &Convoy, envoy: &Envoy) -> Value {
    until("the refusal is known", PATIENCE, async || {
        let proxy = convoy.proxy(&envoy.node).await.ok_or("it is not connected")?;
        let clusters = of_type(&proxy, "clusters");
        if clusters["sync"] == "rejected" { Ok(clusters["last_nack"].clone()) } else { Err(proxy.to_string()) }
    })
    .await
}
