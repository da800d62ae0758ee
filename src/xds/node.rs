//! Who an xDS client says it is, and what it may see.

use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::config::core::v3::{Node, node::UserAgentVersionType},
    google::protobuf::{Struct, Value, value::Kind},
};

use crate::{
    model::{Invalid, Locality, Namespace, limits::quoted},
    translate::View,
};

/// Where an Envoy's outbound listener listens unless its metadata says otherwise; `none` there means without.
pub const DEFAULT_OUTBOUND: &str = "127.0.0.1:15001";
const NO_OUTBOUND: &str = "none";

/// What a client says of itself is shown and logged.
const MAX_BYTES: usize = 1024;
const MAX_METADATA_BYTES: usize = 16 * 1024;
const MAX_METADATA_DEPTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub cluster: String,
    pub user_agent: String,
    pub locality: Locality,
    /// As the client gave it, to be shown; null if it gave none, or too much.
    pub metadata: serde_json::Value,
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
        locality: locality(node),
        metadata: shown(node.metadata.as_ref()),
        view: View { namespace, outbound },
    })
}

fn locality(node: &Node) -> Locality {
    let part = |text: &str| quoted(text, MAX_BYTES);
    let read = |locality: &envoy_types::pb::envoy::config::core::v3::Locality| Locality {
        region: part(&locality.region),
        zone: part(&locality.zone),
        sub_zone: part(&locality.sub_zone),
    };
    node.locality.as_ref().map(read).unwrap_or_default()
}

fn shown(metadata: Option<&Struct>) -> serde_json::Value {
    let fits = |metadata: &&Struct| prost::Message::encoded_len(*metadata) <= MAX_METADATA_BYTES;
    metadata.filter(fits).map_or(serde_json::Value::Null, |metadata| object(metadata, MAX_METADATA_DEPTH))
}

fn object(from: &Struct, depth: usize) -> serde_json::Value {
    from.fields.iter().map(|(name, value)| (name.clone(), json(value, depth))).collect()
}

/// What lies too deep is left out.
fn json(value: &Value, depth: usize) -> serde_json::Value {
    let Some(depth) = depth.checked_sub(1) else { return serde_json::Value::Null };
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::BoolValue(is)) => (*is).into(),
        Some(Kind::StructValue(of)) => object(of, depth),
        Some(Kind::ListValue(list)) => list.values.iter().map(|value| json(value, depth)).collect(),
    }
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
    fn what_it_says_of_itself_is_shown_within_limits() {
        let node = node(&[("namespace", "shop")]);
        let shown = |node: &Node| client(node).expect("valid").metadata;
        assert_eq!(shown(&node), serde_json::json!({"namespace": "shop"}));
        let long = "x".repeat(MAX_METADATA_BYTES);
        let value = Value { kind: Some(Kind::StringValue(long)) };
        let fields = [("a".to_owned(), value)].into_iter().collect();
        assert!(shown(&Node { metadata: Some(Struct { fields }), ..node }).is_null());
    }

    #[test]
    fn rule_2_a_node_has_an_id() {
        assert_eq!(client(&Node::default()).expect_err("no id").field, "node.id");
    }
}
