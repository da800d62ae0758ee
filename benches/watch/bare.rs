//! The bare writer: gRPC streams on Convoy's transport, with its settings, that write the bytes they are given.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Request, routing::post};
use bytes::Bytes;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Response, Status,
    server::{Grpc, ServerStreamingService},
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use crate::clients::Raw;

pub const PATH: &str = "/bare.Writer/Watch";
// As in Convoy's `server.rs`.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// More never waits here.
const WAITING: usize = 16;

type Streams = Arc<Mutex<Vec<mpsc::Sender<Result<Bytes, Status>>>>>;

pub struct Bare {
    pub address: SocketAddr,
    streams: Streams,
}

impl Bare {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, streams) = (listener.local_addr()?, Streams::default());
        let of_calls = streams.clone();
        let answer = move |request: Request| {
            let call = Call(of_calls.clone());
            async move { Ok::<_, Infallible>(Grpc::new(Raw).server_streaming(call, request).await) }
        };
        let routes = Routes::from(Router::new().route(PATH, post(|request| async move { answer(request).await })));
        let server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self { address, streams })
    }

    /// Writes to all.
    pub fn write(&self, message: &Bytes) {
        for stream in &*self.streams.lock().expect("no panic") {
            // Each round waits until all have it: there is room.
            let _ = stream.try_send(Ok(message.clone()));
        }
    }
}

struct Call(Streams);

impl ServerStreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: tonic::Request<Bytes>) -> Self::Future {
        let (sender, messages) = mpsc::channel(WAITING);
        // A first message says that the stream is open.
        let _ = sender.try_send(Ok(Bytes::from_static(&[0x08, 4])));
        self.0.lock().expect("no panic").push(sender);
        std::future::ready(Ok(Response::new(ReceiverStream::new(messages))))
    }
}
