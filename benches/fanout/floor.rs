//! The floor: what no xDS server on tonic can be faster than. It writes the same bytes to the same streams on the same
//! transport, in answer to the same call of a registry, and has nothing behind it: no state, no translation, no
//! protocol.
//!
//! It is written as well as we know how. A stream is one task (no second one to read requests), a response is a head of
//! its own and bytes that all streams share. Of what it is asked it reads the first request of each type, to know who
//! wants what, and discards the rest unread but for the one field that says that it is an ACK.
//!
//! Its answers are those that Convoy gave to a client before; they come in a file (see `tape`).

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use convoy_client::proto::{Instance, Lease, RegisterRequest, RegisterResponse};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures_util::Stream;
use prost::Message;
use redb::{Database, TableDefinition};
use tokio::{net::TcpSocket, sync::mpsc};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, StreamingService, UnaryService},
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::{
    change::Change,
    tape::Tape,
    wire::{self, CLUSTER, ENDPOINT, NONCE, REQUEST_NONCE, TYPE_URL, VERSION, put},
};

// As in Convoy's `server.rs`.
const LISTEN_BACKLOG: u32 = 4096;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
/// Updates that wait for one stream. More than this at once nobody sends here.
const UPDATES_WAITING: usize = 4096;
const COMMITS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("commits");
/// About what Convoy stores of an instance.
const COMMIT_BYTES: usize = 300;

/// Serves until it is killed.
pub fn run(address: SocketAddr, tape: &Path, commit: Option<&Path>) -> anyhow::Result<()> {
    let floor = Arc::new(Floor {
        tape: Tape::load(tape)?,
        streams: Mutex::default(),
        database: commit.map(Database::create).transpose()?.map(Arc::new),
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(floor, address))
}

async fn serve(floor: Arc<Floor>, address: SocketAddr) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let incoming = TcpIncoming::from(socket.listen(LISTEN_BACKLOG)?).with_nodelay(Some(true));
    let router = axum::Router::new()
        .route_service(wire::DELTA_ADS, axum::routing::any_service(Ads(floor.clone())))
        .route_service("/convoy.v1.Registry/Register", axum::routing::any_service(Register(floor)));
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(Routes::from(router));
    Ok(server.serve_with_incoming(incoming).await?)
}

type Updates = mpsc::Sender<Bytes>;

/// Who is told of what.
#[derive(Default)]
struct Streams {
    of_all: Vec<Updates>,
    of_name: HashMap<String, Vec<Updates>>,
}

struct Floor {
    tape: Tape,
    streams: Mutex<Streams>,
    database: Option<Arc<Database>>,
}

impl Floor {
    /// Makes the change's bytes once, and gives them to all who want them.
    fn write(&self, change: Change, name: &str) -> Result<(), Status> {
        let element = self.tape.endpoints.get(name).ok_or_else(|| Status::not_found("not on the tape"))?;
        let update = Bytes::from(change.apply(element));
        let streams = self.streams.lock().map_err(|_| Status::internal("a panic"))?;
        for stream in streams.of_all.iter().chain(streams.of_name.get(name).into_iter().flatten()) {
            // One that has gone is none.
            let _ = stream.try_send(update.clone());
        }
        Ok(())
    }

    /// Waits until a record is on the disk.
    async fn commit(&self, change: Change) -> anyhow::Result<()> {
        let Some(database) = self.database.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            transaction.open_table(COMMITS)?.insert(u64::from(change.service), &[7; COMMIT_BYTES][..])?;
            transaction.commit()?;
            Ok(())
        })
        .await?
    }

    /// The answer to a stream's first request of a type.
    fn answer(&self, request: &DeltaDiscoveryRequest, updates: &Updates) -> Option<Chunks> {
        let subscribed = &request.resource_names_subscribe;
        let returning = !request.initial_resource_versions.is_empty();
        if request.type_url == CLUSTER {
            // Who has it all is told so.
            let all = (!returning).then(|| self.tape.clusters.clone());
            return Some(Chunks::new(CLUSTER, all));
        }
        let mut streams = self.streams.lock().ok()?;
        let all = subscribed.len() == self.tape.endpoints.len();
        if all {
            streams.of_all.push(updates.clone());
        } else {
            for name in subscribed {
                streams.of_name.entry(name.clone()).or_default().push(updates.clone());
            }
        }
        drop(streams);
        match (returning, all) {
            (true, _) => None,
            (false, true) => Some(Chunks::new(ENDPOINT, [self.tape.all_endpoints.clone()])),
            (false, false) => {
                Some(Chunks::new(ENDPOINT, subscribed.iter().filter_map(|name| self.tape.endpoints.get(name).cloned())))
            }
        }
    }
}

/// A response: the type, and what comes after its head.
struct Chunks {
    type_url: &'static str,
    content: Vec<Bytes>,
}

impl Chunks {
    fn new(type_url: &'static str, content: impl IntoIterator<Item = Bytes>) -> Self {
        Self { type_url, content: content.into_iter().collect() }
    }

    /// With the head in front.
    fn with_nonce(self, nonce: u64) -> Vec<Bytes> {
        let mut head = Vec::with_capacity(160);
        put(VERSION, b"0123456789abcdef0123456789abcdef", &mut head);
        put(TYPE_URL, self.type_url.as_bytes(), &mut head);
        put(NONCE, nonce.to_string().as_bytes(), &mut head);
        [Bytes::from(head)].into_iter().chain(self.content).collect()
    }
}

/// One stream: its requests are read and its responses made in the one task that writes them.
struct Answers {
    floor: Arc<Floor>,
    requests: Streaming<Bytes>,
    /// The types that were asked for.
    asked: Vec<String>,
    due: VecDeque<Chunks>,
    own: Updates,
    updates: mpsc::Receiver<Bytes>,
    nonce: u64,
}

impl Answers {
    fn receive(&mut self, request: &Bytes) -> Result<(), Status> {
        if wire::field(request, REQUEST_NONCE).is_some() {
            return Ok(());
        }
        let request = DeltaDiscoveryRequest::decode(&request[..]);
        let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.asked.contains(&request.type_url) {
            self.due.extend(self.floor.answer(&request, &self.own));
            self.asked.push(request.type_url);
        }
        Ok(())
    }
}

impl Stream for Answers {
    type Item = Result<Vec<Bytes>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while let Poll::Ready(request) = Pin::new(&mut this.requests).poll_next(context) {
            match request {
                Some(Ok(request)) => this.receive(&request)?,
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
        let due = match this.due.pop_front() {
            Some(due) => due,
            None => match this.updates.poll_recv(context) {
                Poll::Ready(Some(update)) => Chunks { type_url: ENDPOINT, content: vec![update] },
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            },
        };
        this.nonce += 1;
        Poll::Ready(Some(Ok(due.with_nonce(this.nonce))))
    }
}

/// Requests as they are, responses in chunks.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<Bytes>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<Bytes>;
    type Error = Status;

    fn encode(&mut self, chunks: Vec<Bytes>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(chunks.iter().map(Bytes::len).sum());
        chunks.into_iter().for_each(|chunk| into.put(chunk));
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

#[derive(Clone)]
struct Ads(Arc<Floor>);

impl Service<http::Request<axum::body::Body>> for Ads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Answer {
        let ads = self.clone();
        let mut grpc =
            Grpc::new(Raw).max_decoding_message_size(MAX_REQUEST_BYTES).max_encoding_message_size(usize::MAX);
        Box::pin(async move { Ok(grpc.streaming(ads, request).await) })
    }
}

impl StreamingService<Bytes> for Ads {
    type Response = Vec<Bytes>;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (own, updates) = mpsc::channel(UPDATES_WAITING);
        let (asked, due) = (Vec::new(), VecDeque::new());
        let requests = request.into_inner();
        let answers = Answers { floor: self.0.clone(), requests, asked, due, own, updates, nonce: 0 };
        std::future::ready(Ok(Response::new(answers)))
    }
}

#[derive(Clone)]
struct Register(Arc<Floor>);

impl Service<http::Request<axum::body::Body>> for Register {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Answer {
        let register = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(register, request).await) })
    }
}

impl UnaryService<RegisterRequest> for Register {
    type Response = RegisterResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<RegisterResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<RegisterRequest>) -> Self::Future {
        let floor = self.0.clone();
        Box::pin(async move {
            for registration in &request.get_ref().instances {
                let change = Change::of(registration).ok_or_else(|| Status::invalid_argument("no change"))?;
                floor.commit(change).await.map_err(|error| Status::internal(error.to_string()))?;
                floor.write(change, &registration.service)?;
            }
            Ok(Response::new(answer(request.into_inner())))
        })
    }
}

/// An answer as long as Convoy's.
fn answer(request: RegisterRequest) -> RegisterResponse {
    let lease = Lease { id: "0123456789abcdef".into(), ttl: request.ttl, heartbeat_interval: request.ttl };
    let instances = request.instances.into_iter().map(|registration| Instance {
        namespace: "default".into(),
        service: registration.service,
        id: registration.id,
        incarnation: 1,
        address: registration.address,
        ports: registration.ports,
        weight: 100,
        lease: lease.id.clone(),
        revision: 1,
        ..Instance::default()
    });
    RegisterResponse { instances: instances.collect(), lease: Some(lease), revision: 1, ..Default::default() }
}
