//! Files of resources: documents in YAML or JSON → the calls that put them.

use std::{fs, io::Read, path::Path, path::PathBuf};

use anyhow::Context;
use convoy_client::{json::parse_duration, proto::PutResourceRequest};
use prost_types::Any;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    envoy_json,
    model::{Invalid, RawKey, ResourceType},
};

/// What is written around a resource. Answers of the API are understood too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    r#type: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    selector: String,
    ttl: Option<String>,
    resource: Value,
    #[serde(rename = "revision")]
    _revision: Option<u64>,
    #[serde(rename = "version")]
    _version: Option<String>,
}

/// The resources of all documents of these files, in their order.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<PutResourceRequest>> {
    let mut requests = Vec::new();
    for file in files {
        let text = text_of(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let documents = envoy_json::yaml(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        for (index, document) in documents.into_iter().enumerate() {
            let read = resources(document).with_context(|| format!("{}: document {}", file.display(), index + 1));
            requests.extend(read?);
        }
    }
    Ok(requests)
}

fn text_of(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// A document is a resource, or a list of them as `get` prints it; an empty one is none.
fn resources(document: Value) -> anyhow::Result<Vec<PutResourceRequest>> {
    match document {
        Value::Null => Ok(Vec::new()),
        Value::Object(mut fields) if fields.contains_key("resources") => {
            let listed: Vec<Value> = serde_json::from_value(fields.remove("resources").unwrap_or_default())?;
            listed.into_iter().map(request).collect()
        }
        document => Ok(vec![request(document)?]),
    }
}

fn request(document: Value) -> anyhow::Result<PutResourceRequest> {
    let of_envoy = document.get("@type").and_then(Value::as_str).map(str::to_owned);
    let document = match of_envoy {
        Some(type_url) => Document {
            r#type: type_url,
            name: String::new(),
            variant: String::new(),
            selector: String::new(),
            ttl: None,
            resource: document,
            _revision: None,
            _version: None,
        },
        None => serde_json::from_value(document)
            .context("a resource is written as `type` and `resource`, or has an `@type`")?,
    };
    let Document { r#type, name, variant, selector, ttl, resource, .. } = document;
    let kind = RawKey::kind("type", &r#type)?;
    let name = if name.is_empty() { name_of(kind, &resource)? } else { name };
    let parse = |text: String| parse_duration(&text).map_err(|error| Invalid::new("ttl", text, error));
    let ttl = ttl.map(parse).transpose()?.map(convoy_client::duration);
    let value = envoy_json::read(kind, &name, resource)?.to_vec();
    let body = Some(Any { type_url: kind.type_url().into(), value });
    Ok(PutResourceRequest { r#type: kind.as_str().into(), name, variant, selector, ttl, body })
}

/// The name that a resource has in itself.
fn name_of(kind: ResourceType, resource: &Value) -> Result<String, Invalid> {
    // A virtual host is asked for by route configuration and domain.
    let fields: &[&str] = match kind {
        ResourceType::VirtualHost => &[],
        ResourceType::Endpoint => &["cluster_name", "clusterName"],
        _ => &["name"],
    };
    let named = fields.iter().find_map(|field| resource.get(field)?.as_str());
    named.map(str::to_owned).ok_or_else(|| Invalid::new("name", "", "set, as proxies ask for the resource"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> anyhow::Result<Vec<PutResourceRequest>> {
        let documents = envoy_json::yaml(text).map_err(anyhow::Error::msg)?;
        Ok(documents.into_iter().map(resources).collect::<anyhow::Result<Vec<_>>>()?.concat())
    }

    #[test]
    fn all_ways_to_write_a_resource() {
        let text = r#"
type: routes
name: convoy/outbound
variant: edge
selector: node.metadata.role == "edge"
ttl: 1m
resource: {validate_clusters: false}
---
# Of Envoy's own.
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: legacy
connect_timeout: 1s
---
---
{"resources": [{"type": "endpoints", "name": "legacy", "variant": "", "selector": "", "revision": 7, "version": "x",
  "resource": {"clusterName": "legacy"}}]}
---
type: type.googleapis.com/envoy.config.listener.v3.Listener
resource: {name: in}
"#;
        let read: Vec<_> = read_text(text)
            .expect("valid")
            .into_iter()
            .map(|of| (of.r#type, of.name, of.variant, of.ttl.map(|ttl| ttl.seconds)))
            .collect();
        let row = |kind: &str, name: &str, variant: &str, ttl| (kind.into(), name.into(), variant.into(), ttl);
        assert_eq!(
            read,
            [
                row("routes", "convoy/outbound", "edge", Some(60)),
                row("clusters", "legacy", "", None),
                row("endpoints", "legacy", "", None),
                row("listeners", "in", "", None),
            ]
        );
    }

    #[test]
    fn the_examples_of_the_documentation_are_valid() {
        let page = include_str!("../../docs/resources.md");
        let examples: Vec<&str> =
            page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest)).collect();
        assert_eq!(examples.len(), 3);
        for example in examples {
            read_text(example).expect(example);
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, says) in [
            ("type: cars\nresource: {}", "one of clusters, endpoints"),
            ("type: clusters\nresource: {}", "name"),
            ("type: virtual_hosts\nresource: {name: a}", "name"),
            ("type: clusters\nresource: {name: a, conect_timeout: 1s}", "conect_timeout"),
            ("type: clusters\nresorce: {name: a}", "resorce"),
            ("kind: Deployment", "`@type`"),
            ("type: clusters\nttl: soon\nresource: {name: a}", "ttl"),
            ("- 1", "`@type`"),
            ("type: clusters\ntype: clusters\n", "type"),
        ] {
            let error = format!("{:#}", read_text(text).expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
