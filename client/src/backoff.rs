//! How long to wait before trying again: longer each time, never the same for all, and bounded.

use std::time::Duration;

/// The first wait. Short, since most failures are a server that restarts.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait, so that a server that comes back is not alone for long.
const LONGEST: Duration = Duration::from_secs(5);

/// An exponential backoff with jitter. Pure: randomness comes in as an argument.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and gives the wait before the next attempt: 100 ms doubled for each failure before, at most
    /// `longest` and 5 s, of which between a half and the whole by `jitter` (0 to 1), so that agents that lost one
    /// server together do not come back together.
    pub(crate) fn failed(&mut self, longest: Duration, jitter: f64) -> Duration {
        let doubled = FIRST.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let limit = longest.clamp(FIRST, LONGEST);
        doubled.min(limit).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// Notes a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.failed(Duration::MAX, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            assert_eq!(backoff.failed(Duration::from_millis(300), 1.0).as_millis(), 300);
        }
        backoff.reset();
        assert_eq!(backoff.failed(Duration::MAX, 0.0).as_millis(), 50);
    }
}
