//! The whole machine on one thread and paused time: random changes to the registry (instances, exports, resources that
//! somebody writes), random clients (both dialects;
//! slow, refusing, leaving and coming back), each history from a seed. When all is quiet, every client's view equals
//! the registry's; and no route that a client holds ever leads to a cluster that it has not got.
//!
//! A failing seed is printed; `SEED=n cargo test --test simulation` replays it alone. `SEEDS=10000` takes so many new ones
//! instead of a few that are always the same.

mod agents;
mod client;
mod etcd;
mod mesh;
mod world;

use agents::Fleet;
use mesh::Mesh;
use world::World;

const HISTORIES: u64 = 300;
/// Of several replicas, each of which takes a second.
const MESH_HISTORIES: u64 = 30;
const STEPS: usize = 150;
/// Seeds that have failed: who had expired and deregistered came back by a registration that was on its way.
const FOUND: [u64; 1] = [7_213_947_277_500_198_470];

#[test]
fn every_clients_view_ends_equal_to_the_registrys() {
    histories(HISTORIES, |seed| World::run(seed, STEPS));
}

#[test]
fn who_is_alive_is_there_and_the_brake_never_lies() {
    histories(HISTORIES, |seed| Fleet::run(seed, STEPS));
}

#[test]
fn several_replicas_are_as_one() {
    histories(MESH_HISTORIES, |seed| Mesh::run(seed, STEPS));
}

fn histories<F: Future<Output = ()>>(count: u64, run: impl Fn(u64) -> F + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let count = number("SEEDS").unwrap_or(count);
    let new: u64 = rand::random_range(1_000_000..u64::MAX / 2);
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None if std::env::var("SEEDS").is_ok() => (new..new + count).collect(),
        None => FOUND.into_iter().chain(0..count).collect(),
    };
    for seed in seeds {
        let history = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(run(seed));
        });
        if let Err(panic) = history {
            eprintln!("the history of seed {seed} has failed");
            std::panic::resume_unwind(panic);
        }
    }
}
