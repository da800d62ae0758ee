//! A client as Envoy is one: it follows all clusters and its listener, asks for the endpoints of the clusters that it
//! has and for the routes that its listener names, and answers every response.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use convoy::{
    model::{Namespace, Node, UnixMillis},
    translate::{Imports, ResourceType, View, build, names::OUTBOUND},
    xds::{
        cache::Cache,
        protocol::{Dialect, Features, Now, Readiness, Received},
        session::Session,
        view_catalog::ViewCatalog,
    },
};
use envoy_types::pb::{
    envoy::{
        config::route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
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
    dialect: Dialect,
    session: Session,
    catalog: ViewCatalog,
    inbox: VecDeque<Delivery>,
    held: BTreeMap<ResourceType, Held>,
    /// It has refused something on this stream, and may lack it until that changes.
    pub has_refused: bool,
    /// Of the state of the world nothing is known about what a client held before it came back.
    order_is_known: bool,
}

/// Selectors go by its id.
fn node(id: &str) -> Arc<Node> {
    Arc::new(Node { id: id.into(), ..Node::default() })
}

fn now() -> Now {
    Now { at: Instant::now(), unix: UnixMillis(1) }
}

impl Client {
    pub fn connect(
        id: u64,
        dialect: Dialect,
        namespace_name: &str,
        imports: Option<&[&str]>,
        cache: Arc<Cache>,
    ) -> Self {
        let namespace = Namespace::parse("namespace", namespace_name).expect("a label");
        let imports = imports.map(|names| Imports::parse("imports", names.iter().copied(), &namespace).expect("names"));
        let view =
            View { namespace, outbound: "127.0.0.1:15001".parse().ok(), imports: imports.map(Arc::new), grpc: false };
        let mut client = Self {
            dialect,
            session: Session::new(dialect, None, Features::default()),
            catalog: ViewCatalog::new(cache, &view, node(namespace_name), id),
            inbox: VecDeque::new(),
            held: BTreeMap::new(),
            has_refused: false,
            order_is_known: true,
        };
        client.open();
        client
    }

    /// A new stream: says what it follows, and what it has.
    pub fn reconnect(&mut self, id: u64) {
        self.session = Session::new(self.dialect, None, Features::default());
        let (cache, view) = (self.catalog.cache.clone(), self.catalog.view.view.clone());
        self.catalog = ViewCatalog::new(cache, &view, node(view.namespace.as_str()), id);
        self.inbox.clear();
        // Who refused the routes that a removed cluster waited for has been left with those that lead to it.
        self.order_is_known = self.dialect == Dialect::Incremental && !self.has_refused;
        self.has_refused = false;
        self.open();
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
        let received = match self.dialect {
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
                self.session.receive_incremental(request, now(), &self.catalog)
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
                self.session.receive_state_of_the_world(request, now(), &self.catalog)
            }
        };
        let Received { interest, .. } = received.expect("a request that keeps the rules");
        if let Some(interest) = interest {
            self.catalog.follow(&interest);
        }
    }

    /// The server's side: takes the dirty names, and sends what can go.
    pub async fn serve(&mut self) -> bool {
        let news = self.catalog.mailbox.take();
        for ((kind, name), revision) in news.names {
            self.session.mark_dirty(kind, name, revision);
        }
        if let Some(since) = news.selection {
            self.catalog.reselect(&mut self.session, since);
        }
        let Some(response) = self.session.poll(now(), &self.catalog, Readiness::Ready) else { return false };
        let delivery = read(self.dialect, response.kind.expect("a known type"), &response.chunks.concat());
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
        if self.dialect == Dialect::StateOfTheWorld && kind.is_full_set() {
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
                assert!(clusters.contains(cluster), "a route leads to {cluster}, which {:?} has not got", self.dialect);
            }
        }
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
            if self.dialect == Dialect::StateOfTheWorld && !kind.is_full_set() {
                // That something is gone cannot be said there: it goes with the cluster or listener that led to it.
                found.retain(|name, _| expected.contains_key(name));
            }
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
            let wrong = names.into_iter().filter(|name| found.get(*name) != expected.get(*name));
            let has = |name: &String| (name.clone(), found.contains_key(name), expected.contains_key(name));
            let wrong: Vec<_> = wrong.map(has).collect();
            assert!(wrong.is_empty(), "{kind:?} of {:?}: name, whether it has it, and should: {wrong:?}", self.dialect);
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
