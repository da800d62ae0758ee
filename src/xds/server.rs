//! The xDS services over gRPC: ADS and the single-type services, in both dialects, all of one kind. The path says
//! which; the codec writes bytes that were encoded long before.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::Request, routing::post};
use tonic::{
    Status, Streaming,
    body::Body,
    codegen::http::{Response, header},
    metadata::GRPC_CONTENT_TYPE,
    transport::server::TcpConnectInfo,
};

use super::{
    codec::{Requests, Responses},
    fetch,
    protocol::Dialect,
    request::{Incremental, StateOfTheWorld},
    rest,
    services::{Method, SERVICES},
    stream::{Call, Shared, responses},
};
use crate::model::ResourceType;

/// A client's first incremental request names everything that it holds, with versions: about 100 bytes each.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// The names of all services of the port, in full.
pub fn service_names() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|service| service.name).chain([super::csds::NAME, super::lrs::NAME])
}

/// The routes of all services.
pub fn router(shared: Shared) -> Router {
    let (shared, streams) = (Arc::new(shared), Arc::new(AtomicU64::new(1)));
    let mut router = Router::new();
    for service in SERVICES {
        for (path, method) in service.calls() {
            let (shared, streams) = (shared.clone(), streams.clone());
            let answer = move |request: Request| {
                let id = streams.fetch_add(1, Ordering::Relaxed);
                std::future::ready(answer(shared.clone(), id, service.only, method, request))
            };
            router = router.route(&path, post(answer));
        }
    }
    router.merge(rest::router(&shared, &streams))
}

/// One call of one service.
fn answer(
    shared: Arc<Shared>,
    id: u64,
    only: Option<ResourceType>,
    method: Method,
    request: Request,
) -> Response<Body> {
    let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let (body, limit) = (request.into_body(), Some(MAX_REQUEST_BYTES));
    let requests = match method {
        Method::Stream(Dialect::Incremental) => {
            Streaming::new_request(Requests::<Incremental>::default(), body, None, limit)
        }
        Method::Stream(Dialect::StateOfTheWorld) | Method::Fetch => {
            Streaming::new_request(Requests::<StateOfTheWorld>::default(), body, None, limit)
        }
    };
    let body = match (method, only) {
        (Method::Fetch, Some(only)) => Body::new(Responses::new(Box::pin(fetch::answer(shared, id, only, requests)))),
        (Method::Fetch, None) => return Status::unimplemented("there is no one type to fetch").into_http(),
        (Method::Stream(dialect), _) => {
            let call = Call { id, only, dialect, address, requests };
            Body::new(Responses::new(Box::pin(responses(shared, call))))
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}
