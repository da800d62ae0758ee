//! The session against the protocol's rules; tests bear the number of the rule that they are about.

mod both_dialects;
mod budget;
mod conformance;
mod errors;
mod histories;
mod incremental;
mod on_demand;
mod on_the_way;
mod ordering;
mod resuming;
mod selection;
mod settling;
mod standing;
mod state_of_the_world;
mod ttl;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, ResourceError,
    },
    google::{protobuf::Any, rpc::Status},
};
use prost::Message;
use tokio::time::Instant;

use super::{
    protocol::{Catalog, Dialect, Features, Now, Readiness, Received, Refusal, Response},
    resource::Resource,
    session::Session,
};
use crate::{
    model::{ResourceType, Revision, UnixMillis},
    translate::Built,
};

/// Resources by type and name; all clusters but those named `hidden…`, and the listeners named `all…`, are in the
/// wildcard.
#[derive(Default)]
struct Shelf(BTreeMap<(ResourceType, Arc<str>), Arc<Resource>>);

impl Shelf {
    fn put(&mut self, kind: ResourceType, name: &str, content: &str) {
        self.put_leading_to(kind, name, content, &[]);
    }

    fn put_leading_to(&mut self, kind: ResourceType, name: &str, content: &str, clusters: &[&str]) {
        let clusters = clusters.iter().map(|name| Arc::from(*name)).collect();
        let built = Built { bytes: format!("{name}={content}").into_bytes(), clusters, ..Built::default() };
        self.put_built(kind, name, built);
    }

    fn put_with_ttl(&mut self, kind: ResourceType, name: &str, content: &str, ttl: Duration) {
        let built = Built { bytes: format!("{name}={content}").into_bytes(), ttl: Some(ttl), ..Built::default() };
        self.put_built(kind, name, built);
    }

    fn put_built(&mut self, kind: ResourceType, name: &str, built: Built) {
        self.0.insert((kind, name.into()), Arc::new(Resource::new(kind, name.into(), built)));
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        self.0.remove(&(kind, name.into()));
    }

    fn version(&self, kind: ResourceType, name: &str) -> String {
        self.0[&(kind, name.into())].version.to_string()
    }
}

impl Catalog for Shelf {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Resource>> {
        self.0.get(&(kind, name.clone())).cloned()
    }

    fn wildcard(&self, kind: ResourceType) -> Vec<Arc<str>> {
        let all = self.0.keys().filter(|(of, name)| *of == kind && self.in_wildcard(kind, name));
        all.map(|(_, name)| name.clone()).collect()
    }

    fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool {
        match kind {
            ResourceType::Cluster => !name.starts_with("hidden"),
            ResourceType::Listener => name.starts_with("all"),
            _ => false,
        }
    }
}

/// A response as a client reads it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    kind: Option<ResourceType>,
    version: String,
    nonce: String,
    /// Content by name.
    resources: BTreeMap<String, String>,
    /// Incremental: version by name.
    versions: BTreeMap<String, String>,
    removed: Vec<String>,
    /// Resources without a body: name, alias, and TTL in seconds.
    bare: Vec<(String, String, Option<i64>)>,
    /// TTLs in seconds of resources that have a body.
    ttls: BTreeMap<String, i64>,
    /// Names that are said not to exist.
    errors: Vec<String>,
    bytes: usize,
}

/// A session with the shelf that it is served from, and a clock that moves when told to.
struct Bench {
    session: Session,
    dialect: Dialect,
    shelf: Shelf,
    now: Now,
    readiness: Readiness,
    /// State of the world: the names of the last request, which the next one repeats.
    said: BTreeMap<ResourceType, Vec<String>>,
}

/// `google.rpc.Code.NOT_FOUND`
const NOT_FOUND: i32 = 5;

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::Endpoint;
const LDS: ResourceType = ResourceType::Listener;
const RDS: ResourceType = ResourceType::Route;
const VHDS: ResourceType = ResourceType::VirtualHost;
const ECDS: ResourceType = ResourceType::ExtensionConfig;

const BOTH: [Dialect; 2] = [Dialect::StateOfTheWorld, Dialect::Incremental];

impl Bench {
    fn new(dialect: Dialect) -> Self {
        Self {
            session: Session::new(dialect, None, Features::default()),
            dialect,
            shelf: Shelf::default(),
            now: Now { at: Instant::now(), unix: UnixMillis(1) },
            readiness: Readiness::Ready,
            said: BTreeMap::new(),
        }
    }

    fn with_features(dialect: Dialect, features: Features) -> Self {
        let session = Session::new(dialect, None, features);
        Self { session, ..Self::new(dialect) }
    }

    /// The same shelf, a new stream.
    fn reconnect(&mut self) {
        self.session = Session::new(self.dialect, None, self.session.features());
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
    }

    /// A resource's content becomes another, and the session is told.
    fn change(&mut self, kind: ResourceType, name: &str, content: &str) {
        self.shelf.put(kind, name, content);
        self.session.mark_dirty(kind, name.into(), Revision(1));
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        self.shelf.remove(kind, name);
        self.session.mark_dirty(kind, name.into(), Revision(1));
    }

    fn poll(&mut self) -> Option<Seen> {
        let response = self.session.poll(self.now, &self.shelf, self.readiness)?;
        Some(read(self.dialect, &response))
    }

    fn one(&mut self) -> Seen {
        self.poll().expect("a response")
    }

    #[track_caller]
    fn silent(&mut self) {
        assert_eq!(self.poll(), None);
    }

    // Incremental requests.

    fn delta(&mut self, request: DeltaDiscoveryRequest) -> Received {
        self.session.receive_incremental(request, self.now, &self.shelf).expect("accepted")
    }

    fn subscribe(&mut self, kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) {
        self.delta(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            ..Default::default()
        });
    }

    fn resume(&mut self, kind: ResourceType, subscribe: &[&str], versions: &[(&str, String)]) {
        let versions: HashMap<String, String> =
            versions.iter().map(|(name, version)| ((*name).to_owned(), version.clone())).collect();
        self.delta(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(subscribe),
            initial_resource_versions: versions,
            ..Default::default()
        });
    }

    /// Answers a response: accepts it, or refuses it with a message.
    fn answer(&mut self, seen: &Seen, error: Option<&str>) {
        let kind = seen.kind.expect("a known type");
        match self.dialect {
            Dialect::Incremental => {
                self.delta(DeltaDiscoveryRequest {
                    type_url: kind.type_url().into(),
                    response_nonce: seen.nonce.clone(),
                    error_detail: error.map(status),
                    ..Default::default()
                });
            }
            Dialect::StateOfTheWorld => {
                let names = self.said.get(&kind).cloned().unwrap_or_default();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.ask(kind, &names, seen, error);
            }
        }
    }

    fn ack(&mut self, seen: &Seen) {
        self.answer(seen, None);
    }

    fn nack(&mut self, seen: &Seen, message: &str) {
        self.answer(seen, Some(message));
    }

    /// Makes these names, and `*`, the whole subscription of a type. `after` is the last response of that type.
    fn want(&mut self, kind: ResourceType, names: &[&str], after: &Seen) {
        if self.dialect == Dialect::StateOfTheWorld {
            return self.ask(kind, names, after, None);
        }
        let known = self.session.subscriptions().find(|(of, ..)| *of == kind);
        let known: Vec<String> = known
            .map(|(_, names, wildcard)| {
                names.iter().map(ToString::to_string).chain(wildcard.then(|| "*".to_owned())).collect()
            })
            .unwrap_or_default();
        let new: Vec<&str> = names.iter().copied().filter(|name| !known.iter().any(|of| of == name)).collect();
        let gone: Vec<&str> = known.iter().map(String::as_str).filter(|name| !names.contains(name)).collect();
        self.subscribe(kind, &new, &gone);
    }

    /// The first request of a type.
    fn start(&mut self, kind: ResourceType, names: &[&str]) {
        match self.dialect {
            Dialect::Incremental => self.subscribe(kind, names, &[]),
            Dialect::StateOfTheWorld => self.ask(kind, names, &Seen::default(), None),
        }
    }

    /// Takes and accepts all that is due.
    fn drain(&mut self) -> Vec<Seen> {
        let mut taken = Vec::new();
        while let Some(seen) = self.poll() {
            self.ack(&seen);
            taken.push(seen);
        }
        taken
    }

    /// Takes the one response that is due and accepts it.
    fn take(&mut self) -> Seen {
        let seen = self.one();
        self.ack(&seen);
        seen
    }

    // State-of-the-world requests.

    fn sotw(&mut self, request: DiscoveryRequest) -> Result<Received, Refusal> {
        self.session.receive_state_of_the_world(request, self.now, &self.shelf)
    }

    /// A request that follows a response; `Seen::default()` before the first.
    fn ask(&mut self, kind: ResourceType, names: &[&str], after: &Seen, error: Option<&str>) {
        self.said.insert(kind, strings(names));
        let request = DiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names: strings(names),
            response_nonce: after.nonce.clone(),
            version_info: after.version.clone(),
            error_detail: error.map(status),
            ..Default::default()
        };
        self.sotw(request).expect("accepted");
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn status(message: &str) -> Status {
    Status { code: 3, message: message.into(), ..Default::default() }
}

/// A response as a client reads it, who checks what holds of every one.
fn read(dialect: Dialect, response: &Response) -> Seen {
    let bytes = response.chunks.concat();
    let seen = match dialect {
        Dialect::Incremental => read_incremental(&bytes),
        Dialect::StateOfTheWorld => read_state_of_the_world(&bytes),
    };
    for name in &seen.errors {
        assert!(!seen.resources.contains_key(name), "{name} is there and is not");
    }
    Seen { bytes: bytes.len(), ..seen }
}

/// The content of a resource, which is of the type of its response.
fn content(type_url: &str, any: Any) -> (String, String) {
    assert_eq!(any.type_url, type_url, "rule 7");
    let text = String::from_utf8(any.value).expect("text");
    let (name, content) = text.split_once('=').expect("name=content");
    (name.to_owned(), content.to_owned())
}

fn read_incremental(bytes: &[u8]) -> Seen {
    let response = DeltaDiscoveryResponse::decode(bytes).expect("valid");
    let names = response.resources.iter().map(|resource| &resource.name);
    assert_unique(names.chain(&response.removed_resources));
    let mut seen = Seen {
        kind: ResourceType::from_type_url(&response.type_url),
        version: response.system_version_info,
        nonce: response.nonce,
        removed: response.removed_resources,
        errors: names_of(response.resource_errors),
        ..Seen::default()
    };
    for resource in response.resources {
        assert!(resource.resource_name.is_none(), "rule 48: `name` and `resource_name` exclude each other");
        let ttl = resource.ttl.map(|ttl| ttl.seconds);
        let Some(any) = resource.resource else {
            seen.bare.push((resource.name, resource.aliases.concat(), ttl));
            continue;
        };
        let (name, content) = content(&response.type_url, any);
        assert_eq!(name, resource.name);
        seen.versions.insert(name.clone(), resource.version);
        seen.ttls.extend(ttl.map(|ttl| (name.clone(), ttl)));
        seen.resources.insert(name, content);
    }
    seen
}

fn read_state_of_the_world(bytes: &[u8]) -> Seen {
    let response = DiscoveryResponse::decode(bytes).expect("valid");
    let resources: Vec<(String, String)> =
        response.resources.into_iter().map(|any| content(&response.type_url, any)).collect();
    assert_unique(resources.iter().map(|(name, _)| name));
    Seen {
        kind: ResourceType::from_type_url(&response.type_url),
        version: response.version_info,
        nonce: response.nonce,
        resources: resources.into_iter().collect(),
        errors: names_of(response.resource_errors),
        ..Seen::default()
    }
}

fn names_of(errors: Vec<ResourceError>) -> Vec<String> {
    let name = |error: ResourceError| {
        assert_eq!(error.error_detail.expect("a reason").code, NOT_FOUND);
        error.resource_name.expect("a name").name
    };
    errors.into_iter().map(name).collect()
}

/// Rule 10: a client refuses a response that has a name twice.
fn assert_unique<'a>(names: impl Iterator<Item = &'a String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name), "{name} stands twice");
    }
}

fn contents(resources: &[(&str, &str)]) -> BTreeMap<String, String> {
    resources.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}
