//! The public API through either of its faces: the same call, and an answer or a refusal in the same form.

use convoy::{
    any_json::proxy_config,
    api::error::{Body, DOMAIN, Problem},
    envoy_json,
    model::ResourceType,
};
use convoy_client::{
    json::format_duration,
    proto::{self, proxies_client::ProxiesClient, registry_client::RegistryClient, resources_client::ResourcesClient},
};
use hyper::Method;
use serde_json::{Value, json};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{
    http::{Answer, Http},
    server::Addresses,
    within,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Http,
    Grpc,
}

pub const FACES: [Face; 2] = [Face::Http, Face::Grpc];

/// A refusal as one face says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub problem: Box<Problem>,
    pub status: RefusedStatus,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RefusedStatus {
    Http(u16),
    Grpc(Code),
}

/// One call of the API.
#[derive(Clone, Debug)]
pub enum Call {
    Register(proto::RegisterRequest),
    Heartbeat(proto::HeartbeatRequest),
    Deregister(proto::DeregisterRequest),
    Drain(proto::DrainRequest),
    GetInstance(proto::GetInstanceRequest),
    ListInstances(proto::ListInstancesRequest),
    GetService(proto::GetServiceRequest),
    ListServices(proto::ListServicesRequest),
    PutService(proto::PutServiceRequest),
    DeleteService(proto::DeleteServiceRequest),
    ListProxies,
    GetProxy(proto::GetProxyRequest),
    RetryProxy(proto::RetryProxyRequest),
    GetProxyConfig(proto::GetProxyConfigRequest),
    GetConvergence(proto::GetConvergenceRequest),
    WaitForConvergence(proto::WaitForConvergenceRequest),
    PutResource(proto::PutResourceRequest),
    GetResource(proto::GetResourceRequest),
    ListResources(proto::ListResourcesRequest),
    DeleteResource(proto::DeleteResourceRequest),
}

#[derive(Clone, Debug)]
pub struct Api {
    pub http: Http,
    pub registry: RegistryClient<Channel>,
    pub proxies: ProxiesClient<Channel>,
    resources: ResourcesClient<Channel>,
}

impl Api {
    pub fn new(addresses: Addresses) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", addresses.grpc)).expect("an address");
        let channel = endpoint.connect_lazy();
        let registry = RegistryClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let resources = ResourcesClient::new(channel.clone());
        Self { http: Http(addresses.http), registry, proxies: ProxiesClient::new(channel), resources }
    }

    /// The answer, in the API's JSON form whatever the face.
    pub async fn ask(&self, face: Face, call: Call) -> Result<Value, Refused> {
        match face {
            Face::Http => self.ask_http(call).await,
            Face::Grpc => within(&format!("{call:?}"), self.ask_grpc(call)).await,
        }
    }

    pub async fn register(&self, request: proto::RegisterRequest) -> Result<proto::RegisterResponse, Refused> {
        answer(within("register", self.registry.clone().register(request)).await)
    }

    pub async fn heartbeat(&self, lease: &str) -> proto::LeaseStatus {
        let leases = vec![proto::LeaseHeartbeat { lease: lease.into(), ..Default::default() }];
        let request = proto::HeartbeatRequest { leases };
        let answered = within("heartbeat", self.registry.clone().heartbeat(request)).await;
        answered.expect("an answer").into_inner().leases.remove(0)
    }

    /// The ids of a service's instances; none of a service that is not there, or not yet, as at another replica.
    pub async fn ids(&self, service: &str) -> Vec<String> {
        let request = proto::ListInstancesRequest { service: service.into(), ..Default::default() };
        let instances = match within("list", self.registry.clone().list_instances(request)).await {
            Ok(listed) => listed.into_inner().instances,
            Err(refused) if refused.code() == Code::NotFound => Vec::new(),
            Err(refused) => panic!("listing {service}: {refused}"),
        };
        instances.into_iter().map(|instance| instance.id).collect()
    }

    async fn ask_http(&self, call: Call) -> Result<Value, Refused> {
        let instance =
            |namespace: &str, service: &str, id: &str| format!("{}/instances/{id}", path(namespace, service));
        let (method, path, body) = match call {
            Call::Register(request) => (Method::POST, "/v1/registrations".into(), json!(request)),
            Call::Heartbeat(request) => (Method::POST, "/v1/heartbeats".into(), json!(request)),
            Call::Deregister(proto::DeregisterRequest { namespace, service, id, incarnation }) => {
                let query = incarnation.map(|incarnation| format!("?incarnation={incarnation}")).unwrap_or_default();
                (Method::DELETE, instance(&namespace, &service, &id) + &query, Value::Null)
            }
            Call::Drain(request) => {
                let path = instance(&request.namespace, &request.service, &request.id) + "/drain";
                let said = proto::DrainRequest {
                    incarnation: request.incarnation,
                    drain_time: request.drain_time,
                    wait: request.wait,
                    ..Default::default()
                };
                (Method::POST, path, json!(said))
            }
            Call::GetInstance(of) => (Method::GET, instance(&of.namespace, &of.service, &of.id), Value::Null),
            Call::ListInstances(of) => (Method::GET, path(&of.namespace, &of.service) + "/instances", Value::Null),
            Call::GetService(of) => (Method::GET, path(&of.namespace, &of.service), Value::Null),
            Call::ListServices(of) => (Method::GET, format!("/v1/services?namespace={}", of.namespace), Value::Null),
            Call::PutService(request) => {
                let path = path(&request.namespace, &request.service);
                let said = proto::PutServiceRequest { namespace: String::new(), service: String::new(), ..request };
                (Method::PUT, path, json!(said))
            }
            Call::DeleteService(of) => (Method::DELETE, path(&of.namespace, &of.service), Value::Null),
            Call::ListProxies => (Method::GET, "/v1/proxies".into(), Value::Null),
            Call::RetryProxy(of) => (Method::POST, format!("/v1/proxies/{}/retry", of.node), Value::Null),
            Call::GetProxy(of) => (Method::GET, format!("/v1/proxies/{}", of.node), Value::Null),
            Call::GetProxyConfig(of) => {
                let path = format!("/v1/proxies/{}/config?type={}&name={}", of.node, of.r#type, of.name);
                (Method::GET, path, Value::Null)
            }
            Call::GetConvergence(of) => (Method::GET, convergence(of.revision, &of.namespace), Value::Null),
            Call::WaitForConvergence(of) => {
                let wait =
                    of.timeout.and_then(|timeout| std::time::Duration::try_from(timeout).ok()).unwrap_or_default();
                let wait = format!("&wait={}", format_duration(wait));
                (Method::GET, convergence(of.revision, &of.namespace) + &wait, Value::Null)
            }
            Call::PutResource(of) => {
                let body = of.body.unwrap_or_default();
                let mut query = vec![format!("variant={}", of.variant), format!("selector={}", escape(&of.selector))];
                query.extend(of.ttl.map(|ttl| format!("ttl={}s", ttl.seconds)));
                let kind = ResourceType::from_type_url(&body.type_url).expect("a known type");
                let path = format!("{}?{}", resource(&of.r#type, &of.name), query.join("&"));
                (Method::PUT, path, envoy_json::write(kind, &body.value))
            }
            Call::GetResource(of) => {
                (Method::GET, format!("{}?variant={}", resource(&of.r#type, &of.name), of.variant), Value::Null)
            }
            Call::ListResources(of) => {
                (Method::GET, format!("/v1/resources?type={}&name={}", of.r#type, escape(&of.name)), Value::Null)
            }
            Call::DeleteResource(of) => {
                (Method::DELETE, format!("{}?variant={}", resource(&of.r#type, &of.name), of.variant), Value::Null)
            }
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        refused_http(&self.http.call(method, &path, body).await)
    }

    async fn ask_grpc(&self, call: Call) -> Result<Value, Refused> {
        let (mut registry, mut proxies) = (self.registry.clone(), self.proxies.clone());
        match call {
            Call::Register(request) => answer(registry.register(request).await).map(|answer| json!(answer)),
            Call::Heartbeat(request) => answer(registry.heartbeat(request).await).map(|answer| json!(answer)),
            Call::Deregister(request) => answer(registry.deregister(request).await).map(|answer| json!(answer)),
            Call::Drain(request) => answer(registry.drain(request).await).map(|answer| json!(answer)),
            Call::GetInstance(request) => answer(registry.get_instance(request).await).map(|answer| json!(answer)),
            Call::ListInstances(request) => answer(registry.list_instances(request).await).map(|answer| json!(answer)),
            Call::GetService(request) => answer(registry.get_service(request).await).map(|answer| json!(answer)),
            Call::ListServices(request) => answer(registry.list_services(request).await).map(|answer| json!(answer)),
            Call::PutService(request) => answer(registry.put_service(request).await).map(|answer| json!(answer)),
            Call::DeleteService(request) => answer(registry.delete_service(request).await).map(|answer| json!(answer)),
            Call::ListProxies => {
                let listed = proxies.list_proxies(proto::ListProxiesRequest::default()).await;
                answer(listed).map(|answer| json!(answer))
            }
            Call::RetryProxy(request) => answer(proxies.retry_proxy(request).await).map(|answer| json!(answer)),
            Call::GetProxy(request) => answer(proxies.get_proxy(request).await).map(|answer| json!(answer)),
            Call::GetProxyConfig(request) => {
                answer(proxies.get_proxy_config(request).await).map(|answer| proxy_config(&answer))
            }
            Call::GetConvergence(request) => answer(proxies.get_convergence(request).await).map(|answer| json!(answer)),
            Call::WaitForConvergence(request) => {
                answer(proxies.wait_for_convergence(request).await).map(|answer| json!(answer))
            }
            Call::PutResource(request) => answer(self.resources.clone().put_resource(request).await).map(shown),
            Call::GetResource(request) => answer(self.resources.clone().get_resource(request).await).map(shown),
            Call::ListResources(request) => {
                answer(self.resources.clone().list_resources(request).await).map(|answer| json!(answer))
            }
            Call::DeleteResource(request) => {
                answer(self.resources.clone().delete_resource(request).await).map(|answer| json!(answer))
            }
        }
    }
}

fn convergence(revision: Option<u64>, namespace: &str) -> String {
    let revision = revision.map(|revision| format!("&revision={revision}")).unwrap_or_default();
    format!("/v1/convergence?namespace={namespace}{revision}")
}

/// A resource as the HTTP API shows it.
fn shown(resource: proto::Resource) -> Value {
    let mut json = json!(resource);
    let body = resource.body.unwrap_or_default();
    let kind = ResourceType::from_type_url(&body.type_url).expect("a known type");
    json["resource"] = envoy_json::write(kind, &body.value);
    json
}

/// A resource's path.
pub fn resource(kind: &str, name: &str) -> String {
    format!("/v1/resources/{kind}/{}", escape(name))
}

/// Percent-encoded, but for what may stand in any part of a URL.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A service's path; the namespace is `default` when empty.
pub fn path(namespace: &str, service: &str) -> String {
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    format!("/v1/namespaces/{namespace}/services/{service}")
}

/// What an HTTP answer says: the JSON of success, or the refusal in its body.
pub fn refused_http(answer: &Answer) -> Result<Value, Refused> {
    assert_eq!(answer.content_type, "application/json", "{answer:?}");
    if answer.status == 200 {
        return Ok(answer.json());
    }
    let body: Body = serde_json::from_value(answer.json()).expect("an error's body");
    Err(Refused { problem: body.error.into(), status: RefusedStatus::Http(answer.status) })
}

/// What a status says: the code of the table, and what its details name.
pub fn refused(status: &Status) -> Refused {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("a status without details: {status:?}"));
    assert_eq!(info.domain, DOMAIN);
    let named = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
    let problem = Problem {
        code: info.reason.clone(),
        message: status.message().into(),
        field: named("field"),
        value: named("value"),
        rule: named("rule"),
    };
    Refused { problem: problem.into(), status: RefusedStatus::Grpc(status.code()) }
}

pub fn answer<T>(answered: Result<Response<T>, Status>) -> Result<T, Refused> {
    answered.map(Response::into_inner).map_err(|status| refused(&status))
}
