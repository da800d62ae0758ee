//! Waiting: for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// For whatever takes a moment, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at. Times are measured no finer than this.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks until there is what is waited for. The error of a look says what there is instead, and is told when the time
/// is over.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    let mut seen = String::from("nothing");
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(instead)) => seen = instead,
            Err(_) => panic!("not within {limit:?}: {what}; seen instead: {seen}"),
        }
        sleep(LOOK_EVERY).await;
    }
}
