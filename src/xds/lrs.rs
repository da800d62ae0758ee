//! LRS: proxies report how many requests they send, to which clusters, localities and endpoints. Kept as last reported
//! while the proxy's stream lasts, in memory only; everything that a proxy can make grow has a limit.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/load_stats/v3/lrs.proto>

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{Address, address, socket_address::PortSpecifier},
            endpoint::v3::ClusterStats,
        },
        service::load_stats::v3::{
            LoadStatsRequest, LoadStatsResponse,
            load_reporting_service_server::{LoadReportingService, LoadReportingServiceServer},
        },
    },
    google::protobuf::Duration as WireDuration,
};
use futures_util::{Stream as Messages, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::model::Locality;

pub const NAME: &str = "envoy.service.load_stats.v3.LoadReportingService";
/// How often proxies report.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Streams that are heard at the same time; of more nothing is kept.
const MAX_STREAMS: usize = 20_000;
/// What is kept of one stream: clusters, and of each of these places and endpoints.
const MAX_CLUSTERS: usize = 10_000;
const MAX_PLACES: usize = 256;
const MAX_ENDPOINTS: usize = 10_000;
/// And of all streams together, clusters, places and endpoints, and what their names take.
const MAX_ENTRIES: usize = 1_000_000;
/// So many bytes of names count as one more.
const BYTES_OF_ENTRY: usize = 64;
/// Of a cluster, a node, and the parts of a place together; what has a longer one is not kept.
const MAX_NAME_BYTES: usize = 1024;
/// A report of ten thousand clusters is smaller.
const MAX_REPORT_BYTES: usize = 8 << 20;
/// A shorter interval would make rates of nothing.
const SHORTEST: Duration = Duration::from_millis(100);

/// Requests a second, and those under way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub issued: f64,
    pub succeeded: f64,
    pub failed: f64,
    pub in_progress: u64,
}

impl Rates {
    /// Of counts over so many seconds.
    fn over(seconds: f64, counts: [u64; 3], in_progress: u64) -> Self {
        let [issued, succeeded, failed] = counts.map(|count| count as f64 / seconds);
        Self { issued, succeeded, failed, in_progress }
    }

    pub fn add(&mut self, other: Self) {
        self.issued += other.issued;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.in_progress = self.in_progress.saturating_add(other.in_progress);
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// What is reported about one cluster, by one proxy or by several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterLoad {
    pub total: Rates,
    pub dropped: f64,
    pub places: BTreeMap<Locality, Rates>,
    pub endpoints: HashMap<SocketAddr, Rates>,
}

impl ClusterLoad {
    fn new(stats: &ClusterStats) -> Self {
        let interval = stats.load_report_interval.as_ref().and_then(duration).unwrap_or(INTERVAL);
        let seconds = interval.max(SHORTEST).as_secs_f64();
        let mut load = Self { dropped: stats.total_dropped_requests as f64 / seconds, ..Self::default() };
        for place in &stats.upstream_locality_stats {
            let counts = [place.total_issued_requests, place.total_successful_requests, place.total_error_requests];
            let rates = Rates::over(seconds, counts, place.total_requests_in_progress);
            load.total.add(rates);
            let locality = place.locality.clone().unwrap_or_default();
            let locality = Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone };
            load.add_place(&locality, rates);
            for endpoint in &place.upstream_endpoint_stats {
                let Some(address) = endpoint.address.as_ref().and_then(socket_address) else { continue };
                let counts =
                    [endpoint.total_issued_requests, endpoint.total_successful_requests, endpoint.total_error_requests];
                load.add_endpoint(address, Rates::over(seconds, counts, endpoint.total_requests_in_progress));
            }
        }
        load
    }

    fn add_place(&mut self, place: &Locality, rates: Rates) {
        if let Some(known) = self.places.get_mut(place) {
            known.add(rates);
        } else if self.places.len() < MAX_PLACES && bytes_of(place) <= MAX_NAME_BYTES {
            self.places.insert(place.clone(), rates);
        }
    }

    fn add_endpoint(&mut self, address: SocketAddr, rates: Rates) {
        if self.endpoints.len() < MAX_ENDPOINTS || self.endpoints.contains_key(&address) {
            self.endpoints.entry(address).or_default().add(rates);
        }
    }

    fn add(&mut self, other: &Self) {
        self.total.add(other.total);
        self.dropped += other.dropped;
        for (place, rates) in &other.places {
            self.add_place(place, *rates);
        }
        for (address, rates) in &other.endpoints {
            self.add_endpoint(*address, *rates);
        }
    }

    fn is_idle(&self) -> bool {
        self.total.is_zero() && self.dropped == 0.0
    }

    fn entries(&self, name: &str) -> usize {
        let bytes = name.len() + self.places.keys().map(bytes_of).sum::<usize>();
        1 + self.endpoints.len() + self.places.len() + bytes / BYTES_OF_ENTRY
    }
}

fn bytes_of(place: &Locality) -> usize {
    place.region.len() + place.zone.len() + place.sub_zone.len()
}

fn duration(from: &WireDuration) -> Option<Duration> {
    Some(Duration::new(
        from.seconds.try_into().ok()?,
        from.nanos.try_into().ok().filter(|nanos| *nanos < 1_000_000_000)?,
    ))
}

fn socket_address(address: &Address) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(socket)) = &address.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, port.try_into().ok()?))
}

#[derive(Debug)]
struct Reporter {
    node: String,
    clusters: HashMap<String, ClusterLoad>,
    entries: usize,
}

#[derive(Debug, Default)]
struct Kept {
    streams: HashMap<u64, Arc<Reporter>>,
    entries: usize,
}

/// What proxies reported last, by stream.
#[derive(Debug, Default)]
pub struct LoadReports {
    kept: Mutex<Kept>,
    next: AtomicU64,
}

impl LoadReports {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it holds this lock")
    }

    /// A report takes the place of the stream's last. A cluster without requests is not kept.
    fn take(&self, stream: u64, node: &str, stats: &[ClusterStats]) {
        let mut clusters: HashMap<String, ClusterLoad> = HashMap::new();
        for stats in stats {
            let load = ClusterLoad::new(stats);
            if !load.is_idle()
                && stats.cluster_name.len() <= MAX_NAME_BYTES
                && (clusters.len() < MAX_CLUSTERS || clusters.contains_key(&stats.cluster_name))
            {
                clusters.entry(stats.cluster_name.clone()).or_default().add(&load);
            }
        }
        let entries: usize = clusters.iter().map(|(name, load)| load.entries(name)).sum();
        let mut kept = self.lock();
        let before = kept.streams.remove(&stream);
        kept.entries -= before.map_or(0, |before| before.entries);
        if kept.streams.len() >= MAX_STREAMS || kept.entries + entries > MAX_ENTRIES {
            tracing::debug!(node, "a load report is not kept: there are too many");
            return;
        }
        kept.entries += entries;
        kept.streams.insert(stream, Arc::new(Reporter { node: node.into(), clusters, entries }));
    }

    fn forget(&self, stream: u64) {
        let mut kept = self.lock();
        if let Some(before) = kept.streams.remove(&stream) {
            kept.entries -= before.entries;
        }
    }

    /// What all proxies together report about some clusters, and how many nodes do.
    pub fn of(&self, clusters: &[Arc<str>]) -> (ClusterLoad, usize) {
        // Summed outside of the lock: those who report wait for it on the proxies' threads.
        let reporters: Vec<Arc<Reporter>> = self.lock().streams.values().cloned().collect();
        let (mut sum, mut nodes) = (ClusterLoad::default(), HashSet::new());
        for reporter in &reporters {
            for load in clusters.iter().filter_map(|cluster| reporter.clusters.get(&**cluster)) {
                sum.add(load);
                nodes.insert(&*reporter.node);
            }
        }
        (sum, nodes.len())
    }

    /// How many streams report.
    pub fn streams(&self) -> usize {
        self.lock().streams.len()
    }
}

/// Forgets what a stream said when it ends.
#[derive(Debug)]
struct Stream {
    id: u64,
    node: String,
    reports: Arc<LoadReports>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reports.forget(self.id);
    }
}

#[derive(Debug)]
pub struct Lrs {
    reports: Arc<LoadReports>,
    stopping: watch::Receiver<bool>,
}

pub fn service(reports: Arc<LoadReports>, stopping: watch::Receiver<bool>) -> LoadReportingServiceServer<Lrs> {
    LoadReportingServiceServer::new(Lrs { reports, stopping }).max_decoding_message_size(MAX_REPORT_BYTES)
}

type Answers = Pin<Box<dyn Messages<Item = Result<LoadStatsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl LoadReportingService for Lrs {
    type StreamLoadStatsStream = Answers;

    /// One answer, to the first request: of what to report, and how often. Then it listens.
    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let id = self.reports.next.fetch_add(1, Ordering::Relaxed);
        let mut stream = Stream { id, node: String::new(), reports: self.reports.clone() };
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            // An error is the sender's end: Convoy has stopped.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let answers = request.into_inner().filter_map(move |request| std::future::ready(stream.hear(request)));
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(stopped)))))
    }
}

impl Stream {
    fn hear(&mut self, request: Result<LoadStatsRequest, Status>) -> Option<Result<LoadStatsResponse, Status>> {
        let request = match request {
            Ok(request) => request,
            Err(status) => return Some(Err(status)),
        };
        if !self.node.is_empty() {
            self.reports.take(self.id, &self.node, &request.cluster_stats);
            return None;
        }
        let node = request.node.unwrap_or_default();
        if node.id.is_empty() || node.id.len() > MAX_NAME_BYTES {
            return Some(Err(Status::invalid_argument(
                "node.id: the first request names the node, in 1 to 1024 bytes",
            )));
        }
        self.node = node.id;
        let load_reporting_interval = Some(WireDuration { seconds: INTERVAL.as_secs() as i64, nanos: 0 });
        Some(Ok(LoadStatsResponse {
            clusters: Vec::new(),
            send_all_clusters: true,
            load_reporting_interval,
            report_endpoint_granularity: true,
        }))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::{
        core::v3::{Locality as WireLocality, Node, SocketAddress},
        endpoint::v3::{UpstreamEndpointStats, UpstreamLocalityStats},
    };

    use super::*;

    fn place(zone: &str, port: u32, issued: u64, failed: u64) -> UpstreamLocalityStats {
        let socket = SocketAddress {
            address: "10.0.0.1".into(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        };
        let endpoint = UpstreamEndpointStats {
            address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
            total_issued_requests: issued,
            total_error_requests: failed,
            ..UpstreamEndpointStats::default()
        };
        UpstreamLocalityStats {
            locality: Some(WireLocality { zone: zone.into(), ..WireLocality::default() }),
            total_issued_requests: issued,
            total_error_requests: failed,
            total_requests_in_progress: 1,
            upstream_endpoint_stats: vec![endpoint],
            ..UpstreamLocalityStats::default()
        }
    }

    fn stats(cluster: &str, places: Vec<UpstreamLocalityStats>) -> ClusterStats {
        let interval = Some(WireDuration { seconds: 2, nanos: 0 });
        ClusterStats {
            cluster_name: cluster.into(),
            upstream_locality_stats: places,
            total_dropped_requests: 4,
            load_report_interval: interval,
            ..ClusterStats::default()
        }
    }

    fn stream(reports: &Arc<LoadReports>, node: &str) -> Stream {
        let id = reports.next.fetch_add(1, Ordering::Relaxed);
        let mut stream = Stream { id, node: String::new(), reports: reports.clone() };
        let node = Some(Node { id: node.into(), ..Node::default() });
        let answer = stream.hear(Ok(LoadStatsRequest { node, cluster_stats: Vec::new() })).expect("an answer");
        let answer = answer.expect("one that asks for all");
        assert!(answer.send_all_clusters && answer.report_endpoint_granularity);
        stream
    }

    fn say(stream: &mut Stream, cluster_stats: Vec<ClusterStats>) {
        assert!(stream.hear(Ok(LoadStatsRequest { node: None, cluster_stats })).is_none(), "one answer in all");
    }

    #[test]
    fn rule_67_load_reports_are_summed_over_proxies_and_forgotten_with_them() {
        let reports = Arc::<LoadReports>::default();
        let (mut one, mut two) = (stream(&reports, "one"), stream(&reports, "two"));
        say(&mut one, vec![stats("a", vec![place("x", 80, 10, 2), place("y", 81, 20, 0)]), stats("b", Vec::new())]);
        say(&mut two, vec![stats("a", vec![place("x", 80, 30, 0)])]);
        let of = |cluster: &str| reports.of(&[cluster.into()]);
        let (sum, nodes) = of("a");
        assert_eq!((sum.total.issued, sum.total.failed, sum.total.in_progress), (30.0, 1.0, 3));
        assert_eq!((sum.dropped, nodes, sum.places.len()), (4.0, 2, 2));
        let endpoint: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(sum.endpoints[&endpoint].issued, 20.0);
        // The last report is what counts.
        say(&mut one, Vec::new());
        assert_eq!((of("a").0.total.issued, of("a").1), (15.0, 1));
        drop((one, two));
        assert_eq!((of("a"), reports.streams(), reports.lock().entries), ((ClusterLoad::default(), 0), 0, 0));
    }

    #[test]
    fn what_a_proxy_may_make_grow_has_a_limit() {
        let reports = Arc::<LoadReports>::default();
        let mut one = stream(&reports, "one");
        let places = |from: usize| (from..from + 200).map(|zone| place(&format!("{zone:0>60}"), 80, 1, 0)).collect();
        // One cluster twice, with a place too long to keep, and a name too long.
        let odd = stats("a", vec![place(&"z".repeat(MAX_NAME_BYTES + 1), 80, 1, 0)]);
        say(&mut one, vec![odd, stats("a", places(0)), stats("a", places(200)), stats(&"n".repeat(2_000), places(0))]);
        let (sum, _) = reports.of(&["a".into()]);
        assert_eq!((sum.places.len(), sum.total.issued), (MAX_PLACES, 200.5), "the sums are whole");
        assert_eq!(reports.lock().streams[&one.id].clusters.len(), 1);
        let least = MAX_PLACES + MAX_PLACES * 60 / BYTES_OF_ENTRY;
        assert!(reports.lock().entries >= least, "names count: {}", reports.lock().entries);
    }

    #[test]
    fn rule_67_a_first_request_without_a_node_is_refused_and_much_is_not_kept() {
        let reports = Arc::<LoadReports>::default();
        let mut nobody = Stream { id: 1, node: String::new(), reports: reports.clone() };
        let answer = nobody.hear(Ok(LoadStatsRequest::default())).expect("an answer");
        assert_eq!(answer.expect_err("no node").code(), tonic::Code::InvalidArgument);
        let mut one = stream(&reports, "one");
        let many = |index: usize| stats(&format!("c-{index}"), vec![place("x", 80, 1, 0)]);
        say(&mut one, (0..MAX_CLUSTERS + 10).map(many).collect());
        assert_eq!(reports.lock().streams[&one.id].clusters.len(), MAX_CLUSTERS);
    }
}
