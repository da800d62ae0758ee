//! Empty handlers: the same HTTP and gRPC servers as Convoy's, with nothing behind them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::post, serve::ListenerExt};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    server::{Grpc, UnaryService},
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

pub fn run(http: SocketAddr, grpc: SocketAddr, threads: Option<usize>) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()?.block_on(async {
        let handlers = Router::new()
            .route("/v1/leases/{id}/heartbeat", post(async || ()))
            .route("/v1/registrations", post(async || ()));
        let listener = TcpListener::bind(http).await?.tap_io(|connection| drop(connection.set_nodelay(true)));
        let http = tokio::spawn(async move { axum::serve(listener, handlers).await });
        let incoming = TcpIncoming::bind(grpc).map_err(|error| anyhow::anyhow!("{error}"))?.with_nodelay(Some(true));
        let routes = Routes::from(Router::new().route_service("/convoy.v1.Registry/Register", Empty));
        Server::builder().add_routes(routes).serve_with_incoming(incoming).await?;
        Ok(http.await??)
    })
}

/// A call that reads and answers nothing.
#[derive(Clone, Debug)]
struct Empty;

impl Service<http::Request<Body>> for Empty {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<(), ()>::default()).unary(Self, request).await) })
    }
}

impl UnaryService<()> for Empty {
    type Response = ();
    type Future = std::future::Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(())))
    }
}
