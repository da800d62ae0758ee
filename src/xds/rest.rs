//! The REST form of xDS: `POST /v3/discovery:clusters` with a `DiscoveryRequest` as JSON. What is unchanged since the
//! version that the client has is answered 304, so that a client may poll.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use prost::Message;
use serde_json::json;
use tonic::{Code, Status};

use super::{fetch::fetch, request::StateOfTheWorld, server::MAX_REQUEST_BYTES, services::SERVICES, stream::Shared};
use crate::{envoy_json, model::ResourceType};

pub fn router(shared: &Arc<Shared>, streams: &Arc<AtomicU64>) -> Router {
    let mut router = Router::new();
    for (path, only) in SERVICES.iter().filter_map(|service| Some((service.rest_path()?, service.only?))) {
        let (shared, streams) = (shared.clone(), streams.clone());
        let answer = move |body: Bytes| {
            let id = streams.fetch_add(1, Ordering::Relaxed);
            std::future::ready(answer(&shared, id, only, &body))
        };
        router = router.route(path, post(answer));
    }
    router.layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
}

fn answer(shared: &Shared, id: u64, only: ResourceType, body: &[u8]) -> Response {
    let request = envoy_json::read_request(body).map_err(|invalid| Status::invalid_argument(invalid.to_string()));
    let request = request.and_then(|bytes| {
        StateOfTheWorld::decode(&*bytes).map_err(|error| Status::invalid_argument(error.to_string()))
    });
    let fetched = request.and_then(|request| {
        let version = request.version_info.clone();
        Ok((version, fetch(shared, id, only, request)?))
    });
    let (version, response) = match fetched {
        Ok(fetched) => fetched,
        Err(status) => return refuse(&status),
    };
    let bytes = response.chunks.concat();
    let shown = envoy_json::write_response(&bytes);
    match shown {
        Some(json) if !version.is_empty() && json["version_info"] == version.as_str() => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(json) => Json(json).into_response(),
        None => refuse(&Status::internal("the answer holds a message that cannot be written as JSON")),
    }
}

fn refuse(status: &Status) -> Response {
    let code = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(json!({ "error": { "message": status.message() } }))).into_response()
}
