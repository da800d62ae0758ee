//! The xDS services over gRPC: ADS and the single-type services, in both dialects, all of one kind. The path says
//! which; the codec writes bytes that were encoded long before.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use axum::{Router, routing::any_service};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codegen::http,
    server::{Grpc, StreamingService},
    transport::server::TcpConnectInfo,
};

use super::{
    codec::{Incoming, XdsCodec},
    protocol::{Dialect, Response},
    session::Session,
    stream::{self, Shared},
};
use crate::translate::ResourceType;

/// A client's first incremental request names everything that it holds, with versions: about 100 bytes each.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
/// A response waits here while the one before it is written; the next is made when there is room.
const RESPONSES_WAITING: usize = 1;

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
            let call = Call { shared: shared.clone(), streams: streams.clone(), only, dialect };
            router = router.route_service(&format!("/{service}/{method}"), any_service(call));
        }
    }
    router
}

/// One call of one service.
#[derive(Clone)]
struct Call {
    shared: Arc<Shared>,
    streams: Arc<AtomicU64>,
    only: Option<ResourceType>,
    dialect: Dialect,
}

impl tonic::codegen::Service<http::Request<axum::body::Body>> for Call {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            Ok(match call.dialect {
                Dialect::StateOfTheWorld => {
                    grpc(XdsCodec::<DiscoveryRequest>::default()).streaming(call, request).await
                }
                Dialect::Incremental => {
                    grpc(XdsCodec::<DeltaDiscoveryRequest>::default()).streaming(call, request).await
                }
            })
        })
    }
}

fn grpc<T: tonic::codec::Codec>(codec: T) -> Grpc<T> {
    Grpc::new(codec).max_decoding_message_size(MAX_REQUEST_BYTES).max_encoding_message_size(usize::MAX)
}

impl StreamingService<Incoming> for Call {
    type Response = Response;
    type ResponseStream = ReceiverStream<Result<Response, Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Incoming>>) -> Self::Future {
        let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let id = self.streams.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(self.dialect, self.only);
        let (out, responses) = mpsc::channel(RESPONSES_WAITING);
        let (shared, dialect) = (self.shared.clone(), self.dialect);
        let labels = (
            self.only.map_or("ads", ResourceType::as_str),
            match dialect {
                Dialect::StateOfTheWorld => "state_of_the_world",
                Dialect::Incremental => "incremental",
            },
        );
        // Its end is the end of the stream, which the client sees.
        tokio::spawn(async move {
            shared.metrics.stream_opened(labels.0, labels.1);
            stream::run(shared.clone(), id, session, dialect, address, request.into_inner(), out).await;
            shared.metrics.stream_closed(labels.0, labels.1);
        });
        std::future::ready(Ok(tonic::Response::new(ReceiverStream::new(responses))))
    }
}
