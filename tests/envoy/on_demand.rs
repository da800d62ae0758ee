//! An Envoy that is told of little, and asks for a cluster when the first request for it comes.
//!
//! In the incremental dialect only: Envoy has on-demand clusters over ADS in no other.

use std::time::Duration;

use convoy_client::Protocol;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    agents::{Backend, Member, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy},
    http::{Connection, leads},
    machine::{self, free_address},
    written,
};

/// How long Envoy waits for a cluster before it gives up.
const GIVES_UP: Duration = Duration::from_secs(5);
/// That there is none is told at once; the rest is a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_asked_for_by_the_first_request_and_followed_from_then_on() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let (api, hidden) = (Backend::start("api"), Backend::start("hidden"));
    let _api = registration(&convoy, "api", &api, Protocol::Http).start().await.expect("registered");
    let _hidden = registration(&convoy, "hidden", &hidden, Protocol::Http).start().await.expect("registered");
    let gateway = free_address();
    let filter = json!({
        "name": "envoy.filters.http.on_demand",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
            "odcds": {
                "source": { "ads": {}, "resource_api_version": "V3" },
                "timeout": format!("{}s", GIVES_UP.as_secs()),
            },
        },
    });
    // The host name is the cluster's.
    let listener = written::listener("gateway", gateway, &[filter], &json!({ "cluster_header": ":authority" }));
    convoy.put_resource("listeners/gateway", &listener).await;

    let envoy = Envoy::launch(&convoy, &[DELTA, "--import", "api"], free_address()).await;
    envoy.serves().await;
    let mut asks = Connection::new(gateway);
    leads(&mut asks, "api", "api").await;
    assert_eq!(envoy.hosts("hidden").await, None, "it imports only one");

    // The first request waits for the cluster, and is answered.
    let first = ask(&mut asks, "hidden").await;
    assert_eq!((first.0, first.1.as_str()), (200, "hidden"), "within {:?}", first.2);
    println!("a cluster on demand: the first request took {:?}", first.2);

    // There is nothing of these names; Envoy is told so, and need not wait until it gives up. Of a name that it has asked
    // for before it sends nothing more, and so waits for all of that time: only what comes later can end it.
    for unknown in ["unknown", "nowhere"] {
        let none = ask(&mut asks, unknown).await;
        println!("an unknown cluster on demand: {unknown} was refused after {:?}", none.2);
        assert!(none.0 == 503 && none.2 < AT_ONCE, "{unknown}: {none:?}");
    }

    // What was asked for is followed, as what is imported is.
    let _more = Member::join(&convoy, "hidden", "more", Protocol::Http, TTL).await;
    envoy.sees("hidden", "another instance", |hosts| hosts.len() == 2).await;
    let _late = Member::join(&convoy, "unknown", "late", Protocol::Http, TTL).await;
    envoy.sees("unknown", "what was unknown", |hosts| hosts.len() == 1).await;
    let late = ask(&mut asks, "unknown").await;
    assert_eq!((late.0, late.1.as_str()), (200, "late"), "within {:?}", late.2);
    assert_eq!(ask(&mut asks, "api").await.1, "api");
    envoy.has_rejected_nothing().await;
}

/// The status, the body, and how long it took.
async fn ask(connection: &mut Connection, host: &str) -> (u16, String, Duration) {
    let begun = Instant::now();
    let answer = connection.get(host, "/").await.expect("an answer");
    (answer.status.as_u16(), answer.body, begun.elapsed())
}
