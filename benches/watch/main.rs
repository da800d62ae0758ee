//! A change before 10 000 selector watches: how long until those whom it concerns have it, over gRPC, on two cores with
//! the watchers on them. Beside it, in the same run and by turns, a bare writer: the same server, transport and clients,
//! with nothing behind the streams but the same bytes.
//!
//! All selectors are different, so that nothing is saved by evaluating equal ones once. Each asks for one of a hundred
//! groups, or for everyone: a change in a group concerns a hundred watches, one of everyone all, one of neither none.
//!
//! `cargo bench --bench watch`; `-- --watches 1000` for a shorter look.

mod bare;
mod clients;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use convoy::{
    config::{Config, StorageKind},
    server::Server,
};
use convoy_client::proto::{
    Port, Protocol, RegisterRequest, Registration, WatchRequest, registry_client::RegistryClient,
};
use prost::Message;
use tonic::transport::Channel;

use self::{bare::Bare, clients::Clients};

const GROUPS: usize = 100;
const ROUNDS_OF_A_GROUP: usize = 300;
const ROUNDS_OF_ALL: usize = 40;
const ROUNDS_OF_NONE: usize = 3_000;
/// Nobody expires meanwhile.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 86_400, nanos: 0 };
const WATCH: &str = "/convoy.v1.Registry/Watch";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--watches").skip(1);
    let watches = arguments.next().map_or(Ok(10_000), |number| number.parse())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(watches))
}

async fn run(watches: usize) -> anyhow::Result<()> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        http_address: any_port,
        grpc_address: any_port,
        xds_address: any_port,
        storage: StorageKind::Memory,
        ..Config::default()
    };
    config.limits.watchers = watches + 1;
    let server = Server::start(config).await?;
    let mut agent = Agent::connect(server.grpc_address()).await?;

    let alone = agent.cost_of_none().await?;
    let mut watchers = Clients::default();
    let opening = Instant::now();
    let selectors = (0..watches).map(|number| {
        let group = number % GROUPS;
        // Distinct, and true of all that is registered here.
        let weight = number / GROUPS;
        let selector = format!(
            "(instance.labels.group == 'g{group}' || instance.labels.group == 'everyone') && instance.weight > {weight}"
        );
        WatchRequest { selector, ..WatchRequest::default() }.encode_to_vec().into()
    });
    watchers.open(server.grpc_address(), WATCH, selectors).await?;
    println!("{watches} watches with different selectors are open after {:.1?}", opening.elapsed());

    let of_a_group = watches / GROUPS;
    let mut times = Vec::new();
    for round in 0..ROUNDS_OF_A_GROUP {
        let started = Instant::now();
        agent.change(&format!("g{}", round % GROUPS)).await?;
        watchers.all_have(of_a_group).await?;
        times.push(started.elapsed());
    }
    report(&format!("a change that {of_a_group} match, until all have it"), times);

    let event = watchers.last_message();
    let mut bare_watchers = Clients::default();
    let bare = Bare::start().await?;
    bare_watchers.open(bare.address, bare::PATH, (0..watches).map(|_| bytes::Bytes::new())).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS_OF_ALL {
        let started = Instant::now();
        agent.change("everyone").await?;
        watchers.all_have(watches).await?;
        ours.push(started.elapsed());
        let started = Instant::now();
        bare.write(&event);
        bare_watchers.all_have(watches).await?;
        theirs.push(started.elapsed());
    }
    let ratio = median(&mut ours).as_secs_f64() / median(&mut theirs).as_secs_f64();
    report("a change that all match, until all have it", ours);
    report(&format!("a bare writer of the same {} bytes", event.len()), theirs);
    println!("  ratio of the medians: {ratio:.2}");

    let among = agent.cost_of_none().await?;
    println!("a change that none match, processor time of it all: {among:.1?}; with no watches: {alone:.1?}");
    server.stop().await;
    Ok(())
}

/// Who registers.
struct Agent {
    registry: RegistryClient<Channel>,
    weight: u32,
}

impl Agent {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { registry: RegistryClient::connect(format!("http://{address}")).await?, weight: 1_000 })
    }

    /// Changes the one instance of a group: its weight is not what it was.
    async fn change(&mut self, group: &str) -> anyhow::Result<()> {
        self.weight = if self.weight > 60_000 { 1_000 } else { self.weight + 1 };
        // An address of its own: of two with the same, one would be replaced.
        let place: usize = group.trim_start_matches('g').parse().unwrap_or(GROUPS + group.len());
        let instance = Registration {
            service: "web".into(),
            id: group.into(),
            address: format!("10.0.{}.{}", place / 250, place % 250 + 1),
            ports: vec![Port { name: "http".into(), port: 8080, protocol: Protocol::Http.into() }],
            weight: Some(self.weight),
            labels: BTreeMap::from([("group".into(), group.into()), ("language".into(), "python".into())]),
            ..Registration::default()
        };
        let request = RegisterRequest { ttl: Some(TTL), instances: vec![instance], ..RegisterRequest::default() };
        self.registry.register(request).await?;
        Ok(())
    }

    /// What a change that concerns nobody costs.
    async fn cost_of_none(&mut self) -> anyhow::Result<Duration> {
        let before = processor_time()?;
        for _ in 0..ROUNDS_OF_NONE {
            self.change("nobody").await?;
        }
        Ok((processor_time()? - before) / u32::try_from(ROUNDS_OF_NONE)?)
    }
}

/// Of this process, so far.
fn processor_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may contain anything, from the third field on.
    let (_, fields) = stat.rsplit_once(") ").ok_or_else(|| anyhow::anyhow!("what /proc/self/stat says"))?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, mut times: Vec<Duration>) {
    let median = median(&mut times);
    let p99 = times[(times.len() * 99).div_ceil(100) - 1];
    println!("{what}: median {median:.2?}, p99 {p99:.2?}");
}
