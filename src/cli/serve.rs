//! `convoy serve`: the server. What is not said here comes from the environment, then the file, then the defaults.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, Overrides, StorageKind},
    server::Server,
    telemetry,
};

const EXAMPLES: &str = "Examples:
  convoy serve
  convoy serve --config convoy.yaml --grpc-address 0.0.0.0:7071 --xds-address 0.0.0.0:7080";

/// Run the server: registry, gRPC and HTTP API, xDS
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// A YAML file of settings
    #[arg(long, value_name = "FILE", env = "CONVOY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the HTTP API listens; 127.0.0.1:7070 when not set
    #[arg(long, value_name = "ADDRESS", env = "CONVOY_HTTP_ADDRESS")]
    pub(crate) http_address: Option<SocketAddr>,
    /// Where the gRPC API listens; 127.0.0.1:7071 when not set
    #[arg(long, value_name = "ADDRESS", env = "CONVOY_GRPC_ADDRESS")]
    pub(crate) grpc_address: Option<SocketAddr>,
    /// Where Envoy and gRPC clients are served; 127.0.0.1:7080 when not set
    #[arg(long, value_name = "ADDRESS", env = "CONVOY_XDS_ADDRESS")]
    pub(crate) xds_address: Option<SocketAddr>,
    /// What keeps the registrations; redb when not set
    #[arg(long, value_enum, env = "CONVOY_STORAGE")]
    pub(crate) storage: Option<StorageKind>,
    /// Where redb keeps its file
    #[arg(long, value_name = "DIRECTORY", env = "CONVOY_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What is logged, as in `info,convoy=debug`; info when not set
    #[arg(long, value_name = "FILTER", env = "CONVOY_LOG")]
    pub(crate) log: Option<String>,
}

/// Runs the server until it is told to stop, or a part of it fails.
pub(super) async fn run(serve: Serve) -> anyhow::Result<()> {
    let Serve { config, http_address, grpc_address, xds_address, storage, data_dir, log } = serve;
    let overrides = Overrides { http_address, grpc_address, xds_address, storage, data_dir, log };
    let config = Config::load(config.as_deref(), overrides)?;
    telemetry::start_logging(&config.log, config.log_json)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut server = tokio::select! {
        server = Server::start(config) => server?,
        // With a large store that takes a while.
        _ = terminate.recv() => return Ok(()),
    };
    tokio::select! {
        error = server.failed() => return Err(error),
        _ = terminate.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}
