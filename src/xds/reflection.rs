//! gRPC reflection of the xDS port, in both versions that tools ask for: which services there are, and what their
//! messages look like.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use super::server::service_names;
use crate::envoy_json;

const OTHERS: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Adds both versions.
pub fn add_to(routes: Routes) -> Result<Routes, Error> {
    let descriptors = envoy_json::describe(service_names());
    Ok(routes.add_service(builder(&descriptors).build_v1()?).add_service(builder(&descriptors).build_v1alpha()?))
}

fn builder(descriptors: &[u8]) -> Builder<'_> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(descriptors);
    // Only what is served is listed, whatever else is described.
    service_names().chain(OTHERS).fold(builder, Builder::with_service_name)
}
