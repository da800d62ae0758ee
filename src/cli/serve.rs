//! `convoy serve`: the server. What is not said here comes from the environment, then the file, then the defaults.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

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
    pub(crate) storage: Option<Storage>,
    /// Where redb keeps its file
    #[arg(long, value_name = "DIRECTORY", env = "CONVOY_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// What keeps the registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storage {
    /// One file, crash safe
    Redb,
    /// Nothing: a restart forgets all
    Memory,
    /// An etcd cluster, shared by several servers
    Etcd,
}

/// Runs the server until it is told to stop.
pub(super) async fn run(serve: Serve) -> anyhow::Result<()> {
    // STUB: the composition root is called here, with `Config::load(serve.config.as_deref(), overrides)`.
    anyhow::bail!("the server is not part of this build, which was asked for {serve:?}")
}
