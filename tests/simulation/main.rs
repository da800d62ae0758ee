//! The whole machine on one thread and paused time: random changes to the registry (instances, exports, resources that
//! somebody writes), random clients (both dialects;
//! slow, refusing, leaving and coming back), each history from a seed. When all is quiet, every client's view equals
//! the registry's; and no route that a client holds ever leads to a cluster that it has not got.
//!
//! A failing seed is printed; `SEED=n cargo test --test simulation` replays it alone.

mod agents;
mod client;
mod world;

use agents::Fleet;
use world::World;

const HISTORIES: u64 = 300;
const STEPS: usize = 150;

#[test]
fn every_clients_view_ends_equal_to_the_registrys() {
    histories(|seed| World::run(seed, STEPS));
}

#[test]
fn who_is_alive_is_there_and_the_brake_never_lies() {
    histories(|seed| Fleet::run(seed, STEPS));
}

fn histories<F: Future<Output = ()>>(run: impl Fn(u64) -> F + std::panic::RefUnwindSafe) {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..HISTORIES).collect(),
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
