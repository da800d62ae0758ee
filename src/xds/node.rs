//! Who an xDS client says it is, and what it may see.

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::{
    envoy::config::core::v3::{Node, node::UserAgentVersionType},
    google::protobuf::{Struct, Value, value::Kind},
};
use serde_json::json;

use super::protocol::Features;
use crate::{
    model::{self, Invalid, Locality, Namespace, limits::quoted},
    translate::{Imports, View},
};

/// Where an Envoy's outbound listener listens unless its metadata says otherwise; `none` there means without.
pub const DEFAULT_OUTBOUND: &str = "127.0.0.1:15001";
/// As gRPC's own clients begin to say who they are: `gRPC Go`, `gRPC C++`, `grpc-java`.
const GRPC: [&str; 2] = ["gRPC", "grpc-"];
const NO_OUTBOUND: &str = "none";

/// What a client says of itself is shown and logged.
const MAX_BYTES: usize = 1024;
/// Its metadata is kept for selectors.
const MAX_METADATA_BYTES: usize = 64 * 1024;
const MAX_DEPTH: usize = 16;

/// Of Envoy's list of client features.
const RESOURCE_TTL: &str = "xds.config.supports-resource-ttl";
/// For xRFC TP3, which names none.
const RESOURCE_ERRORS: &str = "xds.config.supports-resource-errors";

#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    pub id: String,
    pub cluster: String,
    pub user_agent: String,
    pub view: View,
    pub features: Features,
    /// What selectors look at.
    pub node: Arc<model::Node>,
}

/// Reads a node: its metadata's `namespace`, `outbound` and `imports` are the view.
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
    let imports = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("imports"));
    let imports = imports.map(|imports| self::imports(imports, &namespace)).transpose()?.map(Arc::new);
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => quoted(version, MAX_BYTES),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let version = build.version.as_ref();
            version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
        }
        None => String::new(),
    };
    let user_agent = [node.user_agent_name.as_str(), version.as_str()].join(" ").trim().to_owned();
    let locality = node.locality.clone().unwrap_or_default();
    let has = |feature: &str| node.client_features.iter().any(|has| has == feature);
    let facts = model::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        namespace: namespace.clone(),
        user_agent: user_agent.clone(),
        locality: Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone },
        metadata: self::metadata(node)?,
    };
    Ok(Client {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        user_agent,
        view: View {
            namespace,
            outbound,
            imports,
            grpc: GRPC.iter().any(|name| node.user_agent_name.starts_with(name)),
        },
        features: Features { resource_ttl: has(RESOURCE_TTL), resource_errors: has(RESOURCE_ERRORS) },
        node: Arc::new(facts),
    })
}

/// A list of names, or one text with commas between them.
fn imports(value: &Value, namespace: &Namespace) -> Result<Imports, Invalid> {
    const FIELD: &str = "node.metadata.imports";
    let names: Option<Vec<&str>> = match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()),
        Some(Kind::ListValue(list)) => list.values.iter().map(as_text).collect(),
        _ => None,
    };
    let rule = "a list of service names, or one text with commas between them";
    let names = names.ok_or_else(|| Invalid::new(FIELD, to_json(value, MAX_DEPTH), rule))?;
    Imports::parse(FIELD, names, namespace)
}

fn metadata(node: &Node) -> Result<serde_json::Value, Invalid> {
    let Some(metadata) = &node.metadata else { return Ok(json!({})) };
    let value = Value { kind: Some(Kind::StructValue(metadata.clone())) };
    let json = to_json(&value, MAX_DEPTH);
    let bytes = json.to_string().len();
    if bytes > MAX_METADATA_BYTES {
        return Err(Invalid::new("node.metadata", bytes, format!("at most {MAX_METADATA_BYTES} bytes as JSON")));
    }
    Ok(json)
}

/// What lies deeper than `depth` is left out.
fn to_json(value: &Value, depth: usize) -> serde_json::Value {
    match &value.kind {
        _ if depth == 0 => serde_json::Value::Null,
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::StructValue(fields)) => {
            fields.fields.iter().map(|(name, value)| (name.clone(), to_json(value, depth - 1))).collect()
        }
        Some(Kind::ListValue(list)) => list.values.iter().map(|value| to_json(value, depth - 1)).collect(),
    }
}

fn text<'a>(metadata: &'a Struct, name: &str) -> Option<&'a str> {
    as_text(metadata.fields.get(name)?)
}

fn as_text(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
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
    fn imports_are_a_list_or_a_text() {
        let view = |value: Kind| {
            let mut node = node(&[("namespace", "shop")]);
            let metadata = node.metadata.as_mut().expect("metadata");
            metadata.fields.insert("imports".into(), Value { kind: Some(value) });
            client(&node).map(|client| client.view.imports)
        };
        let text = |text: &str| Kind::StringValue(text.into());
        let list = |items: Vec<Kind>| {
            let values = items.into_iter().map(|kind| Value { kind: Some(kind) }).collect();
            Kind::ListValue(envoy_types::pb::google::protobuf::ListValue { values })
        };
        let from_list = view(list(vec![text("web"), text("api.default")])).expect("valid");
        assert!(from_list.is_some());
        assert_eq!(view(text("web, api.default")).expect("valid"), from_list);
        assert!(view(list(vec![])).expect("valid").is_some(), "nothing is not everything");
        for wrong in [Kind::BoolValue(true), list(vec![Kind::NumberValue(1.0)]), text("A")] {
            assert_eq!(view(wrong).expect_err("no names").field, "node.metadata.imports");
        }
    }

    #[test]
    fn rule_2_a_node_has_an_id() {
        assert_eq!(client(&Node::default()).expect_err("no id").field, "node.id");
    }
}
