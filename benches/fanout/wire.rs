//! As much of protobuf as is needed to acknowledge a response, and to find a change in it.

use envoy_types::pb::envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest};
use prost::{
    Message,
    encoding::{WireType, decode_varint, encode_key, encode_varint},
};

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const DELTA_ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

// The fields of `DeltaDiscoveryResponse`, and of its `Resource`.
pub const VERSION: u32 = 1;
pub const RESOURCES: u32 = 2;
pub const TYPE_URL: u32 = 4;
pub const NONCE: u32 = 5;
pub const RESOURCE_VERSION: u32 = 1;
pub const RESOURCE_NAME: u32 = 3;
// Those of `DeltaDiscoveryRequest`.
const REQUEST_TYPE_URL: u32 = 2;
pub const REQUEST_NONCE: u32 = 6;

/// Appends one length-delimited field.
pub fn put(field: u32, value: &[u8], into: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(value.len() as u64, into);
    into.extend_from_slice(value);
}

/// The length-delimited fields of a message: number, value, and the whole element.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let element = bytes;
            let key = decode_varint(&mut bytes).ok()?;
            let length = decode_varint(&mut bytes).ok()?;
            match key & 7 {
                0 => continue,
                2 => {}
                _ => return None,
            }
            let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            bytes = rest;
            return Some(((key >> 3) as u32, value, &element[..element.len() - rest.len()]));
        }
    })
}

/// The first value of a field.
pub fn field(bytes: &[u8], number: u32) -> Option<&[u8]> {
    fields(bytes).find(|(field, ..)| *field == number).map(|(_, value, _)| value)
}

/// A message with gRPC's prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// The first request of a type.
pub fn request(type_url: &str, names: &[String], versions: &[(String, String)]) -> Vec<u8> {
    let node = Node { id: "fanout".into(), cluster: "bench".into(), ..Node::default() };
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: type_url.into(),
        resource_names_subscribe: names.to_vec(),
        initial_resource_versions: versions.iter().cloned().collect(),
        ..DeltaDiscoveryRequest::default()
    };
    framed(&request.encode_to_vec())
}

pub fn acknowledge(type_url: &[u8], nonce: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    put(REQUEST_TYPE_URL, type_url, &mut message);
    put(REQUEST_NONCE, nonce, &mut message);
    framed(&message)
}
