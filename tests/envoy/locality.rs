//! A service that asks for it is reached where the Envoy is; when its instances there fail, in the region, then elsewhere.

use std::collections::BTreeSet;

use convoy_client::{
    Protocol,
    proto::{DeregisterRequest, Failover, OverrideHealth, PutServiceRequest, ServicePort, SetOverrideRequest},
};

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::Connection,
    machine::{self, free_address},
    wait::{PATIENCE, until},
};

/// In so many requests all are met who are asked at all.
const TURN: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_near_and_go_away_when_nobody_near_is_well() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let backends = ["own", "region", "away"].map(Backend::start);
    for dialect in [DELTA, SOTW] {
        set_failover(&convoy, true).await;
        let [own, region, away] = &backends;
        join(&convoy, own, "eu", "eu-a").await;
        join(&convoy, region, "eu", "eu-b").await;
        join(&convoy, away, "us", "us-a").await;
        let near = at(&convoy, dialect, &["--region", "eu", "--zone", "eu-a"]).await;
        let beside = at(&convoy, dialect, &["--region", "eu", "--zone", "eu-c"]).await;
        let far = at(&convoy, dialect, &["--region", "us", "--zone", "us-a"]).await;
        let nowhere = at(&convoy, dialect, &[]).await;
        reaches(&near, &["own"]).await;
        reaches(&beside, &["own", "region"]).await;
        reaches(&far, &["away"]).await;
        reaches(&nowhere, &["away", "own", "region"]).await;

        say(&convoy, "own", OverrideHealth::Degraded).await;
        reaches(&near, &["region"]).await;
        say(&convoy, "own", OverrideHealth::Unspecified).await;
        reaches(&near, &["own"]).await;

        leave(&convoy, "own").await;
        reaches(&near, &["region"]).await;
        say(&convoy, "region", OverrideHealth::Unhealthy).await;
        reaches(&near, &["away"]).await;
        say(&convoy, "region", OverrideHealth::Unspecified).await;
        reaches(&near, &["region"]).await;
        join(&convoy, own, "eu", "eu-a").await;
        reaches(&near, &["own"]).await;

        // It no longer asks, and asks again, while they are connected.
        set_failover(&convoy, false).await;
        reaches(&near, &["away", "own", "region"]).await;
        set_failover(&convoy, true).await;
        reaches(&near, &["own"]).await;
        reaches(&far, &["away"]).await;
        for envoy in [near, beside, far, nowhere] {
            envoy.has_rejected_nothing().await;
        }
    }
}

async fn at(convoy: &Convoy, dialect: &str, place: &[&str]) -> Envoy {
    let envoy = Envoy::launch(convoy, &[&[dialect], place].concat(), free_address()).await;
    envoy.serves().await;
    envoy
}

async fn set_failover(convoy: &Convoy, by_locality: bool) {
    let request = PutServiceRequest {
        service: "web".into(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Http.into(), port: 80 }],
        failover: Some(Failover { by_locality, overprovisioning_factor: 140 }),
        ..Default::default()
    };
    convoy.client().put_service(request).await.expect("put");
}

async fn join(convoy: &Convoy, backend: &Backend, region: &str, zone: &str) {
    let request = registration(convoy, "web", backend, Protocol::Http).locality(region, zone, "").into_request();
    convoy.client().register(request).await.expect("registered");
}

async fn leave(convoy: &Convoy, id: &str) {
    let request = DeregisterRequest { service: "web".into(), id: id.into(), ..Default::default() };
    convoy.client().deregister(request).await.expect("deregistered");
}

async fn say(convoy: &Convoy, id: &str, health: OverrideHealth) {
    let (service, id, health) = ("web".into(), id.into(), health.into());
    let request = SetOverrideRequest { service, id, health, ..Default::default() };
    convoy.client().set_override(request).await.expect("said");
}

/// Waits until requests reach these, and nobody else.
async fn reaches(envoy: &Envoy, wanted: &[&str]) {
    let mut connection = Connection::new(envoy.outbound);
    until(&format!("{} reaches {wanted:?}", envoy.node), PATIENCE, async || {
        let mut seen = BTreeSet::new();
        for _ in 0..TURN {
            seen.insert(connection.get("web", "/").await?.body);
        }
        if seen.iter().eq(wanted) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}
