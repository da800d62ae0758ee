//! Durable registrations through etcd, beside bare puts: the same etcd, one connection each, so many callers, each with its
//! next call when the last is answered. `cargo bench --bench etcd -- --help`; `docs/performance.md` says what it means.

#[path = "shared/bare_put.rs"]
mod bare_put;
#[path = "shared/callers.rs"]
mod callers;
#[path = "../tests/support/etcd.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod etcd;
#[path = "../tests/support/wheel.rs"]
mod wheel;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Parser;
use convoy::{
    model::{Limits, Replica, UnixMillis, parse},
    registry::Registry,
    storage::etcd::{EtcdStore, config::EtcdConfig},
    telemetry::Metrics,
};
use convoy_client::proto::{Port, Protocol, Registration};
use tonic::transport::Channel;

use bare_put::put;
use callers::rate;

/// Convoy's allocator, for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Registrations go to so many services in turns.
const SERVICES: u32 = 100;

/// Measures registrations through etcd beside bare puts.
#[derive(Clone, Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// How often both are measured, in turns; the medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Members of the etcd
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let cluster = etcd::Cluster::start(options.members, &["--quota-backend-bytes", "8589934592"]);
    let config = EtcdConfig { endpoints: cluster.endpoints(), ..EtcdConfig::default() };
    let itself = Replica { name: "bench".into(), address: ([127, 0, 0, 1], 1).into(), since: UnixMillis::now() };
    let (store, opened) = EtcdStore::open(&config, "bench", &itself).await?;
    let settings = Limits { instances_per_service: 1_000_000, ..Limits::default() }.into();
    let (registry, _running) = Registry::start(Arc::new(store), opened, settings, Arc::new(Metrics::default()));
    let channel = Channel::from_shared(config.endpoints[0].clone())?.tcp_nodelay(true).connect().await?;
    let next = Arc::new(AtomicU32::new(0));
    let (mut bare, mut registered, time) = (Vec::new(), Vec::new(), Duration::from_secs_f64(options.seconds));
    for round in 1..=options.rounds {
        let (channel, numbers) = (channel.clone(), next.clone());
        let call = move || put(channel.clone(), format!("/bare/{}", numbers.fetch_add(1, Relaxed)).into());
        bare.push(rate(options.callers, time, call).await?);
        let (registry, numbers) = (registry.clone(), next.clone());
        let call = move || register(registry.clone(), numbers.fetch_add(1, Relaxed));
        registered.push(rate(options.callers, time, call).await?);
        let (bare, registered) = (bare[round - 1], registered[round - 1]);
        println!("round {round}: bare puts {bare:.0} /s, registrations {registered:.0} /s: {:.2}", registered / bare);
    }
    let (bare, registered) = (median(bare), median(registered));
    println!(
        "{} callers, {} members, median: bare puts {bare:.0} /s, registrations {registered:.0} /s: {:.2}",
        options.callers,
        options.members,
        registered / bare
    );
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn register(registry: Registry, number: u32) -> anyhow::Result<()> {
    let registration = Registration {
        service: format!("service-{}", number % SERVICES),
        id: format!("instance-{number}"),
        address: Ipv4Addr::from(0x0a00_0000 + number).to_string(),
        ports: vec![Port { name: "http".into(), port: 80, protocol: Protocol::Http.into() }],
        labels: [("version".to_owned(), "1.2.3".to_owned())].into(),
        ..Registration::default()
    };
    let (key, spec) = parse::registration(registration, None, &Limits::default())?;
    registry.register(None, Some(Duration::from_secs(86_400)), None, vec![(key, spec)]).await?;
    Ok(())
}
