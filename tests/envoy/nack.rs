//! What Envoy refuses is told, with Envoy's words, and holds nothing else up.

use std::net::SocketAddr;

use convoy_client::Protocol;
use serde_json::Value;

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    machine,
    wait::{PATIENCE, until},
};

/// For documentation (RFC 5737): no machine has it, so nobody can listen there.
const NOT_HERE: &str = "192.0.2.1:15001";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_listener_is_shown_and_holds_nothing_else_up() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let backend = Backend::start("reviews-1");
    let client = convoy.client();
    let request = registration(&convoy, "reviews", &backend, Protocol::Http).into_request();
    client.register(request).await.expect("registered");
    let not_here: SocketAddr = NOT_HERE.parse().expect("an address");
    for dialect in [SOTW, DELTA] {
        let envoy = Envoy::launch(&convoy, &[dialect], not_here).await;
        let listeners = until("the refusal is known", PATIENCE, async || {
            let proxy = convoy.proxy(&envoy.node).await.ok_or("it is not connected")?;
            let listeners = of_type(&proxy, "listeners");
            if listeners["sync"] == "rejected" { Ok(listeners) } else { Err(proxy.to_string()) }
        })
        .await;
        is_told(&listeners);
        let status = convoy.run(&["proxy", "status", &envoy.node, "--output", "json"]).await;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        is_told(&of_type(&status["proxies"][0], "listeners"));
        let table = convoy.run(&["proxy", "status", &envoy.node]).await;
        assert!(table.contains("REJECTED") && table.contains("annot bind"), "{table}");

        // Nothing else is held up, neither what there was nor what comes now.
        envoy.sees("reviews", "what there was", |hosts| hosts.len() == 1).await;
        let (service, come) = (format!("come{dialect}"), Backend::start("come"));
        let request = registration(&convoy, &service, &come, Protocol::Http).into_request();
        client.register(request).await.expect("registered");
        envoy.sees(&service, "what comes", |hosts| hosts.len() == 1).await;
        let proxy = convoy.proxy(&envoy.node).await.expect("connected");
        for kind in ["clusters", "endpoints"] {
            assert_eq!(of_type(&proxy, kind)["nacks"].as_u64().unwrap_or_default(), 0, "{proxy}");
        }
        let again = of_type(&proxy, "listeners")["nacks"].as_u64();
        assert_eq!(again, Some(1), "what was refused is not sent again and again: {proxy}");
    }
}

pub fn of_type(proxy: &Value, kind: &str) -> Value {
    let types = proxy["types"].as_array().cloned().unwrap_or_default();
    types.into_iter().find(|of| of["type"] == kind).unwrap_or_default()
}

/// Envoy's words, the resource at fault, and that nothing of the type was accepted since.
fn is_told(listeners: &Value) {
    assert_eq!(listeners["sync"], "rejected", "{listeners}");
    let nack = &listeners["last_nack"];
    assert!(nack["message"].as_str().is_some_and(|message| message.contains(NOT_HERE)), "{listeners}");
    assert_eq!(nack["resources"], serde_json::json!(["convoy/outbound"]), "{listeners}");
}
