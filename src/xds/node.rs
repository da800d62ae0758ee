//! Who an xDS client says it is, and what it may see.

use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::config::core::v3::{Node, node::UserAgentVersionType},
    google::protobuf::{Struct, value::Kind},
};

use crate::{
    model::{Invalid, Namespace, limits::quoted},
    translate::View,
};

/// Where an Envoy's outbound listener listens unless its metadata says otherwise; `none` there means without.
pub const DEFAULT_OUTBOUND: &str = "127.0.0.1:15001";
const NO_OUTBOUND: &str = "none";

/// What a client says of itself is shown and logged.
const MAX_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub cluster: String,
    pub user_agent: String,
    pub view: View,
}

/// Reads a node: its metadata's `namespace` and `outbound` are the view.
pub fn client(node: &Node) -> Result<Client, Invalid> {
    if node.id.is_empty() {
        return Err(Invalid::new("node.id", "", "it must be set"));
    }
    for (field, text) in
        [("node.id", &node.id), ("node.cluster", &node.cluster), ("node.user_agent_name", &node.user_agent_name)]
    {
        if text.len() > MAX_BYTES {
            return Err(Invalid::new(field, text, format!("at most {MAX_BYTES} bytes")));
        }
    }
    let metadata = |name: &str| node.metadata.as_ref().and_then(|metadata| text(metadata, name));
    let namespace = Namespace::parse_or_default("node.metadata.namespace", metadata("namespace").unwrap_or_default())?;
    let outbound =
        match metadata("outbound").unwrap_or(DEFAULT_OUTBOUND) {
            NO_OUTBOUND => None,
            address => Some(address.parse::<SocketAddr>().map_err(|_| {
                Invalid::new("node.metadata.outbound", address, "an IP address with a port, or \"none\"")
            })?),
        };
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => quoted(version, MAX_BYTES),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let version = build.version.as_ref();
            version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
        }
        None => String::new(),
    };
    Ok(Client {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        user_agent: [node.user_agent_name.as_str(), version.as_str()].join(" ").trim().to_owned(),
        view: View { namespace, outbound },
    })
}

fn text<'a>(metadata: &'a Struct, name: &str) -> Option<&'a str> {
    match metadata.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::google::protobuf::Value;

    fn node(metadata: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
        let fields = metadata.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        Node { id: "n".into(), metadata: Some(Struct { fields }), ..Default::default() }
    }

    #[test]
    fn metadata_is_the_view() {
        let view = |metadata| client(&node(metadata)).map(|client| client.view);
        let default = view(&[]).expect("valid");
        assert_eq!((default.namespace.as_str(), default.outbound), ("default", DEFAULT_OUTBOUND.parse().ok()));
        let other = view(&[("namespace", "shop"), ("outbound", "[::1]:80")]).expect("valid");
        assert_eq!((other.namespace.as_str(), other.outbound), ("shop", "[::1]:80".parse().ok()));
        assert_eq!(view(&[("outbound", "none")]).expect("valid").outbound, None);
        assert_eq!(view(&[("outbound", "here")]).expect_err("no address").field, "node.metadata.outbound");
        assert_eq!(view(&[("namespace", "A")]).expect_err("no label").field, "node.metadata.namespace");
    }

    #[test]
    fn rule_2_a_node_has_an_id() {
        assert_eq!(client(&Node::default()).expect_err("no id").field, "node.id");
    }
}
