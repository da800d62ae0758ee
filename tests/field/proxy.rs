//! A proxy that follows the service's endpoints, and remembers all that it was sent.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use envoy_types::pb::envoy::{
    config::{core::v3::HealthStatus, core::v3::Node},
    service::discovery::v3::DeltaDiscoveryRequest,
};
use tokio::task::JoinSet;

use crate::{
    fleet::SERVICE,
    support::{
        ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, ResourceType, Stream},
        server::Addresses,
    },
};

/// Its node id.
pub const NODE: &str = "sidecar";

pub type Endpoints = Vec<(String, u32, HealthStatus)>;

/// Reads and accepts until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    held: Arc<Mutex<Vec<(Instant, Endpoints)>>>,
    _reader: JoinSet<()>,
}

impl Proxy {
    /// Begins with what there is.
    pub async fn connect(addresses: Addresses) -> Self {
        let mut stream: Stream<Incremental> = Stream::open(addresses.xds, Incremental::AGGREGATED).await;
        let clusters = stream.ask(ask(CLUSTER, &[])).await;
        stream.ack(&clusters).await;
        stream.say(ask(ENDPOINT, &[SERVICE])).await;
        let held = Arc::<Mutex<Vec<_>>>::default();
        let (mut reader, holding) = (JoinSet::new(), held.clone());
        reader.spawn(async move {
            loop {
                // The test says how long it may take; the stream's end is seen as no endpoints any more.
                let Ok(Some(response)) = stream.message().await else { break };
                stream.ack(&response).await;
                if response.type_url == ENDPOINT.type_url() {
                    let endpoints = response.resources.first().map(ads::assignment);
                    let endpoints = endpoints.map(|assignment| ads::endpoints(&assignment)).unwrap_or_default();
                    holding.lock().expect("nobody panics with it").push((Instant::now(), endpoints));
                }
            }
            holding.lock().expect("nobody panics with it").push((Instant::now(), Vec::new()));
        });
        Self { held, _reader: reader }
    }

    /// The endpoints that it has.
    pub fn endpoints(&self) -> Endpoints {
        let held = self.held.lock().expect("nobody panics with it");
        held.last().map(|(_, endpoints)| endpoints.clone()).unwrap_or_default()
    }

    /// How many of its endpoints have this health.
    pub fn count(&self, health: HealthStatus) -> usize {
        self.endpoints().iter().filter(|(.., of)| *of == health).count()
    }

    /// All that it has had since then, one after the other.
    #[allow(dead_code, reason = "for the tests of storms")]
    pub fn all_since(&self, since: Instant) -> Vec<Endpoints> {
        let held = self.held.lock().expect("nobody panics with it");
        let begin = held.iter().rposition(|(at, _)| *at <= since).unwrap_or_default();
        held[begin..].iter().map(|(_, endpoints)| endpoints.clone()).collect()
    }

    /// The fewest endpoints that it has had since then, whatever their health.
    pub fn fewest_since(&self, since: Instant) -> usize {
        let held = self.held.lock().expect("nobody panics with it");
        let begin = held.iter().rposition(|(at, _)| *at <= since).unwrap_or_default();
        held[begin..].iter().map(|(_, endpoints)| endpoints.len()).min().unwrap_or_default()
    }
}

fn ask(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    let node = Node { id: NODE.into(), cluster: "tests".into(), ..Default::default() };
    DeltaDiscoveryRequest { node: Some(node), ..Stream::<Incremental>::subscribe(kind, names) }
}
