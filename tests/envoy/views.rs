//! What an Envoy may see, and what it wants to: exports and imports.

use std::{collections::BTreeSet, time::Duration};

use convoy_client::{Agent, Protocol};
use hyper::Method;
use serde_json::json;

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    dump::Held,
    envoy::{DELTA, Envoy, SOTW},
    http::{Connection, leads},
    load::{Load, Plan},
    machine::{self, free_address},
    wait::{PATIENCE, until},
};

/// Of a service that all of this is no concern of.
const PLAN: Plan = Plan { host: "web", connections: 4, every: Duration::from_millis(3) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_another_namespace_is_reached_while_it_is_exported() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let (ratings, web) = (Backend::start("ratings"), Backend::start("web"));
    let agent = Agent::builder(convoy.server(), "ratings").namespace("shop").address("127.0.0.1");
    let _ratings = agent.port("http", ratings.address.port(), Protocol::Http).start().await.expect("registered");
    let _web = registration(&convoy, "web", &web, Protocol::Http).start().await.expect("registered");
    for dialect in [SOTW, DELTA] {
        let envoy = Envoy::start(&convoy, dialect).await;
        let (mut theirs, mut own) = (Connection::new(envoy.outbound), Connection::new(envoy.outbound));
        leads(&mut own, "web", "web").await;
        leads(&mut theirs, "ratings.shop", "").await;
        let load = Load::start(envoy.outbound, PLAN);
        export(&convoy, &["default"]).await;
        leads(&mut theirs, "ratings.shop", "ratings").await;
        export(&convoy, &[]).await;
        leads(&mut theirs, "ratings.shop", "").await;
        until("the cluster is gone", PATIENCE, async || match envoy.hosts("ratings.shop").await {
            None => Ok(()),
            Some(hosts) => Err(format!("{hosts:?}")),
        })
        .await;
        load.reaches(load.count() + 100).await;
        load.stop().has_no_failure(&format!("to others, {dialect}"));
        envoy.has_rejected_nothing().await;
    }
}

async fn export(convoy: &Convoy, to: &[&str]) {
    let body = json!({ "export_to": { "namespaces": to } });
    convoy.call(Method::PUT, "/v1/namespaces/shop/services/ratings", &body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_is_told_of_what_it_imports() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let backend = Backend::start("all");
    for service in ["api", "cart", "web"] {
        let request = registration(&convoy, service, &backend, Protocol::Http).into_request();
        convoy.client().register(request).await.expect("registered");
    }
    for dialect in [SOTW, DELTA] {
        let arguments = [dialect, "--import", "api", "--import", "cart"];
        let envoy = Envoy::launch(&convoy, &arguments, free_address()).await;
        envoy.serves().await;
        for service in ["api", "cart"] {
            envoy.sees(service, service, |hosts| hosts.len() == 1).await;
        }
        leads(&mut Connection::new(envoy.outbound), "api", "all").await;
        leads(&mut Connection::new(envoy.outbound), "web", "").await;
        let held = Held::of(&envoy).await;
        assert_eq!(held.clusters, BTreeSet::from(["api", "cart"].map(String::from)));
        assert!(held.endpoints.keys().eq(&held.clusters), "{held:?}");
        let hosts: BTreeSet<&str> = held.routes.keys().map(String::as_str).collect();
        let expected = ["api", "api.default", "http.api.default", "cart", "cart.default", "http.cart.default"];
        assert_eq!(hosts, BTreeSet::from(expected));
        envoy.has_rejected_nothing().await;
    }
}
