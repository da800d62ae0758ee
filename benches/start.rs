//! From the start of a Convoy on a store of so many instances until all its ports are open, and what of that is whose.
//! `cargo bench --bench start -- --help`; `docs/performance.md` says what it means.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use convoy::{
    config::{Config, StorageKind},
    model::{Incarnation, Limits, parse},
    registry::Registry,
    server::Server,
    storage::redb::RedbStore,
    telemetry::Metrics,
};
use convoy_client::proto::{Port, Protocol, Registration};
use tokio::task::JoinSet;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many registrations are under way while the store is filled.
const CALLERS: u32 = 1_024;

/// Measures the start on a store with instances in it.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// How many instances the store has, each with a lease of its own
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    instances: Vec<u32>,
    #[arg(long, default_value_t = 1_000)]
    services: u32,
    /// The medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    println!(
        "| instances | file | verified by redb | store opened, verified and read | registry's state | ports open | of at most |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for instances in &options.instances {
        let directory = tempfile::tempdir()?;
        fill(directory.path(), *instances, options.services).await?;
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..options.rounds {
            for (times, time) in times.iter_mut().zip(round(directory.path(), *instances as usize).await?) {
                times.push(time);
            }
        }
        let [verified, opened, state, start] = times.map(|mut times| {
            times.sort_unstable();
            format!("{:.2?}", times[times.len() / 2])
        });
        let bytes = std::fs::metadata(directory.path().join("convoy.redb"))?.len();
        let limit = if *instances <= 100_000 { "2 s" } else { "15 s" };
        println!("| {instances} | {} MiB | {verified} | {opened} | {state} | {start} | {limit} |", bytes >> 20);
    }
    Ok(())
}

async fn round(directory: &Path, instances: usize) -> anyhow::Result<[Duration; 4]> {
    let begun = Instant::now();
    let mut builder = redb::Builder::new();
    let verified = builder.set_check_integrity_on_open(true).open(directory.join("convoy.redb"))?;
    let verify = begun.elapsed();
    drop(verified);

    let begun = Instant::now();
    let (store, opened) = RedbStore::open(directory, "bench")?;
    let open = begun.elapsed();
    let begun = Instant::now();
    let (registry, running) = Registry::start(Arc::new(store), opened, Limits::default().into(), Arc::default());
    let state = begun.elapsed();
    anyhow::ensure!(registry.leases() == instances, "{} leases", registry.leases());
    drop(registry);
    running.await?;

    let any_port = "127.0.0.1:0".parse()?;
    let config = Config {
        http_address: any_port,
        grpc_address: any_port,
        xds_address: any_port,
        storage: StorageKind::Redb,
        data_dir: directory.to_owned(),
        ..Config::default()
    };
    let begun = Instant::now();
    let server = Server::start(config).await?;
    let start = begun.elapsed();
    server.stop().await;
    // The last who holds the store lets it go a little later.
    while redb::Database::open(directory.join("convoy.redb")).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok([verify, open, state, start])
}

/// Registers them all, by calls as an agent's.
async fn fill(directory: &Path, instances: u32, services: u32) -> anyhow::Result<()> {
    let (store, opened) = RedbStore::open(directory, "bench")?;
    let metrics = Arc::<Metrics>::default();
    let (registry, running) = Registry::start(Arc::new(store), opened, Limits::default().into(), metrics);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let registry = registry.clone();
        callers.spawn(async move {
            for number in (caller..instances).step_by(CALLERS as usize) {
                let parsed = parse::registration(registration(number, services), None, &Limits::default());
                let (key, spec) = parsed.context("a valid registration")?;
                registry
                    .register(None, Some(Duration::from_secs(86_400)), Some(Incarnation(1)), vec![(key, spec)])
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    drop(registry);
    Ok(running.await?)
}

fn registration(number: u32, services: u32) -> Registration {
    let [a, b, c, d] = number.to_be_bytes();
    Registration {
        service: format!("service-{}", number % services),
        id: format!("agent-{number}"),
        address: format!("1{a}.{b}.{c}.{d}"),
        ports: vec![Port { name: "http".into(), port: 8080, protocol: Protocol::Http.into() }],
        labels: [("language", "rust"), ("zone", "a")].map(|(name, value)| (name.into(), value.into())).into(),
        ..Default::default()
    }
}
