//! What the tests stand on: a Convoy in this process or as a child, clients of its three ports, and waiting with a
//! deadline.

pub mod ads;
pub mod api;
pub mod child;
pub mod http;
pub mod sample;
pub mod server;
pub mod wall_clock;
pub mod watch;

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};

/// Only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Looks again and again until there is something to see.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        loop {
            again.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    within(what, looking).await
}

/// A source of randomness whose seed is printed; `CONVOY_TEST_SEED` replays it.
pub fn seeded(test: &str) -> StdRng {
    let given = std::env::var("CONVOY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("{test}: CONVOY_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The value in the middle.
pub fn median<T: Ord + Copy>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
