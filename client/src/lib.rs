//! The client of Convoy: the API's types and stubs, and what an agent needs to be found.

pub mod json;

/// The API's messages and stubs, generated from `proto/convoy/v1`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::wildcard_imports, clippy::needless_pass_by_value)]
pub mod proto {
    tonic::include_proto!("convoy.v1");

    /// The descriptors of the API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convoy.v1.bin"));
}
