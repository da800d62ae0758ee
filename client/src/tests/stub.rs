//! A server for tests: a few lines of registry that tell what they hear, and that can go away and come back on the same
//! port with or without their memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    Agent, Error, Protocol,
    proto::{
        self, LeaseOutcome,
        registry_server::{Registry, RegistryServer},
    },
};

/// Short, so that a test sees many heartbeats in no time.
const INTERVAL: Duration = Duration::from_millis(20);
/// Only a test that fails waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What the stub heard.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a test keeps a few of them")]
pub(super) enum Heard {
    Register(proto::RegisterRequest),
    Heartbeat(proto::LeaseHeartbeat),
    HeartbeatsEnded,
    Drain,
    Deregister,
}

/// The stub's memory: instances by id. Each holds the lease `lease-<number>`.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) instances: BTreeMap<String, proto::Instance>,
    pub(super) registrations: u32,
    pub(super) refuse: Option<Status>,
    /// It sends agents to other replicas.
    pub(super) elsewhere: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Stub {
    memory: Arc<Mutex<Memory>>,
    heard: mpsc::UnboundedSender<Heard>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Stub {
    fn hear(&self, heard: Heard) {
        // A test that has seen enough listens no more.
        drop(self.heard.send(heard));
    }

    pub(super) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test panics while it holds the lock")
    }

    fn lease(id: String) -> proto::Lease {
        let (ttl, interval) = (crate::duration(Duration::from_secs(30)), crate::duration(INTERVAL));
        proto::Lease { id, ttl: Some(ttl), heartbeat_interval: Some(interval) }
    }

    fn answer(&self, request: proto::HeartbeatRequest) -> proto::HeartbeatResponse {
        let status = |heartbeat: proto::LeaseHeartbeat| {
            let known = self.memory().instances.values().any(|instance| instance.lease == heartbeat.lease);
            let outcome = if known { LeaseOutcome::Kept } else { LeaseOutcome::RegisterAgain };
            let lease = Some(Self::lease(heartbeat.lease.clone()));
            self.hear(Heard::Heartbeat(heartbeat));
            proto::LeaseStatus { outcome: outcome.into(), lease, elsewhere: self.memory().elsewhere }
        };
        proto::HeartbeatResponse { leases: request.leases.into_iter().map(status).collect() }
    }
}

#[tonic::async_trait]
impl Registry for Stub {
    type StreamHeartbeatsStream = ReceiverStream<Result<proto::HeartbeatResponse, Status>>;
    type WatchStream = ReceiverStream<Result<proto::WatchEvent, Status>>;

    async fn register(&self, request: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        let request = request.into_inner();
        self.hear(Heard::Register(request.clone()));
        let mut memory = self.memory();
        if let Some(status) = &memory.refuse {
            return Err(status.clone());
        }
        memory.registrations += 1;
        let lease = format!("lease-{}", memory.registrations);
        for registration in request.instances {
            let (id, lease) = (registration.id, lease.clone());
            memory.instances.insert(id.clone(), proto::Instance { id, lease, ..Default::default() });
        }
        let (digest, revision) = (format!("digest-{}", memory.registrations), memory.registrations as u64);
        let lease = Some(Self::lease(lease));
        Ok(Response::new(proto::RegisterResponse { lease, digest, revision, ..Default::default() }))
    }

    async fn heartbeat(&self, request: Request<proto::HeartbeatRequest>) -> Answer<proto::HeartbeatResponse> {
        Ok(Response::new(self.answer(request.into_inner())))
    }

    async fn stream_heartbeats(
        &self,
        request: Request<Streaming<proto::HeartbeatRequest>>,
    ) -> Answer<Self::StreamHeartbeatsStream> {
        let (stub, mut requests) = (self.clone(), request.into_inner());
        let (answers, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let loads = request.leases.iter().filter_map(|heartbeat| heartbeat.load.as_ref()?.cpu);
                let refused = loads.into_iter().any(|cpu| cpu < 0.0);
                let answer = if refused { Err(Status::invalid_argument("cpu < 0")) } else { Ok(stub.answer(request)) };
                if answers.send(answer).await.is_err() || refused {
                    break;
                }
            }
            stub.hear(Heard::HeartbeatsEnded);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn deregister(&self, request: Request<proto::DeregisterRequest>) -> Answer<proto::DeregisterResponse> {
        self.hear(Heard::Deregister);
        match self.memory().instances.remove(&request.into_inner().id) {
            Some(_) => Ok(Response::new(proto::DeregisterResponse::default())),
            None => Err(Status::not_found("no such instance")),
        }
    }

    async fn drain(&self, _: Request<proto::DrainRequest>) -> Answer<proto::DrainResponse> {
        self.hear(Heard::Drain);
        let drain_time = Some(crate::duration(Duration::from_secs(15)));
        Ok(Response::new(proto::DrainResponse { drain_time, ..Default::default() }))
    }

    async fn set_override(&self, _: Request<proto::SetOverrideRequest>) -> Answer<proto::SetOverrideResponse> {
        Err(Status::unimplemented("no agent asks for it"))
    }

    async fn get_instance(&self, request: Request<proto::GetInstanceRequest>) -> Answer<proto::Instance> {
        let found = self.memory().instances.get(&request.into_inner().id).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found("no such instance"))
    }

    async fn list_instances(&self, _: Request<proto::ListInstancesRequest>) -> Answer<proto::ListInstancesResponse> {
        Err(Status::unimplemented("not heard by any test"))
    }

    async fn get_service(&self, _: Request<proto::GetServiceRequest>) -> Answer<proto::Service> {
        Err(Status::unimplemented("not heard by any test"))
    }

    async fn list_services(&self, _: Request<proto::ListServicesRequest>) -> Answer<proto::ListServicesResponse> {
        Err(Status::unimplemented("not heard by any test"))
    }

    async fn put_service(&self, _: Request<proto::PutServiceRequest>) -> Answer<proto::PutServiceResponse> {
        Err(Status::unimplemented("not heard by any test"))
    }

    async fn delete_service(&self, _: Request<proto::DeleteServiceRequest>) -> Answer<proto::DeleteServiceResponse> {
        Err(Status::unimplemented("not heard by any test"))
    }

    /// Two events, then the stream breaks; one that is resumed goes on with the third.
    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let (events, receiver) = mpsc::channel(3);
        let first: u64 = request.into_inner().resume.parse().unwrap_or(0);
        for revision in first + 1..=first + 2 {
            let event = proto::WatchEvent { revision, token: revision.to_string(), ..Default::default() };
            drop(events.try_send(Ok(event)));
        }
        drop(events.try_send(Err(Status::unavailable("the server stops"))));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A stub that serves. It has a runtime of its own, so that `stop` ends it as a crash would: connections and all.
pub(super) struct Serving {
    runtime: Option<Runtime>,
    pub(super) address: SocketAddr,
    pub(super) stub: Stub,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Serving {
    pub(super) fn start() -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let stub = Stub { memory: Arc::default(), heard: sender };
        let mut serving = Self { runtime: None, address: ([127, 0, 0, 1], 0).into(), stub, heard };
        serving.serve();
        serving
    }

    /// Serves, on the same port as before.
    pub(super) fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (bound, address) = std::sync::mpsc::channel();
        let (stub, wanted) = (self.stub.clone(), self.address);
        runtime.spawn(async move {
            let listener = TcpListener::bind(wanted).await.expect("the port is free");
            bound.send(listener.local_addr().expect("a bound listener has an address")).expect("the test waits");
            let server = Server::builder().add_service(RegistryServer::new(stub));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        self.address = address.recv().expect("it listens");
        self.runtime = Some(runtime);
    }

    pub(super) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits until every socket is closed, the port free; a thread, since a test may not block on a runtime.
            std::thread::spawn(move || drop(runtime)).join().expect("the runtime ends");
        }
    }

    /// An agent with the id `reviews-1` and the incarnation 7.
    pub(super) async fn agent(&self) -> Result<Agent, Error> {
        agent_of(&self.address.to_string()).await
    }

    /// Waits for something that the stub hears, and passes over the rest.
    pub(super) async fn hears<T>(&mut self, wanted: impl Fn(Heard) -> Option<T>) -> T {
        let hears = async {
            loop {
                let heard = self.heard.recv().await.expect("the stub has the other end");
                if let Some(found) = wanted(heard) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hears).await.expect("heard in time")
    }
}

/// The same, of these servers.
pub(super) async fn agent_of(servers: &str) -> Result<Agent, Error> {
    let agent = Agent::builder(servers, "reviews").id("reviews-1").incarnation(7);
    agent.port("http", 8080, Protocol::Http).label("language", "python").start().await
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}
