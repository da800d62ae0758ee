//! Bad xDS clients beside good ones: some never ACK, some refuse everything, some open streams and close them as fast as
//! they can, some never read. The good ones get each change meanwhile, Convoy's memory is bounded, and it says who is bad.
//!
//! `CONVOY_BAD_CLIENTS=200 CONVOY_BAD_CHANGES=2000 cargo test --test storms bad_clients -- --nocapture` for long.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use convoy_client::proto::Registration;
use envoy_types::pb::envoy::{
    config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Status, transport::Endpoint};

use crate::{
    machine, size,
    support::{
        ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, ResourceType, StateOfTheWorld, Stream, error},
        child::{Child, Home},
        sample::{call, instance, instances},
        until, within,
    },
};

/// So many of each kind, half of them in each dialect.
const BAD: (&str, usize) = ("CONVOY_BAD_CLIENTS", 10);
/// These share the processor with all else, so there is no use in more.
const HASTY: usize = 4;
const CHANGES: (&str, u32) = ("CONVOY_BAD_CHANGES", 100);
const SERVICES: u32 = 40;
/// Their endpoints are several times what fits into the windows of who never reads.
const INSTANCES: u32 = 100;
const A_CALL: u32 = 50;
/// The smallest window of HTTP/2.
const NARROW: u32 = 65_535;
/// What an instance weighs of which nothing is said.
const USUAL: u32 = 100;
/// Each of the changes makes an instance heavier; this many before it is as at first.
const STEPS: u32 = 60_000;
const REFUSAL: &str = "not with me";
/// A bound that tells only whether the good ones are kept waiting for the bad: these never answer.
const LATEST: Duration = Duration::from_secs(5);
/// What a bad client may cost, and all together; and how much more of it there may be after the second half of the changes.
const MIB_EACH: usize = 2;
const MIB_ALL: usize = 64;
const GROWTH_MIB: u64 = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_clients_do_not_keep_the_good_ones_waiting() {
    let _turn = machine::alone().await;
    let (bad, changes) = (size::said(BAD.0, BAD.1), size::said(CHANGES.0, CHANGES.1));
    let home = Home::new("storage: memory\nsettle: 0s\n");
    let mut convoy = Child::start(&home).await;
    for number in 0..SERVICES {
        for from in (0..INSTANCES).step_by(A_CALL as usize) {
            let request = instances(&service(number), from..from + A_CALL);
            convoy.api.register(request).await.expect("registered");
        }
    }
    let xds = convoy.addresses.xds;
    let mut good = [Good::start::<StateOfTheWorld>(xds).await, Good::start::<Incremental>(xds).await];
    let mut step = 0;
    let alone = times(&convoy, &mut good, &mut step, changes).await;
    let before = convoy.memory_mib();

    let (mut clients, opened) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    for number in 0..bad {
        for kind in [Bad::Mute, Bad::Refuser, Bad::Deaf] {
            if number % 2 == 0 {
                clients.spawn(misbehave::<StateOfTheWorld>(kind, xds, number));
            } else {
                clients.spawn(misbehave::<Incremental>(kind, xds, number));
            }
        }
    }
    for number in 0..HASTY {
        let opened = opened.clone();
        if number % 2 == 0 {
            clients.spawn(hurry::<StateOfTheWorld>(xds, number, opened));
        } else {
            clients.spawn(hurry::<Incremental>(xds, number, opened));
        }
    }
    for number in 0..bad {
        are_known(&convoy, number).await;
    }
    let with_half = times(&convoy, &mut good, &mut step, changes.div_ceil(2)).await;
    let half = convoy.memory_mib();
    let with_all = times(&convoy, &mut good, &mut step, changes.div_ceil(2)).await;
    let after = convoy.memory_mib();
    let with: Vec<Duration> = with_half.into_iter().chain(with_all).collect();

    // Who has nothing yet is served, too.
    let begun = Instant::now();
    let newcomer = Good::start::<Incremental>(xds).await;
    let newcomer_after = begun.elapsed();
    drop(newcomer);

    println!(
        "{bad} clients of each kind that is bad, {HASTY} of them hasty ({} streams): a change was in the good ones after \
         {}, without the bad {}; {before} MiB without, {half} at half, {after} at the end; a newcomer had everything \
         after {newcomer_after:.1?}",
        opened.load(Relaxed),
        told(&with),
        told(&alone)
    );
    assert!(opened.load(Relaxed) > HASTY, "they open one stream after the other");
    let (_, slowest) = median_and_p99(&with);
    assert!(slowest < LATEST, "the good ones wait for the bad: {}", told(&with));
    let bound = before + (MIB_ALL + 3 * bad * MIB_EACH) as u64;
    assert!(after < bound && after < half + GROWTH_MIB, "{before} MiB, then {half}, {after}; the bound is {bound}");
    assert!(clients.try_join_next().is_none(), "the bad ones go on to the end");
    for number in 0..bad {
        are_known(&convoy, number).await;
    }
    say_who_they_are(&convoy, opened.load(Relaxed)).await;
    convoy.assert_running();
}

fn service(number: u32) -> String {
    format!("service-{number}")
}

/// Changes one instance after the other, and waits until all the good ones have it: how long that took.
async fn times(convoy: &Child, good: &mut [Good; 2], step: &mut u32, changes: u32) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..changes {
        *step += 1;
        let (service, weight) = (service(*step % SERVICES), USUAL + *step % STEPS);
        let changed = Registration { weight: Some(weight), ..instance(&service, 0) };
        let begun = Instant::now();
        convoy.api.register(call([changed])).await.expect("changed");
        for good in &mut *good {
            let seen = good.seen.wait_for(|seen| seen.get(&service).is_some_and(|(of, _)| *of == weight));
            let (_, at) = within("a change", seen).await.expect("it goes on")[&service];
            times.push(at - begun);
        }
    }
    times
}

fn median_and_p99(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    (sorted[sorted.len() / 2], sorted[sorted.len() * 99 / 100])
}

fn told(times: &[Duration]) -> String {
    let (median, p99) = median_and_p99(times);
    format!("{median:.1?} (median) and {p99:.1?} (p99 of {})", times.len())
}

/// The heaviest endpoint of each service, and when it was heard of.
type Seen = BTreeMap<String, (u32, Instant)>;

/// One that reads, and ACKs what it reads.
struct Good {
    seen: watch::Receiver<Seen>,
    _task: JoinSet<()>,
}

impl Good {
    /// Begins from nothing, and has everything.
    async fn start<D: Speaks>(xds: SocketAddr) -> Self {
        let (telling, mut seen) = watch::channel(Seen::new());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = begin::<D>(xds, "good", i32::MAX as u32).await.expect("a stream");
            // The test sees that nothing comes any more.
            while let Ok(Some(response)) = stream.message().await {
                let now = Instant::now();
                stream.tell(D::answer(&response, None)).await;
                let heaviest = |of: &ClusterLoadAssignment| ads::endpoints(of).into_iter().map(|(_, of, _)| of).max();
                let assignments = D::assignments(&response);
                telling.send_modify(|seen| {
                    for of in &assignments {
                        seen.insert(of.cluster_name.clone(), (heaviest(of).unwrap_or_default(), now));
                    }
                });
            }
        });
        within("everything", seen.wait_for(|seen| seen.len() == SERVICES as usize)).await.expect("it goes on");
        Self { seen, _task: task }
    }
}

#[derive(Clone, Copy, Debug)]
enum Bad {
    /// Reads, and never ACKs.
    Mute,
    /// NACKs whatever comes.
    Refuser,
    /// Never reads.
    Deaf,
}

impl Bad {
    fn node(self, number: usize) -> String {
        format!("{self:?}-{number}").to_lowercase()
    }
}

/// Runs until it is dropped; a stream of it that ends is a stream that Convoy has ended.
async fn misbehave<D: Speaks>(kind: Bad, xds: SocketAddr, number: usize) {
    let Ok(mut stream) = begin::<D>(xds, &kind.node(number), NARROW).await else { return };
    loop {
        match kind {
            Bad::Deaf => std::future::pending().await,
            Bad::Mute | Bad::Refuser => {
                let Ok(Some(response)) = stream.message().await else { return };
                if matches!(kind, Bad::Refuser) {
                    stream.tell(D::answer(&response, Some(REFUSAL))).await;
                }
            }
        }
    }
}

/// Opens one stream after the other: half of them close it at once, the others when something has come.
async fn hurry<D: Speaks>(xds: SocketAddr, number: usize, opened: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stream) = begin::<D>(xds, &hasty(number), NARROW).await else { continue };
        if number >= HASTY / 2 {
            // The next one is opened whatever it is.
            let _ = stream.message().await;
        }
        opened.fetch_add(1, Relaxed);
    }
}

fn hasty(number: usize) -> String {
    format!("hasty-{number}")
}

/// A stream on a connection of its own, that asks for all clusters and the endpoints of all services.
async fn begin<D: Speaks>(xds: SocketAddr, node: &str, window: u32) -> Result<Stream<D>, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{xds}")).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let stream = Stream::try_open_on(channel, D::AGGREGATED).await?;
    stream.tell(D::subscribe(node, CLUSTER)).await;
    stream.tell(D::subscribe(node, ENDPOINT)).await;
    Ok(stream)
}

/// Convoy says of the bad with this number what they have done.
async fn are_known(convoy: &Child, number: usize) {
    for kind in [Bad::Mute, Bad::Refuser, Bad::Deaf] {
        let node = kind.node(number);
        until(&format!("what {node} is known for"), async || {
            let answer = convoy.api.http.get(&format!("/v1/proxies/{node}")).await;
            let shown = answer.json();
            let stream: &Value = &shown["proxies"][0];
            let clusters = stream["types"].as_array()?.iter().find(|of| of["type"] == "clusters")?;
            let known = match kind {
                Bad::Mute | Bad::Deaf => clusters["sync"] == "pending" && clusters["version_acked"] == "",
                Bad::Refuser => clusters["sync"] == "rejected" && clusters["last_nack"]["message"] == REFUSAL,
            };
            (stream["connected"] == true && known).then_some(())
        })
        .await;
    }
}

/// The same, as an operator sees it; so many streams at least were opened.
async fn say_who_they_are(convoy: &Child, opened: usize) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
    let server = format!("http://{}", convoy.addresses.grpc);
    command.env_clear().args(["--server", &server, "proxy", "status"]);
    let output = within("a command", command.output()).await.expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let says = |node: &str, words: &[&str]| {
        let of_node = |line: &&str| line.starts_with(node) && words.iter().all(|word| line.contains(word));
        assert!(printed.lines().any(|line| of_node(&line)), "nothing of {node} with {words:?}:\n{printed}");
    };
    says("good ", &["endpoints", "SYNCED"]);
    says("mute-0 ", &["endpoints", "PENDING"]);
    says("deaf-0 ", &["endpoints", "PENDING"]);
    says("refuser-0 ", &["endpoints", "REJECTED", REFUSAL]);
    // It may be there at the moment, or have left.
    says(&hasty(HASTY - 1), &[]);
    let metrics = convoy.api.http.get("/metrics").await.text;
    let of = |name: &str| -> usize {
        let line = |line: &str| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<usize>().ok();
        metrics.lines().filter_map(line).sum()
    };
    assert!(of("convoy_xds_nacks_total{type=\"clusters\"}") > 0, "{metrics}");
    // Who closes at once may have said nothing of itself, but is counted.
    let counted = of("convoy_xds_streams_opened_total");
    assert!(counted >= opened, "{counted} of {opened} streams: {metrics}");
    let open = of("convoy_xds_streams{");
    assert!(open < counted, "{open} open, {counted} opened");
}

/// What differs between the dialects.
trait Speaks: Dialect {
    fn subscribe(node: &str, kind: ResourceType) -> Self::Request;
    /// An ACK, or a NACK.
    fn answer(response: &Self::Response, refusal: Option<&str>) -> Self::Request;
    fn assignments(response: &Self::Response) -> Vec<ClusterLoadAssignment>;
}

fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.into(), cluster: "storm".into(), ..Default::default() })
}

fn names(kind: ResourceType) -> Vec<String> {
    if kind == CLUSTER { Vec::new() } else { (0..SERVICES).map(service).collect() }
}

impl Speaks for StateOfTheWorld {
    fn subscribe(id: &str, kind: ResourceType) -> DiscoveryRequest {
        let (type_url, resource_names) = (kind.type_url().into(), names(kind));
        DiscoveryRequest { node: node(id), type_url, resource_names, ..Default::default() }
    }

    fn answer(response: &DiscoveryResponse, refusal: Option<&str>) -> DiscoveryRequest {
        let kind = if response.type_url == CLUSTER.type_url() { CLUSTER } else { ENDPOINT };
        let names = names(kind);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let acked = Stream::<StateOfTheWorld>::acked(response, &names);
        match refusal {
            // Nothing has ever been accepted.
            Some(why) => DiscoveryRequest { version_info: String::new(), error_detail: error(why), ..acked },
            None => acked,
        }
    }

    fn assignments(response: &DiscoveryResponse) -> Vec<ClusterLoadAssignment> {
        let all = if response.type_url == ENDPOINT.type_url() { &response.resources[..] } else { &[] };
        all.iter().map(|any| ads::decode(ENDPOINT, any)).collect()
    }
}

impl Speaks for Incremental {
    fn subscribe(id: &str, kind: ResourceType) -> DeltaDiscoveryRequest {
        let (type_url, resource_names_subscribe) = (kind.type_url().into(), names(kind));
        DeltaDiscoveryRequest { node: node(id), type_url, resource_names_subscribe, ..Default::default() }
    }

    fn answer(response: &DeltaDiscoveryResponse, refusal: Option<&str>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.and_then(error),
            ..Default::default()
        }
    }

    fn assignments(response: &DeltaDiscoveryResponse) -> Vec<ClusterLoadAssignment> {
        let all = if response.type_url == ENDPOINT.type_url() { &response.resources[..] } else { &[] };
        all.iter().map(ads::assignment).collect()
    }
}
