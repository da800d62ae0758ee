//! A virtual service: its host name leads to exactly the agents that its selector matches, and follows them.

use std::collections::BTreeSet;

use convoy_client::{
    Protocol,
    proto::{BarrierOutcome, DrainRequest, GetServiceRequest},
};
use prost_types::Duration;

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::{Connection, leads},
    machine::{self, free_address},
    wait::{PATIENCE, until},
};

const GOLD: &str = "instance.labels.tier == 'gold' && instance.health == 'healthy'";
const TURN: usize = 24;
const SELECTOR: &str = "instance.has_capability('ocr') && instance.labels.tier == 'gold'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capability_is_a_host_name() {
    let _turn = machine::share().await;
    for dialect in [SOTW, DELTA] {
        let convoy = Convoy::start().await;
        let (scan, photo, text) = (Backend::start("scan"), Backend::start("photo"), Backend::start("text"));
        say(&convoy, "scans", &scan, "ocr", "gold").await;
        say(&convoy, "photos", &photo, "ocr", "tin").await;
        say(&convoy, "texts", &text, "translation", "gold").await;
        convoy.run(&["service", "put", "ocr", "--port", "http:80/http", "--selector", SELECTOR]).await;
        // It knows the virtual service, and not those that its members are of.
        let envoy = Envoy::launch(&convoy, &[dialect, "--import", "ocr"], free_address()).await;
        envoy.serves().await;
        reaches(&envoy, "ocr", &["scan"]).await;
        leads(&mut Connection::new(envoy.outbound), "http.ocr.default", "scan").await;
        leads(&mut Connection::new(envoy.outbound), "scans", "").await;

        say(&convoy, "photos", &photo, "ocr", "gold").await;
        reaches(&envoy, "ocr", &["photo", "scan"]).await;
        assert_eq!(convoy.instances("ocr").await, ["photo", "scan"]);
        say(&convoy, "scans", &scan, "ocr", "tin").await;
        reaches(&envoy, "ocr", &["photo"]).await;
        // The selector is another.
        convoy.run(&["service", "put", "ocr", "--selector", GOLD]).await;
        reaches(&envoy, "ocr", &["photo", "text"]).await;
        let request = GetServiceRequest { service: "ocr".into(), ..Default::default() };
        let service = convoy.client().get_service(request).await.expect("there");
        let counts = (service.instances, service.healthy, service.left_out);
        assert_eq!((counts, &*service.selector), ((2, 2, 0), GOLD));

        // A drain, by which the instance matches no more, waits for who has the instance by the virtual service only.
        let (service, id, wait) = ("photos".into(), "photo".into(), Some(Duration { seconds: 10, nanos: 0 }));
        let drain = DrainRequest { service, id, wait, ..Default::default() };
        let barrier = convoy.client().drain(drain).await.expect("drained").barrier.expect("waited for");
        assert_eq!(
            (barrier.outcome(), barrier.proxies, barrier.acked),
            (BarrierOutcome::Complete, 1, 1),
            "{barrier:?}"
        );
        reaches(&envoy, "ocr", &["text"]).await;
        envoy.has_rejected_nothing().await;
    }
}

async fn say(convoy: &Convoy, service: &str, backend: &Backend, capability: &str, tier: &str) {
    let builder = registration(convoy, service, backend, Protocol::Http);
    let request = builder.capability(capability, "1.0").label("tier", tier).into_request();
    convoy.client().register(request).await.expect("registered");
}

/// Waits until requests to a host reach these, and nobody else.
async fn reaches(envoy: &Envoy, host: &str, wanted: &[&str]) {
    let mut connection = Connection::new(envoy.outbound);
    until(&format!("{host} leads to {wanted:?}"), PATIENCE, async || {
        let mut seen = BTreeSet::new();
        for _ in 0..TURN {
            seen.insert(connection.get(host, "/").await?.body);
        }
        if seen.iter().eq(wanted) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}
