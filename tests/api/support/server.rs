//! A Convoy in this process, in memory, on ports of its own.

use std::{net::SocketAddr, time::Duration};

use convoy::{
    config::{Config, StorageKind},
    registry::brake::BrakeConfig,
    server::Server,
};

use super::{
    ads::{Dialect, Stream},
    api::Api,
};

/// Where a Convoy listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub xds: SocketAddr,
}

/// Dropping it ends it.
pub struct Convoy {
    pub addresses: Addresses,
    pub api: Api,
    server: Server,
}

impl Convoy {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// As `start`, with a change to the configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            http_address: any_port,
            grpc_address: any_port,
            xds_address: any_port,
            storage: StorageKind::Memory,
            settle: Duration::ZERO,
            // Most tests have a single instance, and would see it kept.
            brake: BrakeConfig { enabled: false, ..BrakeConfig::default() },
            ..Config::default()
        };
        change(&mut config);
        let server = Server::start(config).await.expect("Convoy starts");
        let addresses =
            Addresses { http: server.http_address(), grpc: server.grpc_address(), xds: server.xds_address() };
        Self { addresses, api: Api::new(addresses), server }
    }

    /// An aggregated xDS stream.
    pub async fn ads<D: Dialect>(&self) -> Stream<D> {
        Stream::open(self.addresses.xds, D::AGGREGATED).await
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}
