//! Wall clocks, which follow from the seed and the simulated time: each machine has one, they differ, and they are stepped.
//! Nothing but what is written down for people goes by them, so nobody comes or goes for a step.
//!
//! Of what runs on one machine only, that machine's is the thread's.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use convoy::model::UnixMillis;
use futures_util::{FutureExt, future::BoxFuture};
use rand::{RngExt, rngs::StdRng};
use tokio::time::Instant;

use crate::trace::note;

/// When histories begin, long after any that is real.
const BEGINNING: Duration = Duration::from_secs(4_000_000_000);
/// Clocks of machines that are looked after.
const SKEW_MS: i64 = 2_000;
const SECONDS_MS: i64 = 30_000;
/// Between two clocks it is twice this at most: who left is remembered for a day, by the wall clock.
const HOURS_MS: i64 = 9 * 60 * 60 * 1_000;

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// By how many milliseconds the clock of what runs now is ahead.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

/// From now on nothing in this thread is told the machine's own time.
pub fn begin() {
    BEGUN.set(Some(Instant::now()));
    convoy_chance::wall_from(tell);
    let told = UnixMillis::now().0;
    let is_simulated = told == u64::try_from(BEGINNING.as_millis()).expect("a date");
    assert!(is_simulated || cfg!(not(target_os = "linux")), "the wall clock is the machine's: {told}");
}

fn tell() -> Duration {
    let passed = BEGUN.get().map(|begun| begun.elapsed()).unwrap_or_default();
    let ahead = AHEAD.get();
    let by = Duration::from_millis(ahead.unsigned_abs());
    if ahead < 0 { BEGINNING + passed - by } else { BEGINNING + passed + by }
}

/// Steps the clock of the one machine that there is.
pub fn step(random: &mut StdRng) {
    AHEAD.set(somewhere(random));
    note(|| format!("the wall clock is ahead by {} ms", AHEAD.get()));
}

/// To the true time, seconds from it, or hours, before or behind.
fn somewhere(random: &mut StdRng) -> i64 {
    let furthest = [0, SECONDS_MS, SECONDS_MS, HOURS_MS, HOURS_MS][random.random_range(0..5)];
    random.random_range(-furthest..=furthest)
}

/// The clock of one machine of several.
#[derive(Clone, Debug, Default)]
pub struct Wall(Arc<AtomicI64>);

impl Wall {
    pub fn new(random: &mut StdRng) -> Self {
        Self(Arc::new(random.random_range(-SKEW_MS..=SKEW_MS).into()))
    }

    pub fn step(walls: &[Self], random: &mut StdRng) {
        let to = somewhere(random);
        note(|| format!("{} wall clocks are ahead by {to} ms", walls.len()));
        walls.iter().for_each(|wall| wall.0.store(to, Relaxed));
    }

    /// Does something on that machine.
    pub fn on<T>(&self, run: impl FnOnce() -> T) -> T {
        let before = AHEAD.replace(self.0.load(Relaxed));
        let done = run();
        AHEAD.set(before);
        done
    }

    /// What runs on that machine.
    pub async fn around<T>(self, mut running: BoxFuture<'static, T>) -> T {
        std::future::poll_fn(|context| self.on(|| running.poll_unpin(context))).await
    }
}
