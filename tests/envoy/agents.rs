//! Agents: small servers in this process that answer with their id, and what keeps them registered.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use convoy_client::{Agent, AgentBuilder, Protocol};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::runtime::Runtime;

use crate::{
    convoy::Convoy,
    wait::{PATIENCE, until},
};

/// What a request takes, so that some are under way when something happens.
const WORK: Duration = Duration::from_millis(2);
/// An agent without a request for so long is not asked any more.
const QUIET: Duration = Duration::from_millis(100);

/// A server of HTTP/1.1, HTTP/2 and gRPC. It has a thread of its own, so that dropping it is like `kill -9`: the listener
/// and all connections are gone, whatever was under way.
pub struct Backend {
    pub id: String,
    pub address: SocketAddr,
    activity: Arc<Activity>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Activity {
    under_way: AtomicUsize,
    last: Mutex<Option<Instant>>,
}

impl Backend {
    pub fn start(id: impl Into<String>) -> Self {
        let (id, activity) = (id.into(), Arc::<Activity>::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a thread");
        let (name, busy) = (id.clone(), activity.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let app = Router::new().fallback(move |request| answer(request, name.clone(), busy.clone()));
            axum::serve(listener, app).await
        });
        Self { id, address, activity, runtime: Some(runtime) }
    }

    /// Serves until nobody asks any more.
    pub async fn finish(self) {
        until("nobody asks an agent that has left", PATIENCE, async || {
            let under_way = self.activity.under_way.load(Ordering::SeqCst);
            let last = *self.activity.last.lock().expect("nobody panics with it");
            let quiet = last.is_none_or(|last| last.elapsed() > QUIET);
            if under_way == 0 && quiet { Ok(()) } else { Err(format!("{} is asked", self.id)) }
        })
        .await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(request: Request, id: String, activity: Arc<Activity>) -> Response {
    activity.under_way.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(WORK).await;
    *activity.last.lock().expect("nobody panics with it") = Some(Instant::now());
    activity.under_way.fetch_sub(1, Ordering::SeqCst);
    let grpc = HeaderValue::from_static("application/grpc");
    if request.headers().get(CONTENT_TYPE) == Some(&grpc) {
        return ([(CONTENT_TYPE, grpc)], grpc_body(&id)).into_response();
    }
    ([("x-protocol", format!("{:?}", request.version()))], id).into_response()
}

/// One uncompressed message, and the status that all is well.
fn grpc_body(message: &str) -> Body {
    let mut data = BytesMut::new();
    data.put_u8(0);
    data.put_u32(message.len().try_into().expect("a short message"));
    data.put_slice(message.as_bytes());
    let status = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let frames =
        [Frame::data(data.freeze()), Frame::trailers(status)].map(Ok::<Frame<Bytes>, std::convert::Infallible>);
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

/// A backend that is registered, and kept so.
pub struct Member {
    pub backend: Backend,
    pub agent: Agent,
}

impl Member {
    /// Starts an agent of a service with one port, and waits until it is registered.
    pub async fn join(convoy: &Convoy, service: &str, id: &str, protocol: Protocol, ttl: Duration) -> Self {
        let backend = Backend::start(id);
        let agent = registration(convoy, service, &backend, protocol).ttl(ttl).start().await.expect("registered");
        Self { backend, agent }
    }
}

/// What a backend's agent says of it: one port, named like its protocol.
pub fn registration(convoy: &Convoy, service: &str, backend: &Backend, protocol: Protocol) -> AgentBuilder {
    let builder = Agent::builder(convoy.server(), service).id(&backend.id).address(backend.address.ip().to_string());
    builder.port(protocol.to_string(), backend.address.port(), protocol)
}
