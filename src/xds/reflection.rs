//! gRPC reflection of the xDS port, in both versions that tools ask for: which services there are, and what their
//! messages look like as far as descriptors are at hand.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use super::server::service_names;

const OTHERS: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Adds both versions.
pub fn add_to(routes: Routes) -> Result<Routes, Error> {
    let descriptors = xds_descriptors();
    Ok(routes
        .add_service(builder(descriptors.as_deref()).build_v1()?)
        .add_service(builder(descriptors.as_deref()).build_v1alpha()?))
}

fn builder(descriptors: Option<&[u8]>) -> Builder<'_> {
    let mut builder = Builder::configure().register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    if let Some(descriptors) = descriptors {
        builder = builder.register_encoded_file_descriptor_set(descriptors);
    }
    // Only what is served is listed, whatever else is described.
    service_names().chain(OTHERS).fold(builder, Builder::with_service_name)
}

/// An encoded `FileDescriptorSet` of the xDS services with all that they depend on. None is at hand: Envoy's types come
/// without. Until there is one, services are listed and cannot be described.
fn xds_descriptors() -> Option<Vec<u8>> {
    None
}
