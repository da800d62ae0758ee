//! The client of Convoy: the API's types and stubs, and what an agent needs to be found.
//!
//! An [`Agent`] registers one instance of a service and keeps it registered: it heartbeats when the server wants it to,
//! registers again when told to, and tries for ever while the server is away. A [`Client`] makes single calls, and
//! watches.
//!
//! ```
//! use std::time::Duration;
//!
//! use convoy_client::{Agent, Load, Protocol};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(example())
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
//! # let server = convoy::server::Server::start(convoy::config::Config {
//! #     http_address: any_port,
//! #     grpc_address: any_port,
//! #     xds_address: any_port,
//! #     storage: convoy::config::StorageKind::Memory,
//! #     ..Default::default()
//! # })
//! # .await?;
//! # let address = format!("http://{}", server.grpc_address());
//! // `address` is that of Convoy's gRPC API, such as "http://127.0.0.1:7071".
//! let agent = Agent::builder(address, "reviews")
//!     .address("10.0.0.7")
//!     .port("http", 8080, Protocol::Http)
//!     .label("language", "python")
//!     .capability("image-classification", "2.1")
//!     .ready(false)
//!     .ttl(Duration::from_secs(30))
//!     .start()
//!     .await?; // Registered, and kept so from here on.
//!
//! agent.set_ready(true).await?; // The model is loaded: let requests come.
//! agent.report(Load { cpu: Some(0.4), in_flight: Some(3.0), ..Default::default() });
//!
//! // On a stop signal: take no new requests, finish those under way, go.
//! agent.drain_for(Duration::from_secs(1)).await?;
//! agent.deregister().await?;
//! # server.stop().await;
//! # Ok(())
//! # }
//! ```

mod agent;
mod backoff;
mod builder;
mod client;
mod drain;
mod error;
pub mod json;
mod keepalive;
mod link;
mod servers;
mod task;
#[cfg(all(test, feature = "server"))]
mod tests;
mod watch;

pub use agent::{Agent, Drained, State};
pub use builder::AgentBuilder;
pub use client::{Backup, Client, duration};
pub use error::{Error, Refusal};
pub use proto::{Capability, Load, Locality, Port, Protocol, Sla};
pub use watch::Watch;

/// The API's messages and stubs, generated from `proto/convoy/v1`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::wildcard_imports)]
pub mod proto {
    tonic::include_proto!("convoy.v1");

    /// The descriptors of the API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convoy.v1.bin"));
}
