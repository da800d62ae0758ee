//! Sidecars: xDS clients with a connection each, which keep what they were told, and come back with it when they are cut
//! off, as Envoy does. They look for one thing: that nothing they have is taken away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
    },
    google::protobuf::Any,
};
use prost::Message;
use rand::RngExt;
use tokio::task::JoinSet;
use tonic::{Status, transport::Endpoint};

use crate::support::ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, StateOfTheWorld, Stream};

/// Who is cut off comes back within this, as Envoy at its first attempt.
const BACKOFF: Duration = Duration::from_millis(500);

/// The addresses of a service's endpoints.
type Addresses = Arc<BTreeSet<String>>;
/// Assignments as they were sent, and what is in them.
type Read = Vec<(Vec<u8>, Addresses)>;

/// Many of them, and what they have in common. Dropping it ends them.
#[derive(Debug)]
pub struct Sidecars {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    xds: SocketAddr,
    services: Vec<String>,
    tally: Tally,
    /// What was taken from whom.
    taken: Mutex<Vec<String>>,
    /// Assignments that have been read, by service, and their endpoints: all are sent the same ones.
    read: Mutex<HashMap<String, Read>>,
    /// How many endpoints each has.
    have: Vec<AtomicUsize>,
}

/// What has come since the last look.
#[derive(Debug, Default)]
struct Tally {
    streams: AtomicUsize,
    responses: [AtomicUsize; 2],
    bytes: [AtomicU64; 2],
}

/// What all of them together were sent, in the state of the world and incremental.
#[derive(Debug)]
pub struct Sent {
    streams: usize,
    responses: [usize; 2],
    mebibytes: [f64; 2],
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, responses: [world, delta], mebibytes: [world_size, delta_size] } = self;
        write!(f, "{streams} streams, {world} responses of {world_size:.1} MiB in the state of the world, ")?;
        write!(f, "{delta} of {delta_size:.3} MiB incremental")
    }
}

/// What one has, with the versions.
#[derive(Debug, Default)]
struct Held {
    clusters: BTreeMap<String, String>,
    endpoints: BTreeMap<String, (String, Addresses)>,
    /// Of the last response of clusters and endpoints, in the state of the world.
    versions: [String; 2],
}

impl Sidecars {
    /// So many, in the two dialects by turns, that follow all clusters and the endpoints of these services.
    pub fn start(xds: SocketAddr, count: usize, services: Vec<String>) -> Self {
        let have = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let (tally, taken, read) = Default::default();
        let shared = Arc::new(Shared { xds, services, tally, taken, read, have });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let sidecar = Sidecar { number, held: Held::default(), shared: shared.clone() };
            if number % 2 == 0 {
                tasks.spawn(sidecar.run::<StateOfTheWorld>());
            } else {
                tasks.spawn(sidecar.run::<Incremental>());
            }
        }
        Self { shared, _tasks: tasks }
    }

    /// How many have exactly so many endpoints.
    pub fn having(&self, endpoints: usize) -> usize {
        self.shared.have.iter().filter(|have| have.load(Relaxed) == endpoints).count()
    }

    /// What they were sent since the last time that this was asked.
    pub fn sent(&self) -> Sent {
        let Tally { streams, responses, bytes } = &self.shared.tally;
        let mebibytes = |bytes: &AtomicU64| bytes.swap(0, Relaxed) as f64 / f64::from(1 << 20);
        Sent {
            streams: streams.swap(0, Relaxed),
            responses: responses.each_ref().map(|count| count.swap(0, Relaxed)),
            mebibytes: bytes.each_ref().map(mebibytes),
        }
    }

    /// Nobody has been told that something is gone.
    #[track_caller]
    pub fn have_lost_nothing(&self) {
        let taken = self.shared.taken.lock().expect("nobody panics with it");
        assert!(taken.is_empty(), "{} were taken away: {:#?}", taken.len(), &taken[..taken.len().min(10)]);
    }
}

/// What differs between the dialects.
trait Speaks: Dialect {
    fn subscriptions(sidecar: &Sidecar) -> Vec<Self::Request>;
    /// Takes a response in; answers with the ACK.
    fn hear(sidecar: &mut Sidecar, response: Self::Response) -> Self::Request;
}

struct Sidecar {
    number: usize,
    held: Held,
    shared: Arc<Shared>,
}

impl Sidecar {
    /// Follows until it is dropped, over as many streams as it takes.
    async fn run<D: Speaks>(mut self) {
        loop {
            // Why a stream ended is of no matter: the test looks at what is there in the end.
            let _ = self.follow::<D>().await;
            let wait = BACKOFF.mul_f64(rand::rng().random());
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow<D: Speaks>(&mut self) -> Result<(), Status> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.shared.xds)).expect("an address");
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut stream: Stream<D> = Stream::try_open_on(channel, D::AGGREGATED).await?;
        self.shared.tally.streams.fetch_add(1, Relaxed);
        for request in D::subscriptions(self) {
            stream.tell(request).await;
        }
        while let Some(response) = stream.message().await? {
            let ack = D::hear(self, response);
            stream.tell(ack).await;
        }
        Ok(())
    }

    fn node(&self) -> Option<Node> {
        Some(Node { id: format!("sidecar-{}", self.number), cluster: "storm".into(), ..Default::default() })
    }

    fn count(&self, dialect: usize, bytes: usize) {
        self.shared.tally.responses[dialect].fetch_add(1, Relaxed);
        self.shared.tally.bytes[dialect].fetch_add(bytes as u64, Relaxed);
    }

    fn taken(&self, what: String) {
        let taken = format!("sidecar-{} was told that {what}", self.number);
        self.shared.taken.lock().expect("nobody panics with it").push(taken);
    }

    fn has_assignment(&mut self, service: &str, version: &str, bytes: &[u8]) {
        let now = self.shared.addresses(service, bytes);
        let before = self.held.endpoints.insert(service.to_owned(), (version.to_owned(), now.clone()));
        if let Some((_, before)) = before
            && !Arc::ptr_eq(&before, &now)
        {
            let gone: Vec<&String> = before.difference(&now).collect();
            if !gone.is_empty() {
                self.taken(format!("{gone:?} of {service} are gone"));
            }
        }
        let count = self.held.endpoints.values().map(|(_, addresses)| addresses.len()).sum();
        self.shared.have[self.number].store(count, Relaxed);
    }
}

impl Shared {
    /// The endpoints of an assignment, read once.
    fn addresses(&self, service: &str, bytes: &[u8]) -> Addresses {
        let mut read = self.read.lock().expect("nobody panics with it");
        let known = read.entry(service.to_owned()).or_default();
        if let Some((_, addresses)) = known.iter().find(|(of, _)| of == bytes) {
            return addresses.clone();
        }
        let assignment = ClusterLoadAssignment::decode(bytes).expect("an assignment");
        let addresses: Addresses = Arc::new(ads::endpoints(&assignment).into_iter().map(|(at, ..)| at).collect());
        known.push((bytes.to_vec(), addresses.clone()));
        addresses
    }
}

fn content(any: Option<&Any>) -> &[u8] {
    any.map(|any| &*any.value).unwrap_or_default()
}

impl Speaks for StateOfTheWorld {
    fn subscriptions(sidecar: &Sidecar) -> Vec<DiscoveryRequest> {
        let request = |at: usize| DiscoveryRequest {
            node: sidecar.node(),
            version_info: sidecar.held.versions[at].clone(),
            type_url: [CLUSTER, ENDPOINT][at].type_url().into(),
            resource_names: if at == 0 { Vec::new() } else { sidecar.shared.services.clone() },
            ..Default::default()
        };
        vec![request(0), request(1)]
    }

    fn hear(sidecar: &mut Sidecar, response: DiscoveryResponse) -> DiscoveryRequest {
        sidecar.count(0, response.encoded_len());
        let at = usize::from(response.type_url == ENDPOINT.type_url());
        sidecar.held.versions[at].clone_from(&response.version_info);
        if at == 1 {
            for resource in &response.resources {
                let name = assignment_name(&resource.value);
                sidecar.has_assignment(&name, "", &resource.value);
            }
        } else {
            let version = || response.version_info.clone();
            let name = |any: &Any| (ads::decode::<NameOnly>(CLUSTER, any).name, version());
            let now: BTreeMap<_, _> = response.resources.iter().map(name).collect();
            let gone: Vec<String> =
                sidecar.held.clusters.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
            if !gone.is_empty() {
                sidecar.taken(format!("the clusters {gone:?} are gone"));
            }
            sidecar.held.clusters = now;
        }
        let names = if at == 0 { Vec::new() } else { sidecar.shared.services.clone() };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Stream::<StateOfTheWorld>::acked(&response, &names)
    }
}

impl Speaks for Incremental {
    fn subscriptions(sidecar: &Sidecar) -> Vec<DeltaDiscoveryRequest> {
        let clusters = sidecar.held.clusters.clone();
        let version = |(name, (version, _)): (&String, &(String, Addresses))| (name.clone(), version.clone());
        let endpoints = sidecar.held.endpoints.iter().map(version);
        let request =
            |kind: ads::ResourceType, names: &[String], versions: BTreeMap<String, String>| DeltaDiscoveryRequest {
                node: sidecar.node(),
                type_url: kind.type_url().into(),
                resource_names_subscribe: names.to_vec(),
                initial_resource_versions: versions.into_iter().collect(),
                ..Default::default()
            };
        vec![request(CLUSTER, &[], clusters), request(ENDPOINT, &sidecar.shared.services, endpoints.collect())]
    }

    fn hear(sidecar: &mut Sidecar, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        sidecar.count(1, response.encoded_len());
        if !response.removed_resources.is_empty() {
            sidecar.taken(format!("{:?} of {} are gone", response.removed_resources, response.type_url));
        }
        for resource in &response.resources {
            if response.type_url == ENDPOINT.type_url() {
                sidecar.has_assignment(&resource.name, &resource.version, content(resource.resource.as_ref()));
            } else {
                sidecar.held.clusters.insert(resource.name.clone(), resource.version.clone());
            }
        }
        let (type_url, response_nonce) = (response.type_url, response.nonce);
        DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }
    }
}

/// A cluster or an assignment, of which only the name is read: it is the first field of both.
#[derive(Clone, PartialEq, Message)]
struct NameOnly {
    #[prost(string, tag = "1")]
    name: String,
}

fn assignment_name(bytes: &[u8]) -> String {
    NameOnly::decode(bytes).expect("an assignment").name
}
