//! A thin typed client of the gRPC API: one connection, made when first needed and again when lost; a deadline on
//! every call; errors as `Error`.

use std::{future::Future, pin::Pin, time::Duration};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{
    Error,
    proto::{
        self, agent_cards_client::AgentCardsClient, backups_client::BackupsClient, brakes_client::BrakesClient,
        explain_client::ExplainClient, loads_client::LoadsClient, proxies_client::ProxiesClient,
        queries_client::QueriesClient, registry_client::RegistryClient, resources_client::ResourcesClient,
    },
    servers::{Servers, Turn},
    watch::Watch,
};

/// How long a call may take, unless set otherwise.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the server waits for convergence if it is not told.
const DEFAULT_WAIT: prost_types::Duration = prost_types::Duration { seconds: 30, nanos: 0 };
/// A list of 10 000 instances with 32 KiB of metadata each does not fit in gRPC's usual 4 MiB.
const LARGEST_ANSWER: usize = 512 * 1024 * 1024;

/// A connection to Convoy's gRPC API, or to one of several replicas. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    servers: Servers,
    deadline: Duration,
}

/// A call of the API, under the deadline, at the server that answers.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $answer:ident of $service:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, request: proto::$request) -> Result<proto::$answer, Error> {
            // A call's future is large, and would be in that of each of its callers.
            self.call(request, |channel, request| Box::pin(async move { $service(channel).$name(request).await })).await
        }
    )*};
}

/// The stubs of the services, for large answers.
macro_rules! stubs {
    ($($name:ident of $stub:ident;)*) => {$(
        fn $name(channel: Channel) -> $stub<Channel> {
            $stub::new(channel).max_decoding_message_size(LARGEST_ANSWER)
        }
    )*};
}

stubs! {
    registry of RegistryClient;
    explain of ExplainClient;
    brakes of BrakesClient;
    loads of LoadsClient;
    cards of AgentCardsClient;
    queries of QueriesClient;
    proxies of ProxiesClient;
    resources of ResourcesClient;
    backups of BackupsClient;
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A backup on its way.
#[derive(Debug)]
pub struct Backup {
    chunks: Streaming<proto::BackupChunk>,
    deadline: Duration,
}

impl Backup {
    /// The next piece; none when the server has sent all. Whether that is all there was, the file says.
    ///
    /// # Errors
    /// As every call.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match tokio::time::timeout(self.deadline, self.chunks.message()).await {
            Ok(chunk) => Ok(chunk?.map(|chunk| chunk.data)),
            Err(_) => Err(Error::Deadline(self.deadline)),
        }
    }
}

impl Client {
    /// A client of the server at `address`, such as `http://127.0.0.1:7071` (`http://` may be left out); of several
    /// replicas, with commas between them. It connects with the first call, so a server that is away is an error of that
    /// call; of several, each is tried once before. To be called inside a Tokio runtime.
    ///
    /// # Errors
    /// `Error::Address` if the address is not an `http` URI.
    pub fn new(address: &str) -> Result<Self, Error> {
        Ok(Self { servers: Servers::new(address)?, deadline: DEADLINE })
    }

    /// Goes on with the next replica, if there are several.
    pub(crate) fn go_elsewhere(&self) {
        let (_, turn) = self.servers.present();
        self.servers.leave(turn);
    }

    /// Sets how long each call may take; 5 s when not set. A watch has no end: for it the deadline is that of its
    /// beginning.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    calls! {
        /// Registers 1 to 50 instances under one lease, or changes them; all or none.
        register(RegisterRequest) -> RegisterResponse of registry;
        /// Renews up to 1 000 leases.
        heartbeat(HeartbeatRequest) -> HeartbeatResponse of registry;
        /// Removes an instance at once.
        deregister(DeregisterRequest) -> DeregisterResponse of registry;
        /// One instance.
        get_instance(GetInstanceRequest) -> Instance of registry;
        /// The instances of a service, by id.
        list_instances(ListInstancesRequest) -> ListInstancesResponse of registry;
        /// One service.
        get_service(GetServiceRequest) -> Service of registry;
        /// The services of a namespace, or of all, by name.
        list_services(ListServicesRequest) -> ListServicesResponse of registry;
        /// Makes a service before its first instance, or changes it.
        put_service(PutServiceRequest) -> PutServiceResponse of registry;
        /// Removes a service that has no instances.
        delete_service(DeleteServiceRequest) -> DeleteServiceResponse of registry;
        /// The xDS clients connected, and those that have just left.
        list_proxies(ListProxiesRequest) -> ListProxiesResponse of proxies;
        /// All streams of one node id.
        get_proxy(GetProxyRequest) -> GetProxyResponse of proxies;
        /// Why an instance is, or is not, in a proxy's endpoints.
        explain_instance(ExplainInstanceRequest) -> Explanation of explain;
        /// Instances of all services that match a condition, or fit words.
        query(QueryRequest) -> QueryResponse of queries;
        /// How much proxies send to a service and to each of its instances.
        get_service_load(GetServiceLoadRequest) -> ServiceLoad of loads;
        /// What is being braked now.
        list_brakes(ListBrakesRequest) -> ListBrakesResponse of brakes;
        /// Ends the brake.
        release_brake(ReleaseBrakeRequest) -> ReleaseBrakeResponse of brakes;
        /// The A2A card of an agent that takes requests now.
        get_agent_card(GetAgentCardRequest) -> AgentCard of cards;
        /// The A2A cards of those that take requests now, a page of them.
        list_agent_cards(ListAgentCardsRequest) -> ListAgentCardsResponse of cards;
        /// Sends a proxy once more what it refused.
        retry_proxy(RetryProxyRequest) -> RetryProxyResponse of proxies;
        /// What a proxy has of each resource, as far as Convoy knows.
        get_proxy_config(GetProxyConfigRequest) -> GetProxyConfigResponse of proxies;
        /// Who has everything up to a revision.
        get_convergence(GetConvergenceRequest) -> Convergence of proxies;
        /// Puts an xDS resource in place of a generated one of its name, or beside them.
        put_resource(PutResourceRequest) -> Resource of resources;
        /// One resource that was put, with its body.
        get_resource(GetResourceRequest) -> Resource of resources;
        /// The resources that were put, without their bodies.
        list_resources(ListResourcesRequest) -> ListResourcesResponse of resources;
        /// Removes a resource that was put: a generated one of its name stands again.
        delete_resource(DeleteResourceRequest) -> DeleteResourceResponse of resources;
    }

    /// Takes an instance out of traffic, and removes it after its drain time. It does not wait for that; see
    /// [`Client::wait_until_gone`]. With `wait` in the request the answer waits until no proxy picks the instance any
    /// more, for so long beyond the client's deadline.
    ///
    /// # Errors
    /// As every call.
    pub async fn drain(&self, request: proto::DrainRequest) -> Result<proto::DrainResponse, Error> {
        let patient = self.patient(request.wait.unwrap_or_default());
        patient.call(request, |channel, request| Box::pin(async { registry(channel).drain(request).await })).await
    }

    /// Puts an operator's word over an instance's health, or takes it back.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_override(&self, request: proto::SetOverrideRequest) -> Result<proto::SetOverrideResponse, Error> {
        self.call(request, |channel, request| Box::pin(async { registry(channel).set_override(request).await })).await
    }

    /// Who has everything up to a revision, when all have it or the request's time is over, which may be so long beyond
    /// the client's deadline.
    ///
    /// # Errors
    /// As every call.
    pub async fn wait_for_convergence(
        &self,
        request: proto::WaitForConvergenceRequest,
    ) -> Result<proto::Convergence, Error> {
        let patient = self.patient(request.timeout.unwrap_or(DEFAULT_WAIT));
        let wait = |channel, request| -> Answer<_> {
            Box::pin(async { proxies(channel).wait_for_convergence(request).await })
        };
        patient.call(request, wait).await
    }

    /// A client for a call that waits so long at the server.
    fn patient(&self, wait: prost_types::Duration) -> Self {
        // The server refuses what is no time to wait, at once.
        let wait = Duration::try_from(wait).unwrap_or_default();
        self.clone().with_deadline(self.deadline.saturating_add(wait))
    }

    /// A backup of all that there is, in pieces of one file. The deadline is that of its beginning, and of each piece.
    ///
    /// # Errors
    /// As every call.
    pub async fn backup(&self, request: proto::BackupRequest) -> Result<Backup, Error> {
        let begin = |channel, request: Request<_>| -> Answer<_> {
            Box::pin(async { backups(channel).backup(Request::new(request.into_inner())).await })
        };
        // Its deadline is that of its beginning.
        let chunks = self.call(request, begin).await?;
        Ok(Backup { chunks, deadline: self.deadline })
    }

    /// What there is, then every change, for ever: the watch goes on by itself when the stream breaks.
    pub fn watch(&self, request: proto::WatchRequest) -> Watch {
        Watch::new(self.clone(), request)
    }

    /// One stream of a watch.
    pub(crate) async fn open_watch(&self, request: proto::WatchRequest) -> Result<Streaming<proto::WatchEvent>, Error> {
        let (channel, turn) = self.servers.present();
        let opened = self.within_deadline(Box::pin(async { registry(channel).watch(request).await })).await;
        self.look_at(turn, opened)
    }

    /// A stream of heartbeats: what comes out of `requests` is sent, and each is answered in order.
    pub(crate) async fn open_heartbeats(
        &self,
        requests: ReceiverStream<proto::HeartbeatRequest>,
    ) -> Result<Streaming<proto::HeartbeatResponse>, Error> {
        let (channel, turn) = self.servers.present();
        let opened =
            self.within_deadline(Box::pin(async { registry(channel).stream_heartbeats(requests).await })).await;
        self.look_at(turn, opened)
    }

    /// How long each call may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Calls the present server; each of the others when that is away. Every call may be repeated.
    async fn call<Q: Clone, A>(&self, message: Q, call: impl Fn(Channel, Request<Q>) -> Answer<A>) -> Result<A, Error> {
        let mut left = self.servers.count();
        loop {
            let (channel, turn) = self.servers.present();
            let outcome = self.within_deadline(call(channel, self.timed(message.clone()))).await;
            left -= 1;
            match self.look_at(turn, outcome) {
                Err(error) if error.is_temporary() && left > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// Leaves a server that is away.
    fn look_at<A>(&self, turn: Turn, outcome: Result<A, Error>) -> Result<A, Error> {
        outcome.inspect_err(|error| {
            if error.is_temporary() {
                self.servers.leave(turn);
            }
        })
    }

    /// Tells the server the deadline too, so that it does not work for nobody.
    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn within_deadline<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Error::Deadline(self.deadline)),
        }
    }
}

/// A duration as the API has it. What is too long for it is beyond the API's limits too: the server says so.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}
