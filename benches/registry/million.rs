//! One million instances in this process, over the memory store: what they take, and what their end at once does to others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use convoy::{
    model::{InstanceSpec, Limits, parse},
    registry::{
        Heard, Registry, Settings,
        brake::BrakeConfig,
        watch::{Filter, Step},
    },
    storage::memory::MemoryStore,
    telemetry::Metrics,
};
use convoy_client::proto;
use futures_util::{StreamExt, stream};

const INSTANCES: u32 = 1_000_000;
const PER_SERVICE: u32 = 10_000;
const PER_CALL: u32 = 50;
/// Long enough for all to be there before the first ends.
const TTL: Duration = Duration::from_secs(90);
const BEATS: Duration = Duration::from_millis(1);
const CHANGES: Duration = Duration::from_millis(10);

/// 1 port, 5 labels, 2 capabilities: about 400 bytes of JSON.
fn registration(number: u32) -> proto::Registration {
    let [_, a, b, c] = number.to_be_bytes();
    let pick = |words: &[&str], by: u32| words[(number / by) as usize % words.len()].to_owned();
    let labels = [
        ("language", pick(&["python", "rust", "go", "java"], 1)),
        ("owner", pick(&["search", "ads", "maps"], 4)),
        ("tier", pick(&["gold", "silver"], 12)),
        ("version", pick(&["1.4.2", "1.5.0"], 24)),
        ("pod", format!("pod-{number}")),
    ];
    let capability = |name: String| proto::Capability { name, version: "2.1".into(), ..Default::default() };
    proto::Registration {
        service: format!("service-{}", number / PER_SERVICE),
        id: format!("instance-{number}"),
        address: format!("10.{a}.{b}.{c}"),
        ports: vec![proto::Port { name: "http".into(), port: 8080, protocol: proto::Protocol::Http.into() }],
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        capabilities: vec![
            capability(pick(&["image-processing", "ocr", "speech"], 3)),
            capability(pick(&["search", "translate"], 7)),
        ],
        locality: Some(proto::Locality {
            region: pick(&["us-east-1", "eu-west-1"], 2),
            zone: pick(&["a", "b", "c"], 5),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn resident() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("statm has a second field")?.parse()?;
    Ok(pages * 4096)
}

fn start() -> Registry {
    let (store, opened) = MemoryStore::open("store".into());
    let brake = BrakeConfig { enabled: false, ..BrakeConfig::default() };
    let limits = Limits { instances_per_lease: PER_SERVICE as usize, ..Limits::default() };
    Registry::start(Arc::new(store), opened, Settings { limits, brake }, Arc::new(Metrics::default())).0
}

/// Leases of one instance each, or of as many as one call registers.
pub fn run() -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(&registration(123_456))?.len();
    println!("one million instances of {bytes} bytes of JSON each, memory store");
    for shared in [false, true] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure(shared))?;
    }
    Ok(())
}

async fn measure(shared: bool) -> anyhow::Result<()> {
    let (registry, before, started) = (start(), resident()?, Instant::now());
    let (size, calls) = if shared { (PER_CALL, INSTANCES / PER_CALL) } else { (1, INSTANCES) };
    let register = |call: u32| {
        let registry = registry.clone();
        async move {
            let parse = |number| {
                let said = registration(number);
                parse::registration(said, None, registry.limits())
                    .map(|(key, spec): (_, Arc<InstanceSpec>)| (key, spec))
            };
            let instances = (call * size..(call + 1) * size).map(parse).collect::<Result<Vec<_>, _>>()?;
            registry.register(None, Some(TTL), None, instances).await.context("registered").map(drop)
        }
    };
    stream::iter(0..calls)
        .map(register)
        .buffer_unordered(256)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    let took = started.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leases = registry.leases();
    println!("{leases} leases: registered in {:.1} s", took.as_secs_f64());
    if !shared {
        // Those that come after find place that these have left.
        let resident = resident()? - before;
        println!("{:.2} GB, {} bytes an instance", resident as f64 / 1e9, resident / u64::from(INSTANCES));
    }
    expire(registry, started).await
}

/// All end within a few seconds; meanwhile one lease heartbeats, and one service changes and is watched.
async fn expire(registry: Registry, started: Instant) -> anyhow::Result<()> {
    let said = |number: u32, weight: u32| proto::Registration {
        service: "living".into(),
        weight: Some(weight),
        ..registration(INSTANCES + number)
    };
    let parsed = |registration| parse::registration(registration, None, &Limits::default());
    let (_, held) = registry.register(None, None, None, vec![parsed(said(0, 1))?]).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let [beat, answered, seen] = std::array::from_fn(|_| Arc::new(AtomicU64::new(0)));
    let until = || {
        let stop = stop.clone();
        move || !stop.load(Ordering::Relaxed)
    };
    let beats = tokio::spawn({
        let (registry, going, worst) = (registry.clone(), until(), beat.clone());
        async move {
            while going() {
                let asked = Instant::now();
                let kept = matches!(registry.heartbeat(held.lease, None, None), Heard::Kept(_));
                tokio::time::sleep(BEATS).await;
                worst.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
                assert!(kept, "a living lease is kept");
            }
        }
    });
    let service = convoy::model::ServiceName::parse("service", "living")?;
    let mut watch = registry.watch(Filter { service: Some(service), ..Filter::default() }, None)?;
    let changes = tokio::spawn({
        let (registry, going, worst, worst_answer) = (registry.clone(), until(), seen.clone(), answered.clone());
        async move {
            let mut weight = 1;
            while going() {
                weight = weight % 60_000 + 1;
                let changed = Instant::now();
                let Ok(parsed) = parsed(said(0, weight)) else { return };
                registry.register(None, None, None, vec![parsed]).await.expect("registered");
                worst_answer.fetch_max(changed.elapsed().as_micros() as u64, Ordering::Relaxed);
                loop {
                    let Some((step, _)) = watch.next().await else { return };
                    if matches!(&step, Step::Happened(told) if u32::from(told.entry.event.instance.value.spec.weight) == weight)
                    {
                        break;
                    }
                }
                worst.fetch_max(changed.elapsed().as_micros() as u64, Ordering::Relaxed);
                tokio::time::sleep(CHANGES).await;
            }
        }
    });
    let begun = (started + TTL).saturating_duration_since(Instant::now());
    tokio::time::sleep(begun.saturating_sub(Duration::from_secs(1))).await;
    [&beat, &answered, &seen].iter().for_each(|worst| worst.store(0, Ordering::Relaxed));
    let ending = Instant::now();
    while registry.leases() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        anyhow::ensure!(ending.elapsed() < TTL * 2, "{} leases are left", registry.leases());
    }
    stop.store(true, Ordering::Relaxed);
    beats.await?;
    changes.await?;
    let ms = |worst: &AtomicU64| worst.load(Ordering::Relaxed) as f64 / 1e3;
    println!(
        "all ended in {:.1} s; the longest between two heartbeats {:.1} ms, from a change until it was answered {:.1} ms, \
         until it was watched {:.1} ms",
        ending.elapsed().as_secs_f64(),
        ms(&beat),
        ms(&answered),
        ms(&seen)
    );
    Ok(())
}
