//! Resources that somebody wrote, as a real Envoy takes them.

use crate::{
    agents::{Backend, registration},
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::Connection,
    machine::{self, free_address},
    wait::{PATIENCE, until},
};
use convoy_client::Protocol;

/// A gateway's listener with its routes inside, and the cluster that it leads to, which is no service.
fn gateway(listener: std::net::SocketAddr, backend: std::net::SocketAddr, selector: &str) -> String {
    format!(
        "type: clusters
resource:
  name: legacy
  type: STATIC
  connect_timeout: 1s
  load_assignment:
    cluster_name: legacy
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}
---
type: listeners
selector: {selector:?}
resource:
  name: gateway
  address: {{socket_address: {{address: {}, port_value: {}}}}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: gateway
        route_config:
          name: inline
          virtual_hosts:
          - {{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: legacy}}}}]}}
        http_filters:
        - name: router
          typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
",
        backend.ip(),
        backend.port(),
        listener.ip(),
        listener.port()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_written_changed_and_deleted() {
    let _turn = machine::share().await;
    for dialect in [SOTW, DELTA] {
        let convoy = Convoy::start().await;
        let (one, two, web) = (Backend::start("one"), Backend::start("two"), Backend::start("web"));
        let _web = registration(&convoy, "web", &web, Protocol::Http).start().await.expect("registered");
        let (edge, other) = (Envoy::start(&convoy, dialect).await, Envoy::start(&convoy, dialect).await);
        let (listener, selector) = (free_address(), format!("node.id == '{}'", edge.node));
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("gateway.yaml");
        let put = async |backend| {
            std::fs::write(&file, gateway(listener, backend, &selector)).expect("written");
            convoy.run(&["resource", "put", "-f", file.to_str().expect("text")]).await;
        };
        let leads = async |what: &str, expected: Result<&str, ()>| {
            until(what, PATIENCE, async || {
                let answer = Connection::new(listener).get("anything", "/").await;
                match (&answer, expected) {
                    (Ok(answer), Ok(body)) if answer.body == body => Ok(()),
                    (Err(_), Err(())) => Ok(()),
                    _ => Err(format!("{answer:?}")),
                }
            })
            .await;
        };
        put(one.address).await;
        leads("the gateway is there", Ok("one")).await;
        put(two.address).await;
        leads("the cluster has changed", Ok("two")).await;
        let listeners = other.admin("/listeners").await.body;
        assert!(!listeners.contains("gateway"), "it is not meant for this one: {listeners}");
        // What is generated goes on beside it, and comes back when what stood in its place is gone.
        edge.sees("web", "what is generated", |hosts| hosts.len() == 1).await;
        convoy.run(&["resource", "delete", "listeners", "gateway"]).await;
        leads("the gateway is gone", Err(())).await;
        convoy.run(&["resource", "delete", "clusters", "legacy"]).await;
        until("the cluster is gone", PATIENCE, async || match edge.hosts("legacy").await {
            None => Ok(()),
            Some(hosts) => Err(format!("{hosts:?}")),
        })
        .await;
        for envoy in [&edge, &other] {
            envoy.has_rejected_nothing().await;
        }
    }
}
