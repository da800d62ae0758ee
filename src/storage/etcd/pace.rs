//! How much of what comes back by itself (lazy transactions) goes to etcd: each write of it costs all replicas, and a place
//! in etcd's history until that is compacted.

use tokio::time::Instant;

/// Two hundred records of a kilobyte are under a gigabyte an hour.
const RECORDS_PER_SECOND: f64 = 200.0;
/// What may come at once: a large service's steps.
const BURST: f64 = 2_000.0;

#[derive(Debug)]
pub struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Whether so many records may be written now.
    pub fn admits(&mut self, records: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left, self.at) = ((self.left + elapsed * RECORDS_PER_SECOND).min(BURST), now);
        let admitted = records as f64 <= self.left;
        if admitted {
            self.left -= records as f64;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn after_a_burst_so_many_go_through_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let admitted = |pace: &mut Pace, at| (0..1_000).filter(|_| pace.admits(50, start + at)).count();
        assert_eq!(admitted(&mut pace, Duration::ZERO), 40);
        assert_eq!(admitted(&mut pace, Duration::from_secs(1)), 4);
        assert_eq!(admitted(&mut pace, Duration::from_secs(3_600)), 40, "what was not used is not saved up");
    }
}
