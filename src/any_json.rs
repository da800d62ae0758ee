//! The JSON form of Envoy's messages, and of answers that hold them. The API's own messages have theirs in the client
//! crate, which cannot read these.

use base64::{Engine, prelude::BASE64_STANDARD};
use convoy_client::proto::GetProxyConfigResponse;
use prost_types::Any;
use serde_json::{Value, json};

/// A message as JSON: its type, and its bytes in base64.
pub fn any_to_json(any: &Any) -> Value {
    json!({"@type": any.type_url, "value": BASE64_STANDARD.encode(&any.value)})
}

/// What a proxy has, with the resources readable.
pub fn proxy_config(config: &GetProxyConfigResponse) -> Value {
    let mut document = json!(config);
    let shown = document["resources"].as_array_mut().into_iter().flatten();
    for (shown, resource) in shown.zip(&config.resources) {
        if let Some(any) = &resource.resource {
            shown["resource"] = any_to_json(any);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoy_client::proto::ProxyResource;

    #[test]
    fn resources_are_in_the_answer() {
        let any = Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1] };
        let with = ProxyResource { name: "a".into(), resource: Some(any.clone()), ..Default::default() };
        let config = GetProxyConfigResponse { resources: vec![ProxyResource::default(), with] };
        let document = proxy_config(&config);
        assert_eq!(document["resources"][1]["resource"], any_to_json(&any));
        assert_eq!(document["resources"][0].get("resource"), None);
    }
}
