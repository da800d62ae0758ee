//! The client of Convoy: the API's types and stubs, and what an agent needs to be found.

mod agent;
mod backoff;
mod builder;
mod client;
mod drain;
mod error;
pub mod json;
mod keepalive;
mod link;
mod task;
mod watch;

pub use agent::{Agent, Drained, State};
pub use builder::AgentBuilder;
pub use client::{Client, duration};
pub use error::{Error, Refusal};
pub use proto::{Capability, Load, Locality, Port, Protocol, Sla};
pub use watch::Watch;

/// The API's messages and stubs, generated from `proto/convoy/v1`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::wildcard_imports, clippy::needless_pass_by_value)]
pub mod proto {
    tonic::include_proto!("convoy.v1");

    /// The descriptors of the API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convoy.v1.bin"));
}
