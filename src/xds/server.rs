//! The xDS services over gRPC: ADS and the single-type services, in both dialects, all of one kind. The path says
//! which; the codec writes bytes that were encoded long before.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::Request, routing::any};
use tonic::{
    Status, Streaming,
    body::Body,
    codegen::http::{HeaderValue, Response, header},
    metadata::GRPC_CONTENT_TYPE,
    transport::server::TcpConnectInfo,
};

use super::{
    codec::{Requests, Responses},
    protocol::Dialect,
    request::{Incremental, StateOfTheWorld},
    stream::{Call, Shared, responses},
};
use crate::model::ResourceType;

/// A client's first incremental request names everything that it holds, with versions: about 100 bytes each.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Service, its type (none on ADS), its streaming and its incremental call.
const SERVICES: [(&str, Option<ResourceType>, &str, &str); 9] = [
    (
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        None,
        "StreamAggregatedResources",
        "DeltaAggregatedResources",
    ),
    (
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        Some(ResourceType::Cluster),
        "StreamClusters",
        "DeltaClusters",
    ),
    (
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        Some(ResourceType::Endpoint),
        "StreamEndpoints",
        "DeltaEndpoints",
    ),
    (
        "envoy.service.listener.v3.ListenerDiscoveryService",
        Some(ResourceType::Listener),
        "StreamListeners",
        "DeltaListeners",
    ),
    ("envoy.service.route.v3.RouteDiscoveryService", Some(ResourceType::Route), "StreamRoutes", "DeltaRoutes"),
    ("envoy.service.secret.v3.SecretDiscoveryService", Some(ResourceType::Secret), "StreamSecrets", "DeltaSecrets"),
    (
        "envoy.service.route.v3.ScopedRoutesDiscoveryService",
        Some(ResourceType::ScopedRoute),
        "StreamScopedRoutes",
        "DeltaScopedRoutes",
    ),
    (
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Some(ResourceType::ExtensionConfig),
        "StreamExtensionConfigs",
        "DeltaExtensionConfigs",
    ),
    ("envoy.service.runtime.v3.RuntimeDiscoveryService", Some(ResourceType::Runtime), "StreamRuntime", "DeltaRuntime"),
];

/// The names of all services of the port, in full.
pub fn service_names() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|(name, ..)| *name).chain([super::csds::NAME])
}

/// The routes of all services.
pub fn router(shared: Shared) -> Router {
    let (shared, streams) = (Arc::new(shared), Arc::new(AtomicU64::new(1)));
    let mut router = Router::new();
    for (service, only, state_of_the_world, incremental) in SERVICES {
        for (method, dialect) in [(state_of_the_world, Dialect::StateOfTheWorld), (incremental, Dialect::Incremental)] {
            let (shared, streams) = (shared.clone(), streams.clone());
            let answer = move |request: Request| {
                let id = streams.fetch_add(1, Ordering::Relaxed);
                std::future::ready(answer(shared.clone(), id, only, dialect, request))
            };
            router = router.route(&format!("/{service}/{method}"), any(answer));
        }
    }
    router
}

/// One call of one service.
fn answer(
    shared: Arc<Shared>,
    id: u64,
    only: Option<ResourceType>,
    dialect: Dialect,
    request: Request,
) -> Response<Body> {
    if request.headers().contains_key("grpc-encoding") {
        let compressed = |encoding: &HeaderValue| encoding != "identity";
        if request.headers().get("grpc-encoding").is_some_and(compressed) {
            return Status::unimplemented("compressed requests are not read").into_http();
        }
    }
    let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let (body, limit) = (request.into_body(), Some(MAX_REQUEST_BYTES));
    let requests = match dialect {
        Dialect::StateOfTheWorld => Streaming::new_request(Requests::<StateOfTheWorld>::default(), body, None, limit),
        Dialect::Incremental => Streaming::new_request(Requests::<Incremental>::default(), body, None, limit),
    };
    let call = Call { id, only, dialect, address, requests };
    let mut response = Response::new(Body::new(Responses::new(Box::pin(responses(shared, call)))));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}
