//! A client as Envoy is one: it follows all clusters and its listener, asks for the endpoints of the clusters that it
//! has and for the routes that its listener names, and answers every response.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt::Debug,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use convoy::{
    model::{Namespace, Node, UnixMillis},
    translate::{Imports, ResourceType, View, build, names::OUTBOUND},
    xds::{
        self,
        cache::Cache,
        protocol::{Dialect, Now, Received},
        session::Session,
        status::{Proxies, Stream},
        view_catalog::ViewCatalog,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{HealthStatus, address::Address},
            endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
            route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
        },
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
    },
    google::rpc::Status,
};
use prost::Message;
use tokio::time::Instant;

const KINDS: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];

/// A response on its way, as the client will read it.
struct Delivery {
    kind: ResourceType,
    nonce: String,
    version: String,
    resources: Vec<(String, String, Vec<u8>)>,
    removed: Vec<String>,
}

/// What the client has of one type.
#[derive(Default)]
struct Held {
    /// Version and bytes by name.
    resources: BTreeMap<String, (String, Vec<u8>)>,
    asked: BTreeSet<String>,
    version: String,
    nonce: String,
}

pub struct Client {
    /// As Convoy sees it, with its session.
    stream: Arc<Stream>,
    proxies: Arc<Proxies>,
    catalog: ViewCatalog,
    inbox: VecDeque<Delivery>,
    held: BTreeMap<ResourceType, Held>,
    /// By cluster.
    endpoints: HashMap<String, BTreeMap<IpAddr, HealthStatus>>,
    /// It has refused something on this stream, and may lack it until that changes.
    pub has_refused: bool,
    /// Of the state of the world nothing is known about what a client held before it came back.
    order_is_known: bool,
}

fn now() -> Now {
    Now { at: Instant::now(), unix: UnixMillis::now() }
}

fn stream(dialect: Dialect, client: xds::node::Client, catalog: &ViewCatalog) -> Arc<Stream> {
    let session = Mutex::new(Session::new(dialect, None, client.features));
    let mailbox = catalog.mailbox.clone();
    Arc::new(Stream { client, address: None, dialect, connected_at: UnixMillis::now(), session, mailbox })
}

impl Client {
    /// Selectors go by its name.
    pub fn connect(
        id: u64,
        name: &str,
        dialect: Dialect,
        namespace: &str,
        imports: Option<&[&str]>,
        (cache, proxies): (Arc<Cache>, Arc<Proxies>),
    ) -> Self {
        let namespace = Namespace::parse("namespace", namespace).expect("a label");
        let imports = imports.map(|names| Imports::parse("imports", names.iter().copied(), &namespace).expect("names"));
        let view =
            View { namespace, outbound: "127.0.0.1:15001".parse().ok(), imports: imports.map(Arc::new), grpc: false };
        let node = Arc::new(Node { id: name.into(), ..Node::default() });
        let catalog = ViewCatalog::new(cache, &view, node.clone(), id);
        let (cluster, user_agent, features) = Default::default();
        let client = xds::node::Client { id: name.into(), cluster, user_agent, view, features, node };
        let stream = stream(dialect, client, &catalog);
        proxies.insert(id, stream.clone());
        let mut client = Self {
            stream,
            proxies,
            catalog,
            inbox: VecDeque::new(),
            held: BTreeMap::new(),
            endpoints: HashMap::new(),
            has_refused: false,
            order_is_known: true,
        };
        client.open();
        client
    }

    /// A new stream, of the same server or another: says what it follows, and what it has.
    pub fn reconnect(&mut self, id: u64, (cache, proxies): (Arc<Cache>, Arc<Proxies>)) {
        self.leave();
        let Stream { client, dialect, .. } = &*self.stream;
        let (client, dialect) = (client.clone(), *dialect);
        self.catalog = ViewCatalog::new(cache, &client.view, client.node.clone(), id);
        self.stream = stream(dialect, client, &self.catalog);
        proxies.insert(id, self.stream.clone());
        self.proxies = proxies;
        self.inbox.clear();
        // Who refused the routes that a removed cluster waited for has been left with those that lead to it.
        self.order_is_known = dialect == Dialect::Incremental && !self.has_refused;
        self.has_refused = false;
        self.open();
    }

    /// Its stream ends, as the server sees it.
    pub fn leave(&self) {
        let told = *self.catalog.cache.told().borrow();
        self.proxies.remove(self.catalog.mailbox.id, told, now());
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.stream.session.lock().expect("nobody panics with it")
    }

    /// The endpoints of a cluster that it has, and how it was told they are.
    pub fn endpoints(&self, cluster: &str) -> &BTreeMap<IpAddr, HealthStatus> {
        static NONE: BTreeMap<IpAddr, HealthStatus> = BTreeMap::new();
        self.endpoints.get(cluster).unwrap_or(&NONE)
    }

    fn read_endpoints(&mut self) {
        let held = self.held.get(&ResourceType::Endpoint).into_iter().flat_map(|held| &held.resources);
        self.endpoints = held.map(|(cluster, (_, bytes))| (cluster.clone(), endpoints(bytes))).collect();
    }

    fn open(&mut self) {
        for kind in KINDS {
            let held = self.held.entry(kind).or_default();
            held.nonce.clear();
            let wildcard = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
            if wildcard || !held.asked.is_empty() {
                let names = held.asked.iter().cloned().collect();
                self.say(kind, names, Vec::new(), true, None);
            }
        }
    }

    fn say(
        &mut self,
        kind: ResourceType,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        first: bool,
        error: Option<&str>,
    ) {
        let held = self.held.entry(kind).or_default();
        let error_detail = error.map(|message| Status { code: 3, message: message.into(), ..Default::default() });
        let received = match self.stream.dialect {
            Dialect::Incremental => {
                let versions = held.resources.iter().map(|(name, (version, _))| (name.clone(), version.clone()));
                let initial: HashMap<String, String> = if first { versions.collect() } else { HashMap::new() };
                let request = DeltaDiscoveryRequest {
                    type_url: kind.type_url().into(),
                    resource_names_subscribe: subscribe,
                    resource_names_unsubscribe: unsubscribe,
                    initial_resource_versions: initial,
                    response_nonce: held.nonce.clone(),
                    error_detail,
                    ..Default::default()
                };
                self.session().receive_incremental(request, now(), &self.catalog)
            }
            Dialect::StateOfTheWorld => {
                let request = DiscoveryRequest {
                    type_url: kind.type_url().into(),
                    resource_names: held.asked.iter().cloned().collect(),
                    version_info: held.version.clone(),
                    response_nonce: held.nonce.clone(),
                    error_detail,
                    ..Default::default()
                };
                self.session().receive_state_of_the_world(request, now(), &self.catalog)
            }
        };
        let Received { interest, .. } = received.expect("a request that keeps the rules");
        if let Some(interest) = interest {
            self.catalog.follow(&interest);
        }
        self.proxies.raise();
    }

    /// The server's side: takes the dirty names, and sends what can go.
    pub fn serve(&mut self) -> bool {
        let stream = self.stream.clone();
        let mut session = stream.session.lock().expect("nobody panics with it");
        let news = self.catalog.mailbox.take();
        for ((kind, name), revision) in news.names {
            session.mark_dirty(kind, name, revision);
        }
        if let Some(since) = news.selection {
            self.catalog.reselect(&mut session, since);
        }
        let readiness = *self.catalog.cache.readiness().borrow();
        let Some(response) = session.poll(now(), &self.catalog, readiness) else { return false };
        let delivery = read(stream.dialect, response.kind.expect("a known type"), &response.chunks.concat());
        self.inbox.push_back(delivery);
        true
    }

    /// The client's side: takes one response, and accepts or refuses it whole.
    pub fn take(&mut self, refuse: bool) -> bool {
        let Some(delivery) = self.inbox.pop_front() else { return false };
        let kind = delivery.kind;
        let held = self.held.entry(kind).or_default();
        held.nonce = delivery.nonce;
        if refuse {
            self.has_refused = true;
            self.say(kind, Vec::new(), Vec::new(), false, Some("refused"));
            return true;
        }
        held.version = delivery.version;
        if self.stream.dialect == Dialect::StateOfTheWorld && kind.is_full_set() {
            held.resources.clear();
        }
        for (name, version, bytes) in delivery.resources {
            // What it asks for no more may have been on its way.
            if kind.is_full_set() || held.asked.contains(&name) {
                held.resources.insert(name, (version, bytes));
            }
        }
        for name in delivery.removed {
            held.resources.remove(&name);
        }
        self.say(kind, Vec::new(), Vec::new(), false, None);
        self.follow(kind);
        if matches!(kind, ResourceType::Cluster | ResourceType::Endpoint) {
            self.read_endpoints();
        }
        self.check_routes();
        true
    }

    /// Asks for what hangs on what it has.
    fn follow(&mut self, kind: ResourceType) {
        let (of, wanted): (_, BTreeSet<String>) = match kind {
            ResourceType::Cluster => (ResourceType::Endpoint, self.names(kind)),
            ResourceType::Listener => {
                let routes = self.names(kind).into_iter().filter(|name| name == OUTBOUND);
                (ResourceType::Route, routes.collect())
            }
            _ => return,
        };
        let held = self.held.entry(of).or_default();
        if held.asked == wanted {
            return;
        }
        let first = held.asked.is_empty() && held.nonce.is_empty();
        let subscribe: Vec<String> = wanted.difference(&held.asked).cloned().collect();
        let unsubscribe: Vec<String> = held.asked.difference(&wanted).cloned().collect();
        held.resources.retain(|name, _| wanted.contains(name));
        held.asked = wanted;
        self.say(of, subscribe, unsubscribe, first, None);
    }

    fn names(&self, kind: ResourceType) -> BTreeSet<String> {
        self.held.get(&kind).map(|held| held.resources.keys().cloned().collect()).unwrap_or_default()
    }

    /// No route leads to a cluster that is not there.
    fn check_routes(&self) {
        if self.has_refused || !self.order_is_known {
            return;
        }
        let Some(held) = self.held.get(&ResourceType::Route) else { return };
        let clusters = self.names(ResourceType::Cluster);
        for (_, bytes) in held.resources.values() {
            let routes = RouteConfiguration::decode(&**bytes).expect("valid");
            for route in routes.virtual_hosts.iter().flat_map(|host| &host.routes) {
                let Some(Action::Route(action)) = &route.action else { continue };
                let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else { continue };
                assert!(
                    clusters.contains(cluster),
                    "a route leads to {cluster}, which {:?} has not got",
                    self.stream.dialect
                );
            }
        }
    }

    /// What it has, for who compares it.
    pub fn has(&self) -> impl Debug {
        let resources = |(kind, held): (&ResourceType, &Held)| (*kind, held.version.clone(), held.resources.clone());
        self.held.iter().map(resources).collect::<Vec<_>>()
    }

    /// Everything that it has is what the registry says now, and it has everything.
    pub fn check_view(&self) {
        let view = &self.catalog.view;
        let snapshot = self.catalog.cache.registry().snapshot();
        for kind in KINDS {
            let names: Vec<Arc<str>> = match kind {
                ResourceType::Cluster | ResourceType::Listener => view.wildcard(kind, &snapshot),
                ResourceType::Endpoint => view.wildcard(ResourceType::Cluster, &snapshot),
                _ => vec![OUTBOUND.into()],
            };
            let expected: BTreeMap<String, Vec<u8>> = names
                .iter()
                .filter_map(|name| {
                    let built = build(&view.key(kind, name), &snapshot)?;
                    let seen = view.sees(&built.service);
                    seen.then(|| (name.to_string(), built.bytes))
                })
                .collect();
            let resources = &self.held[&kind].resources;
            let mut found: BTreeMap<String, Vec<u8>> =
                resources.iter().map(|(name, (_, bytes))| (name.clone(), bytes.clone())).collect();
            if self.stream.dialect == Dialect::StateOfTheWorld && !kind.is_full_set() {
                // That something is gone cannot be said there: it goes with the cluster or listener that led to it.
                found.retain(|name, _| expected.contains_key(name));
            }
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
            let wrong = names.into_iter().filter(|name| found.get(*name) != expected.get(*name));
            let has = |name: &String| (name.clone(), found.contains_key(name), expected.contains_key(name));
            let wrong: Vec<_> = wrong.map(has).collect();
            assert!(
                wrong.is_empty(),
                "{kind:?} of {:?}: name, whether it has it, and should: {wrong:?}",
                self.stream.dialect
            );
        }
    }
}

fn read(dialect: Dialect, kind: ResourceType, bytes: &[u8]) -> Delivery {
    match dialect {
        Dialect::Incremental => {
            let response = DeltaDiscoveryResponse::decode(bytes).expect("valid");
            let resources = response.resources.into_iter().map(|resource| {
                (resource.name, resource.version, resource.resource.map(|any| any.value).unwrap_or_default())
            });
            Delivery {
                kind,
                nonce: response.nonce,
                version: response.system_version_info,
                resources: resources.collect(),
                removed: response.removed_resources,
            }
        }
        Dialect::StateOfTheWorld => {
            let response = DiscoveryResponse::decode(bytes).expect("valid");
            let resources = response.resources.into_iter().map(|any| (name_of(&any.value), String::new(), any.value));
            Delivery {
                kind,
                nonce: response.nonce,
                version: response.version_info,
                resources: resources.collect(),
                removed: Vec::new(),
            }
        }
    }
}

/// In all four types the name is the first field.
fn name_of(resource: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Named::decode(resource).expect("valid").name
}

fn endpoints(assignment: &[u8]) -> BTreeMap<IpAddr, HealthStatus> {
    let assignment = ClusterLoadAssignment::decode(assignment).expect("valid");
    let all = assignment.endpoints.into_iter().flat_map(|place| place.lb_endpoints);
    all.filter_map(|one| Some((address(&one)?, one.health_status()))).collect()
}

fn address(endpoint: &LbEndpoint) -> Option<IpAddr> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    match endpoint.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(at) => at.address.parse().ok(),
        _ => None,
    }
}
