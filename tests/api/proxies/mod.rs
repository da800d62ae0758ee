//! What is known of proxies, who has everything, and the drain barrier: through both faces, with clients of the real
//! xDS port.

mod barrier;
mod commands;
mod convergence;
mod csds;
mod dialects;
mod standing;

use convoy_client::proto::{RegisterResponse, Registration};
use envoy_types::pb::envoy::{
    config::core::v3::{Locality, Node},
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, Incremental, ResourceType},
    sample::{call, instance, instances},
    server::Convoy,
};

pub type Stream = ads::Stream<Incremental>;

async fn with_services(services: &[&str]) -> Convoy {
    let convoy = Convoy::start().await;
    for service in services {
        convoy.api.register(instances(service, 1..2)).await.expect("registered");
    }
    convoy
}

/// Changes the service's endpoints.
async fn weigh(convoy: &Convoy, service: &str, weight: u32) -> RegisterResponse {
    let registration = Registration { weight: Some(weight), ..instance(service, 1) };
    convoy.api.register(call([registration])).await.expect("changed")
}

fn ask(node: &str, kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    let locality = Locality { region: "us".into(), zone: "us-a".into(), ..Default::default() };
    let node = Node { id: node.into(), cluster: "tests".into(), locality: Some(locality), ..Default::default() };
    DeltaDiscoveryRequest { node: Some(node), ..Stream::subscribe(kind, names) }
}

/// A proxy that follows all clusters and these endpoints, and has ACKed what there is.
pub async fn proxy(convoy: &Convoy, node: &str, services: &[&str]) -> Stream {
    let mut stream: Stream = convoy.ads().await;
    let clusters = stream.ask(ask(node, CLUSTER, &[])).await;
    stream.ack(&clusters).await;
    let endpoints = stream.ask(ask(node, ENDPOINT, services)).await;
    stream.ack(&endpoints).await;
    stream
}

pub fn refusal(of: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (of.type_url.clone(), of.nonce.clone());
    DeltaDiscoveryRequest { type_url, response_nonce, error_detail: ads::error(message), ..Default::default() }
}

/// Accepts what comes next.
async fn accept(stream: &mut Stream) {
    let pushed = stream.next().await;
    stream.ack(&pushed).await;
}
