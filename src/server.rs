//! The composition root: opens the store, starts the tasks and the listeners, reports where they are, and stops them in
//! order. `stop` lets streams end and calls finish, for a bounded time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, ServiceExt, serve::ListenerExt};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder as RuntimeBuilder, Handle, Runtime},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tonic::{
    service::Routes,
    transport::{
        Server as GrpcServer,
        server::{Connected, TcpIncoming},
    },
};

use crate::{
    api::{self, Api, elsewhere::Sorted, starting::Starting},
    checks,
    config::{Config, StorageKind},
    load,
    model::{Replica, ReplicaId, UnixMillis},
    one_buffer::OneBuffer,
    peers::Peers,
    registry::{Registry, Settings, query::Queries},
    storage::{Opened, Storage, etcd::EtcdStore, memory::MemoryStore, redb::RedbStore},
    telemetry::Metrics,
    xds::{
        admission::Admission,
        cache::Cache,
        convergence::Survey,
        csds, fanout, health,
        lrs::{self, LoadReports},
        protocol::Readiness,
        reflection,
        server::router,
        status::Proxies,
        stream::Shared,
    },
};

/// Thousands of clients that connect at once wait here, and not for a second's retransmission.
const LISTEN_BACKLOG: u32 = 4096;
/// A peer that is gone without a word is noticed after these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// When the process is out of files, accepting fails at once and again: it pauses, and does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// How long calls may take to finish when Convoy stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A task that ends with whoever waits for it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Future for AbortOnDrop {
    type Output = Result<(), tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Threads of their own. Those that write to proxies (`xds`) are apart from those of the registry, so that a change for
/// everybody keeps no heartbeat and no timer waiting; and the one that reads what agents say (`intake`) is apart from all
/// that queries, watches and writes do, so that nothing keeps it from heartbeats. The registry's state is changed by one
/// (`registry`), and probes have one as well (`checks`).
#[derive(Debug)]
struct Threads {
    handle: Handle,
    /// Ends with it.
    _runtime: Held,
}

#[derive(Debug)]
enum Held {
    Many(Option<Runtime>),
    One(#[expect(dead_code, reason = "its drop is what counts")] oneshot::Sender<()>),
}

impl Threads {
    /// As many as there are cores.
    fn many(name: &str) -> anyhow::Result<Self> {
        let runtime = RuntimeBuilder::new_multi_thread().thread_name(name).enable_all().build();
        let runtime = runtime.with_context(|| format!("the threads for {name} cannot be started"))?;
        Ok(Self { handle: runtime.handle().clone(), _runtime: Held::Many(Some(runtime)) })
    }

    /// One thread, which polls what it was woken for itself: nothing is handed from one worker to another.
    fn one(name: &str) -> anyhow::Result<Self> {
        let runtime = RuntimeBuilder::new_current_thread().thread_name(name).enable_all().build();
        let runtime = runtime.with_context(|| format!("the thread for {name} cannot be started"))?;
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel());
        let run = move || {
            // It ends when its sender is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { handle, _runtime: Held::One(end) })
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Listens, so that these threads serve who connects.
    fn listen(&self, setting: &str, socket: TcpSocket) -> anyhow::Result<TcpListener> {
        let _on = self.handle.enter();
        socket.listen(LISTEN_BACKLOG).with_context(|| format!("{setting}: nobody can listen there"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed here.
        if let Self::Many(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

/// A running Convoy. Dropping it without `stop` ends its listeners, the registry and the fan-out at once.
#[derive(Debug)]
pub struct Server {
    http: SocketAddr,
    grpc: SocketAddr,
    xds: SocketAddr,
    stopping: watch::Sender<bool>,
    /// The registry and the fan-out: they serve the streams until the last one has ended.
    core: JoinSet<anyhow::Result<()>>,
    servers: JoinSet<anyhow::Result<()>>,
    registry: Registry,
    /// Ends the registry, and tells when it has.
    end: (oneshot::Sender<()>, oneshot::Receiver<()>),
    storage: Arc<dyn Storage>,
    fanout: Threads,
    /// Where the checks run, and nothing else.
    _checks: Threads,
    /// Where the registry's state is changed.
    _writing: Threads,
    intake: Threads,
}

/// A Convoy that has yet to read its store. Its HTTP port is open, to say so; the others are closed, so that who asks
/// there tries again, or elsewhere.
#[derive(Debug)]
pub struct Beginning {
    config: Config,
    intake: Threads,
    http: SocketAddr,
    /// Bound, so that their ports are theirs; nobody listens yet.
    grpc: TcpSocket,
    xds: TcpSocket,
    app: Starting<Sorted<Router>>,
    stopping: watch::Sender<bool>,
    servers: JoinSet<anyhow::Result<()>>,
}

impl Beginning {
    /// Opens the HTTP port.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let intake = Threads::one("intake")?;
        let [http, grpc, xds] = [
            ("http_address", config.http_address),
            ("grpc_address", config.grpc_address),
            ("xds_address", config.xds_address),
        ]
        .map(|(setting, address)| bind(setting, address));
        let (listener, grpc, xds) = (intake.listen("http_address", http?)?, grpc?, xds?);
        let (http, app, (stopping, stopped)) = (listener.local_addr()?, Starting::default(), watch::channel(false));
        let (mut servers, serving) = (JoinSet::new(), app.clone().into_make_service_with_connect_info::<SocketAddr>());
        let serving = async move {
            let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
            let until = wait_for_stop(stopped);
            axum::serve(listener, serving).with_graceful_shutdown(until).await.context("the HTTP server has failed")
        };
        servers.spawn_on(serving, intake.handle());
        Ok(Self { config, intake, http, grpc, xds, app, stopping, servers })
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    pub fn grpc_address(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    pub fn xds_address(&self) -> io::Result<SocketAddr> {
        self.xds.local_addr()
    }

    /// Starts everything else, when the store is open.
    pub async fn start(
        self,
        store: impl Future<Output = anyhow::Result<(Arc<dyn Storage>, Opened)>>,
    ) -> anyhow::Result<Server> {
        let (storage, opened) = store.await?;
        Server::start_on(self, storage, opened).await
    }
}

impl Server {
    /// Starts everything; when it returns, all ports are open.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let beginning = Beginning::new(config)?;
        let store = open(beginning.config.clone(), beginning.grpc_address()?);
        beginning.start(store).await
    }

    async fn start_on(beginning: Beginning, storage: Arc<dyn Storage>, opened: Opened) -> anyhow::Result<Self> {
        let Beginning { config, intake, http, grpc, xds, app, stopping, servers } = beginning;
        let stopped = stopping.subscribe();
        let metrics = Arc::new(Metrics::default());
        let fanout = Threads::many("xds")?;
        let writing = Threads::one("registry")?;
        let grpc = intake.listen("grpc_address", grpc)?;
        let xds = fanout.listen("xds_address", xds)?;
        let mut core = JoinSet::new();

        let settings = Settings { limits: config.limits.clone(), brake: config.brake.clone() };
        let threads = [intake.handle(), writing.handle()];
        let (registry, running) = Registry::start_beside(threads, storage.clone(), opened, settings, metrics.clone());
        let mut registry_task = AbortOnDrop(running);
        let ((end, asked), (ended, has_ended)) = (oneshot::channel(), oneshot::channel::<()>());
        core.spawn(async move {
            let _ended = ended;
            tokio::select! {
                outcome = &mut registry_task => {
                    outcome.context("the registry has failed")?;
                    anyhow::bail!("the registry has ended: its store is lost, or another one than when it was opened")
                }
                Ok(()) = asked => {
                    registry_task.0.abort();
                    // It was aborted.
                    let _ = registry_task.await;
                    Ok(())
                }
            }
        });

        let probing = Threads::one("checks")?;
        let checks = checks::run(registry.clone(), config.checks.clone(), metrics.clone());
        core.spawn_on(forever(checks), probing.handle());

        let settled = registry.had_state() || config.settle.is_zero();
        let readiness = if settled { Readiness::Ready } else { Readiness::Unknown };
        let cache = Arc::new(Cache::new(registry.clone(), readiness));
        core.spawn_on(forever(fanout::run(cache.clone())), fanout.handle());
        if !settled {
            let settle = fanout::settle(cache.clone(), config.settle);
            let store = storage.clone();
            let settling = async move {
                settle.await;
                store.settled().await;
            };
            let settling = finite(settling, stopped.clone());
            core.spawn_on(settling, fanout.handle());
        }

        let proxies = Arc::new(Proxies::default());
        core.spawn(forever(load::run(registry.clone())));
        let survey = Survey::new(cache.clone(), proxies.clone(), stopped.clone());
        let queries = Queries::new(registry.clone());
        core.spawn(forever(queries.clone().maintain()));
        let loads = Arc::new(LoadReports::default());
        let peers = (registry.replica() != ReplicaId::ONLY).then(|| Peers::new(registry.clone()));
        if let Some(peers) = peers.clone() {
            core.spawn(forever(peers.run()));
        }
        let api = Api { registry: registry.clone(), queries, survey, metrics: metrics.clone(), loads, peers };
        let admission = Admission::new(config.cold_starts, config.max_stream_age);
        let server = Self {
            http,
            grpc: grpc.local_addr()?,
            xds: xds.local_addr()?,
            stopping,
            core,
            servers,
            registry,
            end: (end, has_ended),
            storage,
            fanout,
            _checks: probing,
            _writing: writing,
            intake,
        };
        let shared = Shared::new(cache, proxies, metrics, admission, stopped);
        server.serve(api, shared, app, [grpc, xds]).await
    }

    async fn serve(
        mut self,
        api: Api,
        xds: Shared,
        app: Starting<Sorted<Router>>,
        [grpc, xds_listener]: [TcpListener; 2],
    ) -> anyhow::Result<Self> {
        let (stopped, survey) = (xds.stopping.clone(), api.survey.clone());
        let lrs = lrs::service(api.loads.clone(), stopped.clone());
        // All calls but heartbeats and small registrations are carried out here, and not by the intake.
        let threads = Handle::current();
        app.go_on_with(api::http::service(api.clone(), stopped.clone(), threads.clone()));
        let routes = api::grpc::routes(api, stopped.clone(), threads).await?;
        let until = wait_for_stop(stopped.clone());
        let serving = async move {
            serve_grpc(routes, incoming(grpc).map_ok(OneBuffer), until).await.context("the gRPC server has failed")
        };
        self.servers.spawn_on(serving, self.intake.handle());
        let (cache, stop) = (xds.cache.clone(), stopped.clone());
        self.core.spawn(async move {
            wait_for_stop(stop).await;
            cache.wake_all();
            Ok(())
        });
        let (health, farewell) = health::service(stopped.clone()).await;
        self.core.spawn(async move {
            farewell.await;
            Ok(())
        });
        let routes = Routes::from(router(xds)).add_service(csds::service(survey)).add_service(lrs).add_service(health);
        let routes = reflection::add_to(routes)?;
        let until = wait_for_stop(stopped);
        let serving =
            async move { serve_grpc(routes, incoming(xds_listener), until).await.context("the xDS server has failed") };
        self.servers.spawn_on(serving, self.fanout.handle());
        tracing::info!(http = %self.http, grpc = %self.grpc, xds = %self.xds, "Convoy is serving");
        Ok(self)
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    pub fn xds_address(&self) -> SocketAddr {
        self.xds
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Waits for a part to fail; with a healthy Convoy, for ever.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.core.join_next() => ended,
                Some(ended) = self.servers.join_next() => ended,
                else => return anyhow::anyhow!("all tasks have ended"),
            };
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(error) => return anyhow::Error::from(error).context("a task has failed"),
            }
        }
    }

    /// Stops taking work, lets what is under way finish, and ends.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let servers = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, servers).await.is_err() {
            tracing::warn!("some calls did not finish in time");
        }
        self.servers.shutdown().await;
        let (end, ended) = self.end;
        // Until then it may write, and it holds the store. It may have ended by itself.
        let _ = end.send(());
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("the registry did not end in time");
        }
        self.core.shutdown().await;
        self.storage.close().await;
    }
}

/// Opens the store. Others are told that the gRPC API is there.
async fn open(config: Config, grpc: SocketAddr) -> anyhow::Result<(Arc<dyn Storage>, Opened)> {
    let new_store_id = uuid::Uuid::new_v4().simple().to_string();
    match config.storage {
        StorageKind::Memory => {
            let (store, opened) = MemoryStore::open(new_store_id);
            Ok((Arc::new(store), opened))
        }
        StorageKind::Redb => {
            // It reads from the disk all that there is.
            let opening = move || RedbStore::open(&config.data_dir, &new_store_id);
            let (store, opened) = tokio::task::spawn_blocking(opening).await??;
            tracing::info!(records = opened.records.len(), revision = %opened.revision, "the store is open");
            Ok((Arc::new(store), opened))
        }
        StorageKind::Etcd => {
            let name = hostname().into();
            let replica = Replica { name, address: config.etcd.advertised(grpc)?, since: UnixMillis::now() };
            let (store, opened) = EtcdStore::open(&config.etcd, &new_store_id, &replica).await?;
            let (id, address) = (opened.replica, replica.address);
            tracing::info!(records = opened.records.len(), revision = %opened.revision, replica = %id, %address, "etcd is open");
            Ok((Arc::new(store), opened))
        }
    }
}

/// As the kernel knows it; for people.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    bound.with_context(|| format!("{setting}: cannot listen on {address}"))
}

async fn wait_for_stop(mut stopping: watch::Receiver<bool>) {
    // An error is the sender's end, which is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn forever(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    anyhow::bail!("a task that never ends has ended")
}

async fn finite(task: impl Future<Output = ()>, stopping: watch::Receiver<bool>) -> anyhow::Result<()> {
    tokio::select! {
        () = task => {}
        () = wait_for_stop(stopping) => {}
    }
    Ok(())
}

fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    TcpIncoming::from(listener).with_nodelay(Some(true)).then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    })
}

async fn serve_grpc<T: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    routes: Routes,
    incoming: impl Stream<Item = io::Result<T>>,
    until: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    GrpcServer::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, until)
        .await
}
