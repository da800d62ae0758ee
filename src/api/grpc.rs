//! The gRPC shell: each call is the API's own. Health and reflection beside it.

use std::{net::IpAddr, pin::Pin};

use axum::{middleware::map_response, routing::post};
use bytes::Bytes;
use convoy_client::proto::{
    self,
    agent_cards_server::AgentCardsServer,
    backups_server::{Backups, BackupsServer},
    brakes_server::{Brakes, BrakesServer},
    explain_server::{Explain, ExplainServer},
    loads_server::{Loads, LoadsServer},
    proxies_server::{Proxies, ProxiesServer},
    queries_server::QueriesServer,
    registry_server::{Registry, RegistryServer},
    resources_server::ResourcesServer,
};
use futures_util::{Stream, StreamExt, stream::Empty};
use tokio::{runtime::Handle, sync::watch};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::http,
    server::{Grpc, ServerStreamingService},
    service::Routes,
};

use super::{
    Api,
    elsewhere::{Elsewhere, Place},
    error::Problem,
    stale,
    watch::{MessageStream, Messages},
};
use crate::peers;

/// Answered by a route of its own, which is found before that of the service.
const WATCH: &str = "/convoy.v1.Registry/Watch";

/// The shell. Streams end when Convoy stops.
#[derive(Clone, Debug)]
pub struct Shell {
    pub(super) api: Api,
    stopping: watch::Receiver<bool>,
}

/// The calls that are answered where they are read.
const REGISTER: &str = "/convoy.v1.Registry/Register";
const HEARTBEATS: [&str; 2] = ["/convoy.v1.Registry/Heartbeat", "/convoy.v1.Registry/StreamHeartbeats"];

/// All services of the API's port. All but heartbeats and small registrations are carried out by those threads.
pub async fn routes(api: Api, stopping: watch::Receiver<bool>, threads: Handle) -> anyhow::Result<Routes> {
    let limit = api.registry.limits().request_bytes;
    let registry = api.registry.clone();
    let shell = Shell { api, stopping };
    let watch = shell.clone();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RegistryServer<Shell>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut routes = Routes::default();
    if let Some(peers) = shell.api.peers.clone() {
        routes = routes.add_service(peers::server(peers, shell.api.survey.clone()));
    }
    let routes = routes
        .add_service(RegistryServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(ProxiesServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(QueriesServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(LoadsServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(BackupsServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(BrakesServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(ExplainServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(AgentCardsServer::new(shell.clone()).max_decoding_message_size(limit))
        .add_service(ResourcesServer::new(shell).max_decoding_message_size(limit))
        .add_service(health_service)
        .add_service(reflection);
    // A watch does by itself elsewhere what takes long.
    let place_of = |request: &axum::extract::Request| match request.uri().path() {
        REGISTER => Place::HereIfSmall,
        path if HEARTBEATS.contains(&path) || path == WATCH => Place::Here,
        _ => Place::Elsewhere,
    };
    let elsewhere = Elsewhere::new(threads.clone(), place_of);
    let watch = WatchCall { shell: watch, threads };
    let answer = move |request: axum::extract::Request| watch.clone().answer(request, limit);
    let router = routes.into_axum_router().route(WATCH, post(answer));
    let router = stale::marked(router.layer(map_response(refusal)), &registry);
    Ok(Routes::from(router.layer(elsewhere)))
}

/// The transport refuses by itself what it cannot read, before any call is made of it: the answer is the table's.
async fn refusal(response: axum::response::Response) -> axum::response::Response {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => typed(status).into_http(),
        _ => response,
    }
}

/// A status of the transport as the table says it; one of ours has details, and stays.
fn typed(status: Status) -> Status {
    let problem = match status.code() {
        Code::OutOfRange => Problem::new("too_large", status.message()),
        Code::Internal => Problem { field: "body".into(), ..Problem::new("invalid_argument", status.message()) },
        _ => return status,
    };
    if status.details().is_empty() { problem.into() } else { status }
}

fn peer<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|address| address.ip())
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Shell {
    /// Ends a stream when Convoy stops.
    fn until_stopped<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Events<T> {
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            // An error is the sender's end: Convoy has stopped.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        Box::pin(stream.take_until(Box::pin(stopped)))
    }
}

/// A watch, whose messages are bytes already.
#[derive(Clone, Debug)]
struct WatchCall {
    shell: Shell,
    threads: Handle,
}

impl WatchCall {
    async fn answer(self, request: axum::extract::Request, limit: usize) -> http::Response<Body> {
        Grpc::new(Messages).max_decoding_message_size(limit).server_streaming(self, request).await
    }

    async fn open(self, request: proto::WatchRequest) -> Result<Response<MessageStream>, Status> {
        let (api, threads) = (self.shell.api.clone(), self.threads.clone());
        let opening = self.threads.spawn(async move { api.watch(&request).await });
        let watching = opening.await.map_err(|_| Problem::new("unavailable", "the watch cannot be opened now"))??;
        Ok(Response::new(self.shell.until_stopped(watching.messages(threads).map(Ok))))
    }
}

impl ServerStreamingService<proto::WatchRequest> for WatchCall {
    type Response = Bytes;
    type ResponseStream = MessageStream;
    type Future = Pin<Box<dyn Future<Output = Result<Response<MessageStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<proto::WatchRequest>) -> Self::Future {
        Box::pin(self.clone().open(request.into_inner()))
    }
}

#[tonic::async_trait]
impl Registry for Shell {
    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let peer = peer(&request);
        Ok(Response::new(self.api.register(request.into_inner(), peer).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        Ok(Response::new(self.api.heartbeat(request.into_inner())?))
    }

    type StreamHeartbeatsStream = Events<proto::HeartbeatResponse>;

    async fn stream_heartbeats(
        &self,
        request: Request<Streaming<proto::HeartbeatRequest>>,
    ) -> Result<Response<Self::StreamHeartbeatsStream>, Status> {
        let api = self.api.clone();
        let answers = request.into_inner().map(move |request| Ok(api.heartbeat(request.map_err(typed)?)?));
        Ok(Response::new(self.until_stopped(answers)))
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        Ok(Response::new(self.api.deregister(request.into_inner()).await?))
    }

    async fn drain(&self, request: Request<proto::DrainRequest>) -> Result<Response<proto::DrainResponse>, Status> {
        Ok(Response::new(self.api.drain(request.into_inner()).await?))
    }

    async fn set_override(
        &self,
        request: Request<proto::SetOverrideRequest>,
    ) -> Result<Response<proto::SetOverrideResponse>, Status> {
        Ok(Response::new(self.api.set_override(request.into_inner()).await?))
    }

    async fn get_instance(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::Instance>, Status> {
        Ok(Response::new(self.api.get_instance(request.get_ref())?))
    }

    async fn list_instances(
        &self,
        request: Request<proto::ListInstancesRequest>,
    ) -> Result<Response<proto::ListInstancesResponse>, Status> {
        Ok(Response::new(self.api.list_instances(request.get_ref())?))
    }

    async fn get_service(
        &self,
        request: Request<proto::GetServiceRequest>,
    ) -> Result<Response<proto::Service>, Status> {
        Ok(Response::new(self.api.get_service(request.get_ref())?))
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        Ok(Response::new(self.api.list_services(request.get_ref())?))
    }

    async fn put_service(
        &self,
        request: Request<proto::PutServiceRequest>,
    ) -> Result<Response<proto::PutServiceResponse>, Status> {
        Ok(Response::new(self.api.put_service(request.into_inner()).await?))
    }

    async fn delete_service(
        &self,
        request: Request<proto::DeleteServiceRequest>,
    ) -> Result<Response<proto::DeleteServiceResponse>, Status> {
        Ok(Response::new(self.api.delete_service(request.into_inner()).await?))
    }

    type WatchStream = Empty<Result<proto::WatchEvent, Status>>;

    async fn watch(&self, _: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::internal("a watch has a route of its own, which is found first"))
    }
}

#[tonic::async_trait]
impl Loads for Shell {
    async fn get_service_load(
        &self,
        request: Request<proto::GetServiceLoadRequest>,
    ) -> Result<Response<proto::ServiceLoad>, Status> {
        Ok(Response::new(self.api.get_service_load(request.get_ref())?))
    }
}

#[tonic::async_trait]
impl Brakes for Shell {
    async fn list_brakes(
        &self,
        _: Request<proto::ListBrakesRequest>,
    ) -> Result<Response<proto::ListBrakesResponse>, Status> {
        Ok(Response::new(self.api.list_brakes()))
    }

    async fn release_brake(
        &self,
        request: Request<proto::ReleaseBrakeRequest>,
    ) -> Result<Response<proto::ReleaseBrakeResponse>, Status> {
        Ok(Response::new(self.api.release_brake(request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl Backups for Shell {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupChunk, Status>> + Send>>;

    async fn backup(&self, _: Request<proto::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Ok(Response::new(Box::pin(self.api.backup().await?.map(Ok))))
    }
}

#[tonic::async_trait]
impl Explain for Shell {
    async fn explain_instance(
        &self,
        request: Request<proto::ExplainInstanceRequest>,
    ) -> Result<Response<proto::Explanation>, Status> {
        Ok(Response::new(self.api.explain_instance(request.get_ref()).await?))
    }
}

#[tonic::async_trait]
impl Proxies for Shell {
    async fn list_proxies(
        &self,
        request: Request<proto::ListProxiesRequest>,
    ) -> Result<Response<proto::ListProxiesResponse>, Status> {
        Ok(Response::new(self.api.list_proxies(request.get_ref()).await?))
    }

    async fn get_proxy(
        &self,
        request: Request<proto::GetProxyRequest>,
    ) -> Result<Response<proto::GetProxyResponse>, Status> {
        Ok(Response::new(self.api.get_proxy(request.get_ref()).await?))
    }

    async fn retry_proxy(
        &self,
        request: Request<proto::RetryProxyRequest>,
    ) -> Result<Response<proto::RetryProxyResponse>, Status> {
        Ok(Response::new(self.api.retry_proxy(request.get_ref()).await?))
    }

    async fn get_proxy_config(
        &self,
        request: Request<proto::GetProxyConfigRequest>,
    ) -> Result<Response<proto::GetProxyConfigResponse>, Status> {
        Ok(Response::new(self.api.get_proxy_config(request.get_ref()).await?))
    }

    async fn get_convergence(
        &self,
        request: Request<proto::GetConvergenceRequest>,
    ) -> Result<Response<proto::Convergence>, Status> {
        Ok(Response::new(self.api.get_convergence(request.get_ref()).await?))
    }

    async fn wait_for_convergence(
        &self,
        request: Request<proto::WaitForConvergenceRequest>,
    ) -> Result<Response<proto::Convergence>, Status> {
        Ok(Response::new(self.api.wait_for_convergence(request.get_ref()).await?))
    }
}
