//! The paths about proxies.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post},
};
use convoy_client::{json::parse_duration, proto};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, At, NamespaceQuery, QueryError, Shared, Shell, parsed};
use crate::{any_json, model::Invalid};

pub(super) fn router() -> Router<Arc<Shell>> {
    Router::new()
        .route("/v1/proxies", get(list_proxies))
        .route("/v1/proxies/{node}", get(get_proxy))
        .route("/v1/proxies/{node}/retry", post(retry_proxy))
        .route("/v1/proxies/{node}/config", get(get_proxy_config))
        .route("/v1/convergence", get(convergence))
}

async fn list_proxies(
    State(shell): Shared,
    query: Result<Query<NamespaceQuery>, QueryError>,
) -> Answer<proto::ListProxiesResponse> {
    let namespace = parsed(query)?.namespace;
    shell.api.list_proxies(&proto::ListProxiesRequest { namespace }).await.map(Json)
}

async fn get_proxy(State(shell): Shared, At(node): At<String>) -> Answer<proto::GetProxyResponse> {
    shell.api.get_proxy(&proto::GetProxyRequest { node }).await.map(Json)
}

async fn retry_proxy(State(shell): Shared, At(node): At<String>) -> Answer<proto::RetryProxyResponse> {
    shell.api.retry_proxy(&proto::RetryProxyRequest { node }).await.map(Json)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigQuery {
    r#type: String,
    name: String,
}

async fn get_proxy_config(
    State(shell): Shared,
    At(node): At<String>,
    query: Result<Query<ConfigQuery>, QueryError>,
) -> Answer<Value> {
    let ConfigQuery { r#type, name } = parsed(query)?;
    let config = shell.api.get_proxy_config(&proto::GetProxyConfigRequest { node, r#type, name }).await?;
    Ok(Json(any_json::proxy_config(&config)))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConvergenceQuery {
    revision: Option<u64>,
    namespace: String,
    /// A duration: how long to wait for it.
    wait: Option<String>,
}

/// With `wait`, the answer comes when all have converged, or when the time is over.
async fn convergence(
    State(shell): Shared,
    query: Result<Query<ConvergenceQuery>, QueryError>,
) -> Answer<proto::Convergence> {
    let ConvergenceQuery { revision, namespace, wait } = parsed(query)?;
    let Some(wait) = wait else {
        return shell.api.get_convergence(&proto::GetConvergenceRequest { revision, namespace }).await.map(Json);
    };
    let timeout = parse_duration(&wait).map_err(|rule| Invalid::new("wait", &wait, rule))?;
    let timeout = Some(convoy_client::duration(timeout));
    let request = proto::WaitForConvergenceRequest { revision, namespace, timeout };
    shell.api.wait_for_convergence(&request).await.map(Json).map_err(|mut problem| {
        if problem.field == "timeout" {
            // As the path calls it.
            problem.message = problem.message.replacen("timeout", "wait", 1);
            problem.field = "wait".into();
        }
        problem
    })
}
