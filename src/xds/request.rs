//! What clients send, as it is read from the wire: names are slices of the message and not strings of their own, since
//! a client that comes back names everything that it holds.

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    google::rpc::Status,
};

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateOfTheWorld {
    #[prost(string, tag = "1")]
    pub version_info: String,
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub resource_names: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Incremental {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(string, tag = "2")]
    pub type_url: String,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub resource_names_subscribe: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<Bytes>,
    #[prost(message, repeated, tag = "5")]
    pub initial_resource_versions: Vec<InitialVersion>,
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// One entry of `initial_resource_versions`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InitialVersion {
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
}

/// The text of a name; none if it is not UTF-8, which protobuf forbids.
pub fn text(name: &Bytes) -> Option<&str> {
    std::str::from_utf8(name).ok()
}

fn slices(names: Vec<String>) -> Vec<Bytes> {
    names.into_iter().map(Bytes::from).collect()
}

impl From<DiscoveryRequest> for StateOfTheWorld {
    fn from(request: DiscoveryRequest) -> Self {
        Self {
            version_info: request.version_info,
            node: request.node,
            resource_names: slices(request.resource_names),
            type_url: request.type_url,
            response_nonce: request.response_nonce,
            error_detail: request.error_detail,
        }
    }
}

impl From<DeltaDiscoveryRequest> for Incremental {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        let versions = request.initial_resource_versions.into_iter();
        let version = |(name, version): (String, String)| InitialVersion { name: name.into(), version: version.into() };
        Self {
            node: request.node,
            type_url: request.type_url,
            resource_names_subscribe: slices(request.resource_names_subscribe),
            resource_names_unsubscribe: slices(request.resource_names_unsubscribe),
            initial_resource_versions: versions.map(version).collect(),
            response_nonce: request.response_nonce,
            error_detail: request.error_detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_wire_is_that_of_the_real_messages() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let node = || Some(Node { id: "n".into(), ..Default::default() });
        let error = || Some(Status { code: 3, message: "no".into(), ..Default::default() });
        let real = DiscoveryRequest {
            version_info: "v".into(),
            node: node(),
            resource_names: names(),
            type_url: "t".into(),
            response_nonce: "1".into(),
            error_detail: error(),
            ..Default::default()
        };
        assert_eq!(StateOfTheWorld::decode(&*real.encode_to_vec()).expect("valid"), real.into());
        let real = DeltaDiscoveryRequest {
            node: node(),
            type_url: "t".into(),
            resource_names_subscribe: names(),
            resource_names_unsubscribe: names(),
            initial_resource_versions: [("a".to_owned(), "1".to_owned())].into(),
            response_nonce: "1".into(),
            error_detail: error(),
            ..Default::default()
        };
        assert_eq!(Incremental::decode(&*real.encode_to_vec()).expect("valid"), real.into());
    }
}
