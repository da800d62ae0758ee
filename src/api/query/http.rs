//! The HTTP shell of this call: as a body, or in the query of a GET.

use axum::{
    Json,
    extract::{Query, State},
};
use convoy_client::{json::parse_duration, proto};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        error::Problem,
        http::{Answer, Body, QueryError, Shared, parsed},
    },
    fields::Fields,
};
use crate::{
    api::Api,
    model::{Invalid, wire::duration},
};

pub(in crate::api) async fn query(State(shell): Shared, Body(request): Body<proto::QueryRequest>) -> Answer<Value> {
    answer(&shell.api, request).await
}

/// As the query of a GET says it: lists have commas, a place slashes.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::api) struct Asked {
    filter: String,
    namespace: String,
    text: String,
    order_by: String,
    near: String,
    page_size: u32,
    page_token: String,
    fields: String,
    facets: String,
    count: bool,
    timeout: Option<String>,
}

pub(in crate::api) async fn list(State(shell): Shared, query: Result<Query<Asked>, QueryError>) -> Answer<Value> {
    let asked = parsed(query)?;
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let order_by = match asked.order_by.as_str() {
        "" => proto::QueryOrder::Unspecified,
        "name" => proto::QueryOrder::Name,
        "load" => proto::QueryOrder::Load,
        "nearest" => proto::QueryOrder::Nearest,
        "relevance" => proto::QueryOrder::Relevance,
        other => return Err(Invalid::new("order_by", other, "one of name, load, nearest, relevance").into()),
    };
    let near = (!asked.near.is_empty()).then(|| {
        let mut parts = asked.near.splitn(3, '/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        proto::Locality { region: part(), zone: part(), sub_zone: part() }
    });
    let timeout = asked.timeout.map(|text| parse_duration(&text).map_err(|rule| Invalid::new("timeout", text, rule)));
    let request = proto::QueryRequest {
        filter: asked.filter,
        namespace: asked.namespace,
        text: asked.text,
        order_by: order_by.into(),
        near,
        page_size: asked.page_size,
        page_token: asked.page_token,
        fields: list(&asked.fields),
        facets: list(&asked.facets),
        count: asked.count,
        timeout: timeout.transpose()?.map(duration),
    };
    answer(&shell.api, request).await
}

async fn answer(api: &Api, request: proto::QueryRequest) -> Answer<Value> {
    let fields = Fields::parse(&request.fields)?;
    let mut answer = json!(api.query(request).await?);
    if let Some(Value::Array(instances)) = answer.get_mut("instances") {
        instances.iter_mut().for_each(|instance| fields.of_json(instance));
    }
    Ok::<_, Problem>(Json(answer))
}
