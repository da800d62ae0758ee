//! What an Envoy may see, and what it wants to: exports and imports.

use std::collections::BTreeSet;

use convoy_client::{Agent, Protocol};

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::{Connection, leads},
    machine::{self, free_address},
    wait::{PATIENCE, until},
};

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
        convoy.run(&["--namespace", "shop", "service", "put", "ratings", "--export-to", "default"]).await;
        leads(&mut theirs, "ratings.shop", "ratings").await;
        convoy.run(&["--namespace", "shop", "service", "put", "ratings", "--export-to", ""]).await;
        leads(&mut theirs, "ratings.shop", "").await;
        until("the cluster is gone", PATIENCE, async || match envoy.hosts("ratings.shop").await {
            None => Ok(()),
            Some(hosts) => Err(format!("{hosts:?}")),
        })
        .await;
        leads(&mut own, "web", "web").await;
        envoy.has_rejected_nothing().await;
    }
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
        let dump = envoy.admin("/config_dump").await.json();
        let configs = dump["configs"].as_array().cloned().unwrap_or_default();
        let dynamic = configs.iter().filter_map(|config| config["dynamic_active_clusters"].as_array()).flatten();
        let names: BTreeSet<&str> = dynamic.filter_map(|active| active["cluster"]["name"].as_str()).collect();
        assert_eq!(names, BTreeSet::from(["api", "cart"]));
        envoy.has_rejected_nothing().await;
    }
}
