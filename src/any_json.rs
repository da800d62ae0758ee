//! The JSON form of answers that hold Envoy's messages. The API's own messages have theirs in the client crate, which
//! cannot read these.

use convoy_client::proto::GetProxyConfigResponse;
use serde_json::{Value, json};

use crate::envoy_json;

/// What a proxy has, with the resources readable.
pub fn proxy_config(config: &GetProxyConfigResponse) -> Value {
    let mut document = json!(config);
    let shown = document["resources"].as_array_mut().into_iter().flatten();
    for (shown, resource) in shown.zip(&config.resources) {
        if let Some(any) = &resource.resource {
            shown["resource"] = envoy_json::show(any);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResourceType;
    use convoy_client::proto::ProxyResource;
    use prost_types::Any;

    #[test]
    fn resources_are_in_the_answer() {
        let type_url = ResourceType::Cluster.type_url().to_owned();
        let any = Any { type_url, value: b"\x0a\x03web".to_vec() };
        let with = ProxyResource { name: "a".into(), resource: Some(any), ..Default::default() };
        let config = GetProxyConfigResponse { resources: vec![ProxyResource::default(), with] };
        let document = proxy_config(&config);
        assert_eq!(document["resources"][1]["resource"], json!({"name": "web"}));
        assert_eq!(document["resources"][0].get("resource"), None);
    }
}
