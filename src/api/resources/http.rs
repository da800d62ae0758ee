//! The HTTP shell of these calls: the body of a PUT is the resource itself, as JSON or YAML; all else is in the path and
//! the query.

use axum::{
    Json,
    extract::{FromRequest, Query, Request, State},
    http::header::CONTENT_TYPE,
};
use convoy_client::{json::parse_duration, proto};
use prost_types::Any;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    error::Problem,
    http::{Answer, At, MAX_QUOTED_BYTES, QueryError, Shared, bytes, parsed},
};
use crate::{
    envoy_json,
    model::{Invalid, RawKey, limits::quoted, wire::duration},
};

#[derive(Deserialize)]
pub(in crate::api) struct ResourcePath {
    r#type: String,
    name: String,
}

/// The resource itself stands as `resource`.
#[derive(Serialize)]
pub(in crate::api) struct Shown {
    #[serde(flatten)]
    about: proto::Resource,
    resource: Value,
}

impl From<proto::Resource> for Shown {
    fn from(mut about: proto::Resource) -> Self {
        let resource = about.body.take().as_ref().map(envoy_json::show).unwrap_or_default();
        Self { about, resource }
    }
}

/// The body of a PUT.
pub(in crate::api) struct Document(Value);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_yaml = content_type.is_some_and(|kind| kind.split(';').next().unwrap_or_default().ends_with("yaml"));
        let body = bytes(request, state).await?;
        let read = if is_yaml { one_document(&body) } else { serde_json::from_slice(&body).map_err(|e| e.to_string()) };
        let value = read.map_err(|error| Invalid::new("body", "…", quoted(&error, MAX_QUOTED_BYTES)))?;
        Ok(Self(value))
    }
}

fn one_document(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let mut documents = envoy_json::yaml(text)?;
    match (documents.pop(), documents.pop()) {
        (Some(document), None) => Ok(document),
        (None, _) => Err("there is no document".into()),
        (Some(_), Some(_)) => Err("one document, and not several".into()),
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::api) struct PutQuery {
    variant: String,
    selector: String,
    ttl: Option<String>,
}

pub(in crate::api) async fn put(
    State(shell): Shared,
    At(path): At<ResourcePath>,
    query: Result<Query<PutQuery>, QueryError>,
    Document(json): Document,
) -> Answer<Shown> {
    let PutQuery { variant, selector, ttl } = parsed(query)?;
    let key = RawKey::parse(&path.r#type, &path.name, &variant)?;
    let parse = |text: String| parse_duration(&text).map_err(|error| Invalid::new("ttl", text, error));
    let ttl = ttl.map(parse).transpose()?.map(duration);
    let value = envoy_json::read(key.kind, &key.name, json)?.to_vec();
    let body = Some(Any { type_url: key.kind.type_url().into(), value });
    let request = proto::PutResourceRequest { r#type: path.r#type, name: path.name, variant, selector, ttl, body };
    shell.api.put_resource(request).await.map(|resource| Json(resource.into()))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::api) struct VariantQuery {
    variant: String,
}

pub(in crate::api) async fn get(
    State(shell): Shared,
    At(ResourcePath { r#type, name }): At<ResourcePath>,
    query: Result<Query<VariantQuery>, QueryError>,
) -> Answer<Shown> {
    let variant = parsed(query)?.variant;
    let found = shell.api.get_resource(&proto::GetResourceRequest { r#type, name, variant })?;
    Ok(Json(found.into()))
}

pub(in crate::api) async fn delete(
    State(shell): Shared,
    At(ResourcePath { r#type, name }): At<ResourcePath>,
    query: Result<Query<VariantQuery>, QueryError>,
) -> Answer<proto::DeleteResourceResponse> {
    let variant = parsed(query)?.variant;
    shell.api.delete_resource(proto::DeleteResourceRequest { r#type, name, variant }).await.map(Json)
}

pub(in crate::api) async fn list(
    State(shell): Shared,
    query: Result<Query<proto::ListResourcesRequest>, QueryError>,
) -> Answer<proto::ListResourcesResponse> {
    shell.api.list_resources(&parsed(query)?).map(Json)
}
