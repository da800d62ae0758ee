//! What is measured. Of each round a line, then the medians: the rate of Convoy, of the empty handler, the median of the
//! rounds' ratios, and the CPU time that the server took for a call.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use convoy_client::{Client, proto::RegisterRequest};

use crate::{
    Options, calls, durable,
    http1::{self, Connection},
    machine, million,
    sample::{self, Numbers},
    server::Server,
    streams,
};

pub const HELP: &str = "Scenarios:
  streams    gRPC heartbeat streams: each message renews one lease of 10 instances, or 10 leases
  http       single heartbeats over HTTP/1.1 keep-alive, against an empty handler
  register   registrations over HTTP and gRPC, against empty handlers; p99 at half the rate
  durable    registrations with the redb store by 64 callers, against a bare redb loop
  million    one million instances: memory, and their end at once; only when named, about 4 minutes";

const NAMES: [&str; 5] = ["streams", "http", "register", "durable", "million"];
/// Agents that heartbeat over streams of their own.
const STREAMS: usize = 100;
/// Connections of single calls.
pub const CONNECTIONS: usize = 64;
/// gRPC calls share connections.
pub const CHANNELS: usize = 4;

pub async fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(unknown) = options.words.iter().find(|word| !NAMES.contains(&word.as_str())) {
        anyhow::bail!("there is no scenario {unknown:?}; there are {}", NAMES.join(", "));
    }
    let wanted = |name: &str| options.words.is_empty() || options.words.iter().any(|word| word == name);
    if wanted("streams") {
        stream_heartbeats(options).await.context("streams")?;
    }
    if wanted("http") {
        http_heartbeats(options).await.context("http")?;
    }
    if wanted("register") {
        http_registrations(options).await.context("register, HTTP")?;
        grpc_registrations(options).await.context("register, gRPC")?;
    }
    if wanted("durable") {
        let options = options.clone();
        tokio::task::spawn_blocking(move || durable::run(&options)).await?.context("durable")?;
    }
    // It takes minutes: only when it is named.
    if options.words.iter().any(|word| word == "million") {
        tokio::task::spawn_blocking(million::run).await?.context("million")?;
    }
    Ok(())
}

/// What the rounds of a measurement gave.
#[derive(Debug)]
struct Rounds {
    what: String,
    convoy: Vec<f64>,
    floor: Vec<f64>,
    /// Microseconds a call, of Convoy and of the load generator.
    cpu: [Vec<f64>; 2],
    /// Those of the empty handler.
    floor_cpu: Vec<f64>,
}

impl Rounds {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            convoy: Vec::new(),
            floor: Vec::new(),
            cpu: Default::default(),
            floor_cpu: Vec::new(),
        }
    }

    fn add_floor(&mut self, rate: f64, cpu: Duration, time: Duration) {
        self.floor.push(rate);
        self.floor_cpu.push(cpu.as_secs_f64() * 1e6 / (rate * time.as_secs_f64()));
    }

    fn add(&mut self, convoy: f64, [before, after]: [[Duration; 2]; 2], time: Duration) {
        self.convoy.push(convoy);
        for (of, values) in self.cpu.iter_mut().enumerate() {
            values.push((after[of] - before[of]).as_secs_f64() * 1e6 / (convoy * time.as_secs_f64()));
        }
    }

    fn show(&self) {
        let convoy = median(&self.convoy);
        let [server, generator] = self.cpu.each_ref().map(|values| median(values));
        let ratios: Vec<f64> = self.convoy.iter().zip(&self.floor).map(|(convoy, floor)| convoy / floor).collect();
        let against = if ratios.is_empty() {
            String::new()
        } else {
            let (rate, cpu, ratio) = (median(&self.floor), median(&self.floor_cpu), median(&ratios));
            format!(", empty handler {rate:.0}/s, {cpu:.1} µs; ratio {ratio:.2} (rounds {ratios:.2?})")
        };
        println!("{}: {convoy:.0}/s, {server:.1} µs of CPU each (generator {generator:.1}){against}", self.what);
    }
}

/// CPU time so far, of a server and of the load generator.
fn cpu(server: &Server) -> anyhow::Result<[Duration; 2]> {
    Ok([server.cpu()?, machine::own_cpu()?])
}

async fn stream_heartbeats(options: &Options) -> anyhow::Result<()> {
    let convoy = Server::convoy().await?;
    let numbers = Numbers::default();
    let (mut of_ten, mut ten) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        of_ten.push(streams::heartbeat(&[lease(&convoy, &numbers, 10).await?]));
        let mut leases = Vec::new();
        for _ in 0..10 {
            leases.push(lease(&convoy, &numbers, 1).await?);
        }
        ten.push(streams::heartbeat(&leases));
    }
    for (what, messages) in [("one lease of 10 instances", of_ten), ("10 leases", ten)] {
        for depth in [1, 8] {
            let mut rounds = Rounds::new(format!("gRPC streams, {what}, {depth} under way on each of {STREAMS}"));
            for _ in 0..options.rounds {
                let before = cpu(&convoy)?;
                let rate = streams::rate(convoy.grpc, messages.clone(), depth, options.time()).await?;
                rounds.add(rate, [before, cpu(&convoy)?], options.time());
            }
            rounds.show();
        }
    }
    Ok(())
}

/// A lease of so many new instances.
async fn lease(convoy: &Server, numbers: &Numbers, instances: u32) -> anyhow::Result<String> {
    let instances = (0..instances).map(|_| sample::registration(numbers.next())).collect();
    let request = RegisterRequest { instances, ..sample::request(0) };
    let answer = Client::new(&convoy.grpc.to_string())?.register(request).await?;
    Ok(answer.lease.context("no lease")?.id)
}

async fn connections(server: SocketAddr) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(server).await?);
    }
    Ok(connections)
}

async fn http_heartbeats(options: &Options) -> anyhow::Result<()> {
    let convoy = Server::convoy().await?;
    let floor = Server::floor(options.floor_threads).await?;
    let numbers = Numbers::default();
    let mut requests = Vec::new();
    for _ in 0..CONNECTIONS {
        let lease = lease(&convoy, &numbers, 1).await?;
        requests.push(http1::post(&format!("/v1/leases/{lease}/heartbeat"), "{}"));
    }
    let next = move |number: usize| requests[number].clone();
    let (mut to_convoy, mut to_floor) = (connections(convoy.http).await?, connections(floor.http).await?);
    let mut rounds = Rounds::new("HTTP/1.1 heartbeats");
    for _ in 0..options.rounds {
        let (floor_rate, convoy_rate);
        let before = floor.cpu()?;
        (to_floor, floor_rate) = http1::rate(to_floor, options.time(), next.clone()).await?;
        rounds.add_floor(floor_rate, floor.cpu()? - before, options.time());
        let before = cpu(&convoy)?;
        (to_convoy, convoy_rate) = http1::rate(to_convoy, options.time(), next.clone()).await?;
        rounds.add(convoy_rate, [before, cpu(&convoy)?], options.time());
    }
    rounds.show();
    Ok(())
}

async fn http_registrations(options: &Options) -> anyhow::Result<()> {
    let convoy = Server::convoy().await?;
    let floor = Server::floor(options.floor_threads).await?;
    let numbers = Numbers::default();
    let next = move |_| {
        let body = serde_json::to_string(&sample::request(numbers.next())).unwrap_or_default();
        http1::post("/v1/registrations", &body)
    };
    let (mut to_convoy, mut to_floor) = (connections(convoy.http).await?, connections(floor.http).await?);
    let mut rounds = Rounds::new("HTTP registrations");
    for _ in 0..options.rounds {
        let (floor_rate, convoy_rate);
        let before = floor.cpu()?;
        (to_floor, floor_rate) = http1::rate(to_floor, options.time(), next.clone()).await?;
        rounds.add_floor(floor_rate, floor.cpu()? - before, options.time());
        let before = cpu(&convoy)?;
        (to_convoy, convoy_rate) = http1::rate(to_convoy, options.time(), next.clone()).await?;
        rounds.add(convoy_rate, [before, cpu(&convoy)?], options.time());
    }
    rounds.show();
    let half = median(&rounds.convoy) / 2.0;
    let floor_latencies = http1::latencies(to_floor, options.time(), half, next.clone()).await?;
    show_latencies("HTTP, empty handler", half, floor_latencies);
    let latencies = http1::latencies(to_convoy, options.time(), half, next).await?;
    show_latencies("HTTP registrations", half, latencies);
    Ok(())
}

async fn grpc_registrations(options: &Options) -> anyhow::Result<()> {
    let convoy = Server::convoy().await?;
    let floor = Server::floor(options.floor_threads).await?;
    let numbers = Numbers::default();
    let next = move || sample::request(numbers.next());
    let to_convoy = calls::connect(convoy.grpc, CHANNELS).await?;
    let to_floor = calls::connect(floor.grpc, CHANNELS).await?;
    let depth = CONNECTIONS / CHANNELS;
    let mut rounds = Rounds::new("gRPC registrations");
    for _ in 0..options.rounds {
        let before = floor.cpu()?;
        let floor_rate = calls::rate(&to_floor, depth, options.time(), next.clone()).await?;
        rounds.add_floor(floor_rate, floor.cpu()? - before, options.time());
        let before = cpu(&convoy)?;
        let convoy_rate = calls::rate(&to_convoy, depth, options.time(), next.clone()).await?;
        rounds.add(convoy_rate, [before, cpu(&convoy)?], options.time());
    }
    rounds.show();
    let half = median(&rounds.convoy) / 2.0;
    let floor_latencies = calls::latencies(&to_floor, depth, options.time(), half, next.clone()).await?;
    show_latencies("gRPC, empty handler", half, floor_latencies);
    let latencies = calls::latencies(&to_convoy, depth, options.time(), half, next).await?;
    show_latencies("gRPC registrations", half, latencies);
    Ok(())
}

fn show_latencies(what: &str, rate: f64, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!("{what} at {rate:.0}/s: median {:.2?}, p99 {:.2?}, p99.9 {:.2?}", at(0.5), at(0.99), at(0.999));
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
