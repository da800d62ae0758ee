//! The whole machine on one thread and paused time: a random history of what happens to it from each seed. Four kinds:
//!
//! - `world`: random changes to the registry (instances, exports, resources that somebody writes) and random clients (both
//!   dialects; slow, refusing, leaving and coming back). When all is quiet, every client's view equals the registry's; and
//!   no route that a client holds ever leads to a cluster that it has not got.
//! - `fleet`: agents that crash, come back, and are cut off; the brake.
//! - `alone`: one Convoy with its file, which is killed, starts again, and begins with a backup; with agents, proxies and
//!   watchers.
//! - `mesh`: several replicas over one store, with agents, proxies and watchers.
//!
//! ```text
//! cargo test --test simulation                           some histories: fixed ones, ones that failed once, and new ones
//! cargo test --test simulation -- --seeds 10000          so many new ones of each kind
//! cargo test --test simulation -- --seed 17 mesh         this one again, as it was; with --trace it tells what happens
//! ```
//!
//! A history is a process of its own: then everything in it follows from its seed, also the order of hash maps and what the
//! wall clocks say. Some are taken twice, to see that they go the same way.

mod agents;
mod alone;
mod client;
mod etcd;
mod gate;
mod mesh;
mod trace;
mod wall;
mod watcher;
mod world;

use std::{
    panic,
    pin::Pin,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use agents::Fleet;
use alone::Alone;
use mesh::Mesh;
use world::World;

const STEPS: usize = 150;
/// No history takes nearly as long.
const LONGEST: Duration = Duration::from_secs(300);
/// So many of each kind are taken twice.
const TWICE: u64 = 2;

struct Kind {
    name: &'static str,
    run: fn(u64) -> Pin<Box<dyn Future<Output = ()>>>,
    /// Seeds from 0 on, which are always the same.
    fixed: u64,
    fresh: u64,
    /// Seeds that have failed.
    found: &'static [u64],
}

/// Raw clusters that came and went before the streams of the time were told.
const FOUND_IN_WORLD: [u64; 4] =
    [563_427_448_053_386, 563_427_448_053_946, 2_080_705_268_727_016, 2_080_705_268_731_384];
/// A replica that the store did not reach said that a drain was complete, of an incarnation that it had not heard of.
const FOUND_IN_MESH: [u64; 1] = [2_458_656_636_408_311];

/// A backup was restored to a disk that was full.
const FOUND_ALONE: [u64; 1] = [2_544_817_549_495_220];

const KINDS: [Kind; 4] = [
    Kind {
        name: "world",
        run: |seed| Box::pin(World::run(seed, STEPS)),
        fixed: 110,
        fresh: 30,
        found: &FOUND_IN_WORLD,
    },
    Kind { name: "fleet", run: |seed| Box::pin(Fleet::run(seed, STEPS)), fixed: 110, fresh: 30, found: &[] },
    Kind { name: "alone", run: |seed| Box::pin(Alone::run(seed, STEPS)), fixed: 30, fresh: 15, found: &FOUND_ALONE },
    Kind { name: "mesh", run: |seed| Box::pin(Mesh::run(seed, STEPS)), fixed: 40, fresh: 20, found: &FOUND_IN_MESH },
];

/// Random histories of the whole machine, each from a seed.
#[derive(Parser)]
struct Arguments {
    /// Which kinds of history, by a part of their name [default: all].
    kinds: Vec<String>,
    /// One history, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// Tells what happens in it, as far as the kind of history does.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// So many new histories of each kind instead of the usual ones.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// Without meaning here, as are others of the test harness that `cargo test` gives to all tests.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_meant = |kind: &&Kind| {
        arguments.kinds.is_empty() || arguments.kinds.iter().any(|name| kind.name.contains(name.as_str()))
    };
    let kinds: Vec<&Kind> = KINDS.iter().filter(is_meant).collect();
    if let Some(seed) = arguments.seed {
        kinds.into_iter().for_each(|kind| history(kind, seed, arguments.trace));
        return ExitCode::SUCCESS;
    }
    // Counted on from here, so that all can be taken again.
    let new: u64 = rand::random_range(1 << 32..1 << 52);
    let seeds = |kind: &Kind| -> Vec<u64> {
        match arguments.seeds {
            Some(count) => (new..new + count).collect(),
            None => kind.found.iter().copied().chain(0..kind.fixed).chain(new..new + kind.fresh).collect(),
        }
    };
    let all: Vec<(&Kind, u64)> =
        kinds.into_iter().flat_map(|kind| seeds(kind).into_iter().map(move |seed| (kind, seed))).collect();
    println!("\n{} histories, the new ones from seed {new} on", all.len());
    let begun = Instant::now();
    let failed = run(&all);
    println!("{failed} failed, in {:.0} s\n", begun.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each in a process of its own, as many at a time as there are processors. Those that fail are printed.
fn run(all: &[(&Kind, u64)]) -> usize {
    let (next, failed, printing) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(()));
    let work = || {
        while let Some((kind, seed)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = match *seed < TWICE {
                true => goes_the_same_way(kind, *seed),
                false => goes_well(kind, *seed, &[]).map(drop),
            };
            if let Err(said) = outcome {
                failed.fetch_add(1, Ordering::Relaxed);
                let _turn = printing.lock().expect("nobody panics with it");
                eprintln!("{}", said.trim());
                eprintln!("again: cargo test --test simulation -- --seed {seed} {}\n", kind.name);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    failed.into_inner()
}

/// What it says on standard error, also if it fails.
fn goes_well(kind: &Kind, seed: u64, more: &[&str]) -> Result<String, String> {
    let mut history = Command::new(std::env::current_exe().expect("this program"));
    let history = history.args(["--seed", &seed.to_string(), kind.name]).args(more).env("RUST_BACKTRACE", "0");
    let outcome = history.output().expect("this program can be started");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    if outcome.status.success() { Ok(said) } else { Err(said) }
}

fn goes_the_same_way(kind: &Kind, seed: u64) -> Result<(), String> {
    // One that fails is not told whole.
    goes_well(kind, seed, &[])?;
    let [one, other] = [goes_well(kind, seed, &["--trace"])?, goes_well(kind, seed, &["--trace"])?];
    if one.is_empty() {
        return Err("nothing was told of it".into());
    }
    match one.lines().zip(other.lines()).find(|(line, there)| line != there) {
        Some((line, there)) => Err(format!("two runs of one seed differ:\n{line}\n{there}")),
        None if one.len() == other.len() => Ok(()),
        None => Err("one run of two of one seed told more".into()),
    }
}

fn history(kind: &'static Kind, seed: u64, is_traced: bool) {
    thread::spawn(move || {
        thread::sleep(LONGEST);
        eprintln!("the history has no end");
        std::process::abort();
    });
    let history = thread::spawn(move || {
        convoy_chance::from_seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            if is_traced {
                trace::begin();
            }
            wall::begin();
            (kind.run)(seed).await;
        });
    });
    if let Err(panic) = history.join() {
        panic::resume_unwind(panic);
    }
}
