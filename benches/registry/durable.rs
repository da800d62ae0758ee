//! Durable registrations: the redb store on the disk of the build directory, in this process and over gRPC, beside a bare
//! redb loop that writes as many bytes under such keys with the same group commit: one transaction for all that wait,
//! synced before it is answered, and `quick_repair` as the store has it. Convoy's leases stand in the order of their time, so that a
//! commit changes few pages; a second loop has them at random, which is what that order gains. All take turns; each has a
//! file of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use convoy::{
    config::{Config, StorageKind},
    model::{Lease, LeaseId, Limits, ReplicaId, UnixMillis, parse},
    registry::Registry,
    server::Server,
    storage::{Key, Record, record},
};
use redb::{Database, Durability, TableDefinition};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use crate::{
    Options,
    callers::rate,
    calls,
    sample::{self, Numbers},
    scenarios::{CHANNELS, CONNECTIONS, median},
};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// As in `storage::redb`.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// As in `registry::task`.
const MAX_ROUND: usize = 512;
const TTL: Duration = Duration::from_secs(86_400);
/// All numbers have as many digits.
const FIRST: u32 = 10_000_000;

pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    // On the disk: a temporary directory may be in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let convoy = async |name| convoy(&directory.path().join(name)).await;
    let (here, over_grpc) = (convoy("here").await?, convoy("grpc").await?);
    let clients = calls::connect(over_grpc.grpc_address(), CHANNELS).await?;
    let numbers = Numbers::default();
    let sample = Sample::take(here.registry(), FIRST + numbers.next()).await?;
    let bare = Bare::start(&directory.path().join("bare.redb"))?;
    let at_random = Bare::start(&directory.path().join("random.redb"))?;
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 0..options.rounds {
        for turn in 0..rates.len() {
            let (which, numbers) = ((round + turn) % rates.len(), numbers.clone());
            let next = move || FIRST + numbers.next();
            rates[which].push(match which {
                0 | 3 => {
                    let (bare, sample) = (if which == 0 { &bare } else { &at_random }.clone(), sample.clone());
                    let lease = move || if which == 0 { new_lease() } else { LeaseId(rand::random()) };
                    rate(CONNECTIONS, options.time(), move || bare.clone().write(sample.records(next(), lease())))
                        .await?
                }
                1 => {
                    let registry = here.registry().clone();
                    rate(CONNECTIONS, options.time(), move || register(registry.clone(), next())).await?
                }
                _ => {
                    let depth = CONNECTIONS / CHANNELS;
                    calls::rate(&clients, depth, options.time(), move || sample::request(next())).await?
                }
            });
        }
    }
    println!(
        "durable, bare redb loop of {CONNECTIONS} callers, {} bytes each: {:.0}/s; with leases at random {:.0}/s",
        sample.len(),
        median(&rates[0]),
        median(&rates[3])
    );
    for (what, convoy, server) in [("in this process", &rates[1], &here), ("over gRPC", &rates[2], &over_grpc)] {
        let against =
            |bare: &[f64]| -> Vec<f64> { convoy.iter().zip(bare).map(|(convoy, bare)| convoy / bare).collect() };
        let (ratios, at_random) = (against(&rates[0]), median(&against(&rates[3])));
        let (rate, ratio, commits) = (median(convoy), median(&ratios), commits(server.http_address()).await?);
        println!(
            "durable registrations {what}: {rate:.0}/s, {commits}; ratio {ratio:.2} (rounds {ratios:.2?}), {at_random:.2} to leases at random"
        );
    }
    here.stop().await;
    over_grpc.stop().await;
    Ok(())
}

async fn convoy(data_dir: &Path) -> anyhow::Result<Server> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (storage, data_dir) = (StorageKind::Redb, data_dir.to_owned());
    let addresses =
        Config { http_address: any_port, grpc_address: any_port, xds_address: any_port, ..Config::default() };
    Server::start(Config { storage, data_dir, ..addresses }).await
}

async fn register(registry: Registry, number: u32) -> anyhow::Result<()> {
    let (key, spec) = parse::registration(sample::registration(number), None, &Limits::default())?;
    registry.register(None, Some(TTL), None, vec![(key, spec)]).await?;
    Ok(())
}

/// What one registration writes: an instance and its lease.
#[derive(Clone, Debug)]
struct Sample {
    instance: Vec<u8>,
    /// Where the instance's number stands in it.
    number_at: usize,
    lease: Vec<u8>,
}

impl Sample {
    async fn take(registry: &Registry, number: u32) -> anyhow::Result<Self> {
        register(registry.clone(), number).await?;
        let (key, _) = parse::registration(sample::registration(number), None, &Limits::default())?;
        let snapshot = registry.snapshot();
        let stored = snapshot.instance(&key).context("it is registered")?;
        let instance = record::encode(stored.revision, &Record::Instance(stored.value.clone()));
        let lease = Lease { ttl: TTL, incarnation: stored.value.incarnation, owner: ReplicaId::ONLY };
        let lease = record::encode(stored.revision, &Record::Lease(lease));
        let number = number.to_string();
        let number_at = memchr::memmem::find(&instance, number.as_bytes()).context("the id is in the record")?;
        Ok(Self { instance, number_at, lease })
    }

    fn records(&self, number: u32, lease: LeaseId) -> Records {
        let text = number.to_string();
        let mut instance = self.instance.clone();
        instance[self.number_at..][..text.len()].copy_from_slice(text.as_bytes());
        let key = format!("i/default/service-{}/instance-{text}", number % sample::SERVICES);
        let lease = record::encode_key(&Key::Lease(lease));
        [(key, instance), (lease, self.lease.clone())]
    }

    /// Keys and values.
    fn len(&self) -> usize {
        self.records(FIRST, new_lease()).iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// As Convoy makes them.
fn new_lease() -> LeaseId {
    LeaseId::new(UnixMillis::now(), rand::random())
}

type Records = [(String, Vec<u8>); 2];
type Written = (Records, oneshot::Sender<()>);

/// A thread that writes all that waits, syncs, and answers.
#[derive(Clone, Debug)]
struct Bare(mpsc::Sender<Written>);

impl Bare {
    fn start(path: &Path) -> anyhow::Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let (sender, writes) = mpsc::channel(MAX_ROUND);
        // It ends with its senders; a failure is told to those who wait, by nobody answering.
        std::thread::spawn(move || write_all(&database, writes));
        Ok(Self(sender))
    }

    async fn write(self, records: Records) -> anyhow::Result<()> {
        let (answer, written) = oneshot::channel();
        self.0.send((records, answer)).await?;
        Ok(written.await?)
    }
}

fn write_all(database: &Database, mut writes: mpsc::Receiver<Written>) -> anyhow::Result<()> {
    let mut revision = 0_u64;
    while let Some(first) = writes.blocking_recv() {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.set_durability(Durability::Immediate)?;
        let mut answers = Vec::new();
        {
            let (mut table, mut meta) = (transaction.open_table(RECORDS)?, transaction.open_table(META)?);
            let mut next = Some(first);
            while let Some((records, answer)) = next {
                for (key, value) in &records {
                    table.insert(&**key, &**value)?;
                }
                answers.push(answer);
                next = if answers.len() < MAX_ROUND { writes.try_recv().ok() } else { None };
            }
            revision += answers.len() as u64;
            meta.insert("revision", &revision.to_be_bytes()[..])?;
        }
        transaction.commit()?;
        for answer in answers {
            // It waits for it.
            let _ = answer.send(());
        }
    }
    Ok(())
}

/// How large Convoy's commits were, and how long they took, by its own metrics.
async fn commits(http: SocketAddr) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(http).await?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).with_context(|| format!("no metric {name}"))
    };
    let count = value("convoy_store_batch_records_count")?;
    let (records, seconds) = (value("convoy_store_batch_records_sum")?, value("convoy_store_commit_seconds_sum")?);
    Ok(format!("{:.1} a commit of {:.2} ms", records / count, seconds * 1e3 / count))
}
