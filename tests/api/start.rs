//! Until the store is read nobody is told anything that could be taken for an empty mesh.

use std::{net::SocketAddr, time::Duration};

use convoy::{
    config::{Config, StorageKind},
    server::{Beginning, Server},
    storage::memory::MemoryStore,
};
use tokio::{net::TcpStream, sync::oneshot};

use crate::support::{api::Api, http::Http, sample::instances, server::Addresses};

fn config([http, grpc, xds]: [SocketAddr; 3]) -> Config {
    Config {
        http_address: http,
        grpc_address: grpc,
        xds_address: xds,
        storage: StorageKind::Memory,
        settle: Duration::ZERO,
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_read_nothing_is_told_and_then_everything() {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let beginning = Beginning::new(config([any_port; 3])).expect("it begins");
    let [grpc, xds] = [beginning.grpc_address(), beginning.xds_address()].map(|address| address.expect("an address"));
    let http = Http(beginning.http_address());
    let (read, reading) = oneshot::channel();
    let store = async move {
        reading.await?;
        let (store, opened) = MemoryStore::open("id".into());
        Ok((std::sync::Arc::new(store) as _, opened))
    };
    let starting = tokio::spawn(beginning.start(store));

    for path in ["/v1/services", "/v1/namespaces/default/services/web/instances", "/v1/watch", "/v1/nothing"] {
        let answer = http.get(path).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], "unavailable", "{path}: {answer:?}");
        assert!(answer.text.contains("the store is being read"), "{path}: {answer:?}");
    }
    assert_eq!([http.get("/readyz").await.status, http.get("/livez").await.status], [503, 200]);
    for port in [grpc, xds] {
        TcpStream::connect(port).await.expect_err("who asks here tries elsewhere");
    }

    read.send(()).expect("it waits");
    let server: Server = starting.await.expect("it ends").expect("it starts");
    assert_eq!([server.http_address(), server.grpc_address()], [http.0, grpc]);
    assert_eq!(http.get("/readyz").await.status, 200);
    let api = Api::new(Addresses { http: http.0, grpc, xds: server.xds_address() });
    api.register(instances("web", 1..2)).await.expect("registered");
    let listed = http.get("/v1/services").await.ok();
    assert_eq!(listed["services"].as_array().map(Vec::len), Some(1));
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_read_ends_the_start() {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let beginning = Beginning::new(config([any_port; 3])).expect("it begins");
    let http = beginning.http_address();
    let failed = beginning.start(async { anyhow::bail!("no store") }).await.expect_err("it fails");
    assert_eq!(failed.to_string(), "no store");
    crate::support::until("the port is closed", async || TcpStream::connect(http).await.err()).await;
}
