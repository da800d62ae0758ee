//! The calls for raw resources. A body is bytes here; the HTTP shell makes them of JSON or YAML.

mod grpc;
pub(super) mod http;

use convoy_client::proto;
use prost_types::Any;

use super::{Api, error::Problem, optional};
use crate::{
    envoy_json,
    model::{Invalid, NodeSelector, RawKey, RawResource, limits::at_most, parse, raw::check_ttl, wire::duration},
    registry::command::{Error, Versioned},
};

impl Api {
    pub async fn put_resource(&self, request: proto::PutResourceRequest) -> Result<proto::Resource, Problem> {
        let key = RawKey::parse(&request.r#type, &request.name, &request.variant)?;
        let selector = optional(&request.selector, |text| NodeSelector::parse("selector", text))?;
        let ttl = request.ttl.map(|ttl| parse::duration("ttl", ttl).and_then(check_ttl)).transpose()?;
        let body = request.body.ok_or_else(|| Invalid::new("body", "", "the resource"))?;
        if body.type_url != key.kind.type_url() {
            let rule = format!("that of {}, {}", key.kind.as_str(), key.kind.type_url());
            return Err(Invalid::new("body.type_url", body.type_url, rule).into());
        }
        // A short text can make a long message.
        at_most("body", body.value.len(), self.registry.limits().request_bytes, "bytes")?;
        envoy_json::check(key.kind, &key.name, &body.value)?;
        let resource = RawResource { bytes: body.value.into(), selector, ttl };
        self.registry.put_raw(key.clone(), resource.clone()).await?;
        // What somebody else has put meanwhile is the answer as well.
        self.find(&key)
    }

    pub fn get_resource(&self, request: &proto::GetResourceRequest) -> Result<proto::Resource, Problem> {
        self.find(&RawKey::parse(&request.r#type, &request.name, &request.variant)?)
    }

    fn find(&self, key: &RawKey) -> Result<proto::Resource, Problem> {
        let snapshot = self.registry.snapshot();
        let found = snapshot.raw.get(key).ok_or_else(|| Error::no_resource(key))?;
        let body = Any { type_url: key.kind.type_url().into(), value: found.value.bytes.to_vec() };
        Ok(proto::Resource { body: Some(body), ..without_body(key, found) })
    }

    pub fn list_resources(
        &self,
        request: &proto::ListResourcesRequest,
    ) -> Result<proto::ListResourcesResponse, Problem> {
        let kind = optional(&request.r#type, |kind| RawKey::kind("type", kind))?;
        let snapshot = self.registry.snapshot();
        let wanted = |key: &RawKey| {
            kind.is_none_or(|kind| kind == key.kind) && (request.name.is_empty() || request.name == *key.name)
        };
        let found = snapshot.raw.iter().filter(|(key, _)| wanted(key));
        let resources = found.map(|(key, resource)| without_body(key, resource)).collect();
        Ok(proto::ListResourcesResponse { resources, revision: snapshot.revision.0 })
    }

    pub async fn delete_resource(
        &self,
        request: proto::DeleteResourceRequest,
    ) -> Result<proto::DeleteResourceResponse, Problem> {
        let key = RawKey::parse(&request.r#type, &request.name, &request.variant)?;
        let outcome = self.registry.delete_raw(key).await?;
        Ok(proto::DeleteResourceResponse { revision: outcome.revision.0 })
    }
}

fn without_body(key: &RawKey, resource: &Versioned<RawResource>) -> proto::Resource {
    proto::Resource {
        r#type: key.kind.as_str().into(),
        name: key.name.to_string(),
        variant: key.variant.to_string(),
        selector: resource.value.selector.as_ref().map(|selector| selector.as_str().to_owned()).unwrap_or_default(),
        ttl: resource.value.ttl.map(duration),
        body: None,
        revision: resource.revision.0,
        version: resource.value.version(),
    }
}
