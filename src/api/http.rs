//! The HTTP/JSON shell: paths and bodies → the API's calls.

mod cards;
mod proxies;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use convoy_client::proto;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{runtime::Handle, sync::watch};
use tower::Layer;

use super::{
    Api,
    elsewhere::{Elsewhere, Place, Sorted},
    error::Problem,
    query, resources, stale,
};
use crate::model::{Invalid, limits::quoted};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug)]
pub(super) struct Shell {
    pub(super) api: Api,
    stopping: watch::Receiver<bool>,
}

/// The HTTP API. All but heartbeats and small registrations are carried out by those threads.
pub fn service(api: Api, stopping: watch::Receiver<bool>, threads: Handle) -> Sorted<Router> {
    Elsewhere::new(threads, place_of).layer(router(api, stopping))
}

fn place_of(request: &Request) -> Place {
    match request.uri().path() {
        "/v1/heartbeats" => Place::Here,
        "/v1/registrations" => Place::HereIfSmall,
        path if path.starts_with("/v1/leases/") => Place::Here,
        _ => Place::Elsewhere,
    }
}

fn router(api: Api, stopping: watch::Receiver<bool>) -> Router {
    let (limit, registry) = (api.registry.limits().request_bytes, api.registry.clone());
    let service = "/v1/namespaces/{namespace}/services/{service}";
    let instance = format!("{service}/instances/{{id}}");
    let router = Router::new()
        .route(&instance, put(put_instance).get(get_instance).delete(delete_instance))
        .route(&format!("{instance}/drain"), post(drain))
        .route(&format!("{instance}/explain"), get(explain_instance))
        .route(&format!("{instance}/override"), put(set_override).delete(clear_override))
        .route(&format!("{service}/instances"), get(list_instances))
        .route(&format!("{service}/load"), get(get_service_load))
        .route(service, get(get_service).put(put_service).delete(delete_service))
        .route("/v1/registrations", post(register))
        .route("/v1/leases/{id}/heartbeat", post(heartbeat_one))
        .route("/v1/heartbeats", post(heartbeat_many))
        .route("/v1/services", get(list_services))
        .route("/v1/query", post(query::http::query))
        .route("/v1/instances", get(query::http::list))
        .route("/v1/brakes", get(list_brakes))
        .route("/v1/brakes/release", post(release_brake))
        .merge(cards::router(&instance))
        .merge(proxies::router())
        .route("/v1/resources", get(resources::http::list))
        .route(
            "/v1/resources/{type}/{*name}",
            put(resources::http::put).get(resources::http::get).delete(resources::http::delete),
        )
        .route("/v1/watch", get(watch_events))
        .route("/v1/backup", get(backup))
        .route("/metrics", get(metrics))
        .route("/livez", get(ok))
        .route("/readyz", get(ready))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(limit))
        .with_state(Arc::new(Shell { api, stopping }));
    stale::marked(router, &registry)
}

pub(super) type Shared = State<Arc<Shell>>;
pub(super) type Answer<T> = Result<Json<T>, Problem>;
type Peer = ConnectInfo<SocketAddr>;

/// A JSON body; an empty one is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = bytes(request, state).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        if text.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
            // Read by position, an array would pass for an object.
            return Err(Invalid::new("body", "[…]", "a JSON object").into());
        }
        // Where an error is, is worked out only if there is one.
        if let Ok(value) = serde_json::from_slice(text) {
            return Ok(Self(value));
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = read(&mut reader)?;
        reader.end().map_err(|error| Invalid::new("body", "…", error.to_string()))?;
        Ok(Self(value))
    }
}

pub(super) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => Problem::new("too_large", "the body is over the limit"),
        _ => Problem::new("invalid_argument", rejection.body_text()),
    })
}

/// The names in a path.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names)).map_err(|rejection| {
            let rule = rejection.body_text();
            Problem { field: "path".into(), rule: rule.clone(), ..Problem::new("invalid_argument", rule) }
        })
    }
}

/// What serde says of a body is quoted up to here: a list of fields fits, and no body does.
pub(super) const MAX_QUOTED_BYTES: usize = 512;

/// Reads JSON; an error names the field.
fn read<'de, T: DeserializeOwned, D: serde::Deserializer<'de>>(from: D) -> Result<T, Problem>
where
    D::Error: std::fmt::Display,
{
    serde_path_to_error::deserialize(from).map_err(|error| {
        let path = quoted(&error.path().to_string(), MAX_QUOTED_BYTES);
        let field = if path == "." { "body".to_owned() } else { path };
        let rule = quoted(&error.inner().to_string(), MAX_QUOTED_BYTES);
        let message = format!("{field}: {rule}");
        Problem { field, rule, ..Problem::new("invalid_argument", message) }
    })
}

#[derive(Deserialize)]
struct ServicePath {
    namespace: String,
    service: String,
}

#[derive(Deserialize)]
struct InstancePath {
    namespace: String,
    service: String,
    id: String,
}

/// What the path names may stand in the body as well, and must then be the same.
fn of_path(field: &str, said: &mut String, meant: String) -> Result<(), Invalid> {
    if !said.is_empty() && *said != meant {
        return Err(Invalid::new(field, said, format!("that of the path, {meant:?}")));
    }
    *said = meant;
    Ok(())
}

/// The answer to a registration of one instance.
#[derive(Serialize)]
struct Registered {
    instance: Option<proto::Instance>,
    lease: Option<proto::Lease>,
    revision: u64,
    digest: String,
}

/// The body is a registration, with the `lease`, `ttl` and `incarnation` of the call among its fields.
async fn put_instance(
    State(shell): Shared,
    ConnectInfo(peer): Peer,
    At(path): At<InstancePath>,
    Body(mut body): Body<Map<String, Value>>,
) -> Answer<Registered> {
    let of_call = ["lease", "ttl", "incarnation"];
    let call: Map<String, Value> = of_call.iter().filter_map(|name| body.remove_entry(*name)).collect();
    let mut request: proto::RegisterRequest = read(Value::Object(call))?;
    let mut registration: proto::Registration = read(Value::Object(body))?;
    of_path("namespace", &mut registration.namespace, path.namespace)?;
    of_path("service", &mut registration.service, path.service)?;
    of_path("id", &mut registration.id, path.id)?;
    request.instances = vec![registration];
    register_one(&shell, request, peer).await
}

async fn register_one(shell: &Shell, request: proto::RegisterRequest, peer: SocketAddr) -> Answer<Registered> {
    let answer = shell.api.register(request, Some(peer.ip())).await.map_err(|mut problem| {
        // There is one instance: its fields are the body's.
        problem.field = problem.field.trim_start_matches("instances[0].").to_owned();
        problem.message = problem.message.trim_start_matches("instances[0].").to_owned();
        problem
    })?;
    let instance = answer.instances.into_iter().next();
    Ok(Json(Registered { instance, lease: answer.lease, revision: answer.revision, digest: answer.digest }))
}

async fn register(
    State(shell): Shared,
    ConnectInfo(peer): Peer,
    Body(request): Body<proto::RegisterRequest>,
) -> Answer<proto::RegisterResponse> {
    shell.api.register(request, Some(peer.ip())).await.map(Json)
}

async fn get_instance(State(shell): Shared, At(path): At<InstancePath>) -> Answer<proto::Instance> {
    let InstancePath { namespace, service, id } = path;
    shell.api.get_instance(&proto::GetInstanceRequest { namespace, service, id }).map(Json)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IncarnationQuery {
    incarnation: Option<u64>,
}

async fn delete_instance(
    State(shell): Shared,
    At(path): At<InstancePath>,
    query: Result<Query<IncarnationQuery>, QueryError>,
) -> Answer<proto::DeregisterResponse> {
    let InstancePath { namespace, service, id } = path;
    let incarnation = parsed(query)?.incarnation;
    shell.api.deregister(proto::DeregisterRequest { namespace, service, id, incarnation }).await.map(Json)
}

async fn drain(
    State(shell): Shared,
    At(path): At<InstancePath>,
    Body(mut request): Body<proto::DrainRequest>,
) -> Answer<proto::DrainResponse> {
    of_path("namespace", &mut request.namespace, path.namespace)?;
    of_path("service", &mut request.service, path.service)?;
    of_path("id", &mut request.id, path.id)?;
    shell.api.drain(request).await.map(Json)
}

async fn set_override(
    State(shell): Shared,
    At(path): At<InstancePath>,
    Body(mut request): Body<proto::SetOverrideRequest>,
) -> Answer<proto::SetOverrideResponse> {
    of_path("namespace", &mut request.namespace, path.namespace)?;
    of_path("service", &mut request.service, path.service)?;
    of_path("id", &mut request.id, path.id)?;
    if request.health == 0 {
        return Err(Invalid::new("health", "", "one of healthy, degraded, unhealthy; DELETE takes it back").into());
    }
    shell.api.set_override(request).await.map(Json)
}

async fn clear_override(
    State(shell): Shared,
    At(InstancePath { namespace, service, id }): At<InstancePath>,
) -> Answer<proto::SetOverrideResponse> {
    let request = proto::SetOverrideRequest { namespace, service, id, ..Default::default() };
    shell.api.set_override(request).await.map(Json)
}

async fn list_brakes(State(shell): Shared) -> Json<proto::ListBrakesResponse> {
    Json(shell.api.list_brakes())
}

async fn release_brake(
    State(shell): Shared,
    Body(request): Body<proto::ReleaseBrakeRequest>,
) -> Answer<proto::ReleaseBrakeResponse> {
    shell.api.release_brake(request).await.map(Json)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExplainQuery {
    proxy: String,
}

async fn explain_instance(
    State(shell): Shared,
    At(InstancePath { namespace, service, id }): At<InstancePath>,
    query: Result<Query<ExplainQuery>, QueryError>,
) -> Answer<proto::Explanation> {
    let proxy = parsed(query)?.proxy;
    shell.api.explain_instance(&proto::ExplainInstanceRequest { namespace, service, id, proxy }).await.map(Json)
}

async fn get_service_load(State(shell): Shared, At(path): At<ServicePath>) -> Answer<proto::ServiceLoad> {
    let ServicePath { namespace, service } = path;
    shell.api.get_service_load(&proto::GetServiceLoadRequest { namespace, service }).map(Json)
}

async fn list_instances(State(shell): Shared, At(path): At<ServicePath>) -> Answer<proto::ListInstancesResponse> {
    let ServicePath { namespace, service } = path;
    shell.api.list_instances(&proto::ListInstancesRequest { namespace, service }).map(Json)
}

async fn get_service(State(shell): Shared, At(path): At<ServicePath>) -> Answer<proto::Service> {
    let ServicePath { namespace, service } = path;
    shell.api.get_service(&proto::GetServiceRequest { namespace, service }).map(Json)
}

async fn put_service(
    State(shell): Shared,
    At(path): At<ServicePath>,
    Body(mut request): Body<proto::PutServiceRequest>,
) -> Answer<proto::PutServiceResponse> {
    of_path("namespace", &mut request.namespace, path.namespace)?;
    of_path("service", &mut request.service, path.service)?;
    shell.api.put_service(request).await.map(Json)
}

async fn delete_service(State(shell): Shared, At(path): At<ServicePath>) -> Answer<proto::DeleteServiceResponse> {
    let ServicePath { namespace, service } = path;
    shell.api.delete_service(proto::DeleteServiceRequest { namespace, service }).await.map(Json)
}

/// One lease: one that is over is an error here.
async fn heartbeat_one(
    State(shell): Shared,
    At(lease): At<String>,
    Body(mut heartbeat): Body<proto::LeaseHeartbeat>,
) -> Answer<proto::LeaseStatus> {
    of_path("lease", &mut heartbeat.lease, lease.clone())?;
    let answer = shell.api.heartbeat(proto::HeartbeatRequest { leases: vec![heartbeat] })?;
    match answer.leases.into_iter().next() {
        Some(status) if status.outcome() == proto::LeaseOutcome::Kept => Ok(Json(status)),
        Some(status) if status.outcome() == proto::LeaseOutcome::Retry => {
            Err(Problem::new("unavailable", "the lease is not known, and the store is away: heartbeat again"))
        }
        _ => {
            let lease = crate::model::LeaseId::parse("lease", &lease)?;
            Err(crate::registry::command::Error::LeaseNotFound { lease }.into())
        }
    }
}

async fn heartbeat_many(
    State(shell): Shared,
    Body(request): Body<proto::HeartbeatRequest>,
) -> Answer<proto::HeartbeatResponse> {
    shell.api.heartbeat(request).map(Json)
}

pub(super) type QueryError = axum::extract::rejection::QueryRejection;

pub(super) fn parsed<T>(query: Result<Query<T>, QueryError>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|rejection| {
        let rule = quoted(&rejection.body_text(), MAX_QUOTED_BYTES);
        Problem { field: "query".into(), rule: rule.clone(), ..Problem::new("invalid_argument", rule) }
    })
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NamespaceQuery {
    namespace: String,
}

async fn list_services(
    State(shell): Shared,
    query: Result<Query<NamespaceQuery>, QueryError>,
) -> Answer<proto::ListServicesResponse> {
    let namespace = parsed(query)?.namespace;
    shell.api.list_services(&proto::ListServicesRequest { namespace }).map(Json)
}

/// Server-sent events. `Last-Event-ID` resumes.
async fn watch_events(
    State(shell): Shared,
    headers: HeaderMap,
    query: Result<Query<proto::WatchRequest>, QueryError>,
) -> Result<Response, Problem> {
    let mut request = parsed(query)?;
    if let Some(last) = headers.get("last-event-id").and_then(|id| id.to_str().ok()) {
        last.clone_into(&mut request.resume);
    }
    let mut stopping = shell.stopping.clone();
    let stopped = async move {
        // An error is the sender's end: Convoy has stopped.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    Ok(shell.api.watch(&request).await?.event_stream(stopped))
}

/// The file itself.
async fn backup(State(shell): Shared) -> Result<Response, Problem> {
    let chunks = shell.api.backup().await?.map(|chunk| Ok::<_, Infallible>(chunk.data));
    let head = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((head, axum::body::Body::from_stream(chunks)).into_response())
}

async fn metrics(State(shell): Shared) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], shell.api.metrics.render(&shell.api.registry.census()))
}

async fn ok() -> &'static str {
    "ok\n"
}

/// Not ready while the store takes no writes; reads, xDS and heartbeats go on.
async fn ready(State(shell): Shared) -> Result<&'static str, Problem> {
    if shell.api.registry.is_writable() { Ok("ok\n") } else { Err(Problem::new("unavailable", "the store fails")) }
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new("not_found", format!("there is no path {}", quoted(request.uri().path(), MAX_QUOTED_BYTES)))
}

async fn unknown_method(request: Request) -> Problem {
    let message = format!("{} is not a method of {}", request.method(), request.uri().path());
    Problem::new("method_not_allowed", message)
}
