//! A minimal xDS client: it says what the test tells it to, and hears one response after the other.

use std::net::SocketAddr;

pub use convoy::translate::ResourceType;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{HealthStatus, Node, address::Address, socket_address::PortSpecifier},
            endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        },
    },
    google::{protobuf::Any, rpc::Status as RpcStatus},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::within;

pub const CLUSTER: ResourceType = ResourceType::Cluster;
pub const ENDPOINT: ResourceType = ResourceType::Endpoint;
pub const LISTENER: ResourceType = ResourceType::Listener;
pub const ROUTE: ResourceType = ResourceType::Route;

/// What differs between state of the world and incremental.
pub trait Dialect {
    type Request: Message + Default + Send + Sync + 'static;
    type Response: Message + Default + Send + Sync + 'static;
    const AGGREGATED: &'static str;
}

#[derive(Debug)]
pub struct StateOfTheWorld;
#[derive(Debug)]
pub struct Incremental;

impl Dialect for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const AGGREGATED: &'static str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
}

impl Dialect for Incremental {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const AGGREGATED: &'static str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
}

#[derive(Debug)]
pub struct Stream<D: Dialect> {
    requests: mpsc::Sender<D::Request>,
    responses: Streaming<D::Response>,
}

impl<D: Dialect> Stream<D> {
    /// Opens the stream at a path.
    pub async fn open(address: SocketAddr, path: &'static str) -> Self {
        Self::open_on(connect(address).await, path).await
    }

    pub async fn open_on(channel: Channel, path: &'static str) -> Self {
        within("a stream", Self::try_open_on(channel, path)).await.expect("a stream")
    }

    /// The stream, or why there is none.
    pub async fn try_open_on(channel: Channel, path: &'static str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = tonic::Request::new(ReceiverStream::new(receiver));
        let codec: ProstCodec<D::Request, D::Response> = ProstCodec::default();
        let opened = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?;
        Ok(Self { requests, responses: opened.into_inner() })
    }

    pub async fn say(&self, request: D::Request) {
        within("room for a request", self.requests.send(request)).await.expect("the stream is open");
    }

    /// Says something to a stream that may have ended; what is lost then, its next message tells.
    #[allow(dead_code, reason = "for the tests of storms")]
    pub async fn tell(&self, request: D::Request) {
        let _ = self.requests.send(request).await;
    }

    pub async fn next(&mut self) -> D::Response {
        within("a response", self.responses.message()).await.expect("no error").expect("the stream goes on")
    }

    /// The next response, or the stream's end.
    pub async fn message(&mut self) -> Result<Option<D::Response>, Status> {
        self.responses.message().await
    }

    /// Says something and takes the next response.
    pub async fn ask(&mut self, request: D::Request) -> D::Response {
        self.say(request).await;
        self.next().await
    }

    /// Waits for the error that ends the stream, whatever comes before.
    pub async fn end(&mut self) -> Status {
        within("the stream's end", async {
            loop {
                match self.responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream has ended without an error"),
                    Err(status) => return status,
                }
            }
        })
        .await
    }
}

pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    within("a connection", endpoint.connect()).await.expect("a connection")
}

pub fn node() -> Option<Node> {
    Some(Node { id: "tester".into(), cluster: "tests".into(), ..Default::default() })
}

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Stream<Incremental> {
    /// A change of the subscription.
    pub fn change(kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node: node(),
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            ..Default::default()
        }
    }

    pub fn subscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
        Self::change(kind, names, &[])
    }

    pub async fn ack(&self, response: &DeltaDiscoveryResponse) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.say(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }).await;
    }

    /// Makes sure that nothing else is on its way: the next response is the answer to this very question.
    pub async fn nothing_before(&mut self, probe: &str) {
        let answer = self.ask(Self::subscribe(ENDPOINT, &[probe])).await;
        let said = (answer.type_url.as_str(), answer.resources.len(), answer.removed_resources.as_slice());
        assert_eq!(said, (ENDPOINT.type_url(), 0, &[probe.to_owned()][..]), "{answer:?}");
        self.ack(&answer).await;
    }
}

impl Stream<StateOfTheWorld> {
    /// The whole subscription, of a client that has had no response yet.
    pub fn subscribe(kind: ResourceType, names: &[&str]) -> DiscoveryRequest {
        let (type_url, resource_names) = (kind.type_url().into(), strings(names));
        DiscoveryRequest { node: node(), type_url, resource_names, ..Default::default() }
    }

    /// The ACK of a response, which repeats the subscription, or changes it.
    pub fn acked(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: strings(names),
            ..Default::default()
        }
    }
}

pub fn error(message: &str) -> Option<RpcStatus> {
    Some(RpcStatus { code: 3, message: message.into(), ..Default::default() })
}

/// The names of an incremental response's resources.
pub fn names(resources: &[Resource]) -> Vec<&str> {
    resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// Decodes an `Any`, which must be of the type.
pub fn decode<M: Message + Default>(kind: ResourceType, any: &Any) -> M {
    assert_eq!(any.type_url, kind.type_url());
    M::decode(&*any.value).expect("a resource of its type")
}

/// The assignment in an incremental response's resource.
pub fn assignment(resource: &Resource) -> ClusterLoadAssignment {
    decode(ENDPOINT, resource.resource.as_ref().expect("a resource"))
}

/// Address and port, weight, health, in the assignment's order.
pub fn endpoints(assignment: &ClusterLoadAssignment) -> Vec<(String, u32, HealthStatus)> {
    assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints).map(endpoint).collect()
}

fn endpoint(endpoint: &LbEndpoint) -> (String, u32, HealthStatus) {
    let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else { panic!("no host: {endpoint:?}") };
    let Some(Address::SocketAddress(address)) = host.address.as_ref().and_then(|address| address.address.as_ref())
    else {
        panic!("no address: {endpoint:?}")
    };
    let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { panic!("no port: {endpoint:?}") };
    let weight = endpoint.load_balancing_weight.map(|weight| weight.value).unwrap_or_default();
    (format!("{}:{port}", address.address), weight, endpoint.health_status())
}

/// Many names made alike.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
