//! xDS requests that are well-formed and senseless, or simply too much.

use std::{collections::HashMap, time::Instant};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use tonic::Code;

use super::Witness;
use crate::support::{
    ads::{
        self, CLUSTER, Dialect, ENDPOINT, Incremental, LISTENER, ROUTE, StateOfTheWorld, error, names, node, numbered,
    },
    within,
};

type Stream = ads::Stream<Incremental>;
type Whole = ads::Stream<StateOfTheWorld>;

const UNKNOWN: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
const MIB: usize = 1024 * 1024;
/// What a proxy said is shown, and not a mebibyte of it.
const LONGEST_LIST: usize = 64 * 1024;

impl Witness {
    async fn ads<D: Dialect>(&self) -> ads::Stream<D> {
        ads::Stream::open(self.child.addresses.xds, D::AGGREGATED).await
    }

    async fn refused(&self, request: DeltaDiscoveryRequest, what: &str) {
        let mut stream: Stream = self.ads().await;
        stream.say(request).await;
        assert_eq!(stream.end().await.code(), Code::ResourceExhausted, "{what}");
    }

    async fn refused_whole(&self, request: DiscoveryRequest, what: &str) {
        let mut stream: Whole = self.ads().await;
        stream.say(request).await;
        assert_eq!(stream.end().await.code(), Code::ResourceExhausted, "{what}");
    }
}

fn of_names(kind: ads::ResourceType, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: names, ..Stream::subscribe(kind, &[]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_names_and_names_too_long_end_the_stream() {
    let mut witness = Witness::start().await;
    for (what, names) in [
        ("200 001 names", numbered("n", 200_001)),
        ("a name of 4 097 bytes", vec!["x".repeat(4_097)]),
        ("a name of 1 MiB", vec!["x".repeat(MIB)]),
    ] {
        for kind in [CLUSTER, ENDPOINT, LISTENER] {
            witness.refused(of_names(kind, names.clone()), what).await;
            let whole = DiscoveryRequest { resource_names: names.clone(), ..Whole::subscribe(kind, &[]) };
            witness.refused_whole(whole, what).await;
        }
        let held = names.iter().map(|name| (name.clone(), "1".into())).collect();
        let request = DeltaDiscoveryRequest { initial_resource_versions: held, ..Stream::subscribe(ENDPOINT, &[]) };
        witness.refused(request, what).await;
        let unknown = DeltaDiscoveryRequest { type_url: UNKNOWN.into(), ..of_names(ENDPOINT, names) };
        witness.refused(unknown, &format!("{what} of an unknown type")).await;
    }
    witness.check("too many names").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_names_as_allowed_are_answered_in_good_time() {
    let mut witness = Witness::start().await;
    let half = numbered("n", 100_000);
    let mut stream: Stream = witness.ads().await;
    let asked = Instant::now();
    // A client that comes back says twice what it holds: as names, and with versions.
    let held: HashMap<String, String> = half.iter().map(|name| (name.clone(), "0".repeat(32))).collect();
    stream.say(DeltaDiscoveryRequest { initial_resource_versions: held, ..of_names(ENDPOINT, half) }).await;
    let answer = stream.next().await;
    assert_eq!(answer.removed_resources.len(), 100_000);
    println!("100 000 names of a client that returns: answered after {:?}", asked.elapsed());
    drop(stream);
    let asked = Instant::now();
    let mut stream: Stream = witness.ads().await;
    stream.say(of_names(CLUSTER, numbered("n", 200_000))).await;
    assert_eq!(stream.next().await.removed_resources.len(), 200_000);
    println!("200 000 names of a new client: answered after {:?}", asked.elapsed());
    drop(stream);
    witness.memory_mib += 256;
    witness.check("200 000 names").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senseless_requests_are_ignored_or_refused() {
    let mut witness = Witness::start().await;
    let mut stream: Stream = witness.ads().await;
    let first = stream.ask(Stream::subscribe(ENDPOINT, &["witness"])).await;
    stream.ack(&first).await;
    for request in [
        // A NACK of what was never sent; of a type that was never asked for.
        DeltaDiscoveryRequest {
            response_nonce: "of-nowhere".into(),
            error_detail: error("no"),
            ..Stream::subscribe(ENDPOINT, &[])
        },
        DeltaDiscoveryRequest {
            response_nonce: first.nonce.clone(),
            error_detail: error("no"),
            ..Stream::change(ROUTE, &[], &["nothing"])
        },
        Stream::change(ENDPOINT, &[], &["never", "subscribed", "", "*"]),
        Stream::change(ENDPOINT, &[], &["*"]),
    ] {
        stream.say(request).await;
    }
    stream.nothing_before("probe").await;
    for name in
        ["", " ", "..", "../../etc/passwd", "\0", "a/b/c", "web:", ":", "💥", "convoy/outbound", &"x".repeat(4_096)]
    {
        for kind in [CLUSTER, ENDPOINT] {
            let answer = stream.ask(Stream::subscribe(kind, &[name, name])).await;
            assert_eq!((answer.resources.len(), &*answer.removed_resources), (0, &[name.to_owned()][..]), "{name:?}");
            stream.ack(&answer).await;
        }
    }
    let again = stream.ask(Stream::subscribe(ENDPOINT, &["witness"])).await;
    assert_eq!(names(&again.resources), ["witness"]);
    witness.check("senseless requests").await;
}

/// What a client says of itself, and of a response, is kept and shown: so it has a limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_says_is_shown_in_part_when_it_is_long() {
    let mut witness = Witness::start().await;
    let long = "x".repeat(MIB);
    for node in [
        Node { id: long.clone(), ..Default::default() },
        Node { cluster: long.clone(), ..node().expect("a node") },
        Node { user_agent_name: long.clone(), ..node().expect("a node") },
    ] {
        let mut stream: Stream = witness.ads().await;
        let request = DeltaDiscoveryRequest { node: Some(node), ..Stream::subscribe(ENDPOINT, &["witness"]) };
        stream.say(request).await;
        // Refused or served: in both cases there is something to read, and the list stays readable.
        let first = within("an answer or an end", stream.message()).await;
        let listed = witness.api().http.get("/v1/proxies").await;
        assert!(listed.text.len() < LONGEST_LIST, "a list of {} bytes; {:?}", listed.text.len(), first.is_ok());
    }
    let mut stream: Stream = witness.ads().await;
    let first = stream.ask(Stream::subscribe(ENDPOINT, &["witness"])).await;
    let (type_url, response_nonce) = (first.type_url.clone(), first.nonce.clone());
    stream
        .say(DeltaDiscoveryRequest { type_url, response_nonce, error_detail: error(&long), ..Default::default() })
        .await;
    stream.nothing_before("probe").await;
    let listed = witness.api().http.get("/v1/proxies").await;
    assert!(listed.text.contains("xxx") && listed.text.len() < LONGEST_LIST, "a list of {} bytes", listed.text.len());
    drop(stream);

    let path = "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters";
    let mut single: Stream = ads::Stream::open(witness.child.addresses.xds, path).await;
    single.say(DeltaDiscoveryRequest { type_url: long, ..Stream::subscribe(CLUSTER, &[]) }).await;
    assert_eq!(single.end().await.code(), Code::InvalidArgument);
    witness.check("long words").await;
}
