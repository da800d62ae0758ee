//! When agents send their next heartbeat: the server says so, with every answer.
//!
//! A third of the TTL, a tenth more or less, and never more than 10 s. The tenth keeps agents that came together from
//! staying in step. After a restart it is not enough, since then all come at once: the first heartbeat of each lease is
//! answered with a time that is spread evenly over an interval. Pure: what is random follows from a seed.

use std::time::Duration;

use crate::model::LeaseId;

/// Heartbeats are never further apart than this, so that a server can pace its agents.
const LONGEST: Duration = Duration::from_secs(10);
/// No agent is asked to come sooner.
const SHORTEST: Duration = Duration::from_millis(10);
/// So much of the middle more or less, in percent.
const JITTER: u32 = 10;
/// For so long after the start those that come are taken to come because of it.
pub const YOUNG_MS: u64 = 10_000;

/// The longest time between two heartbeats: three in the middle fit into a TTL.
pub fn longest_interval(ttl: Duration) -> Duration {
    let third = ttl.min(LONGEST * 3) / 3;
    (third * (100 + JITTER) / 100).clamp(SHORTEST, LONGEST)
}

/// The source of the jitter.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub seed: u64,
}

impl Pace {
    /// When the next heartbeat of a lease is due, counted from an answer that is given now: whole milliseconds, which
    /// people can read.
    pub fn next(self, lease: LeaseId, ttl: Duration, now_ms: u64, spread: bool) -> Duration {
        let longest = longest_interval(ttl).as_micros() as u64;
        let random = mixed(self.seed ^ lease.0 as u64 ^ now_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
        let jitter = u64::from(JITTER);
        let least = if spread { 0 } else { longest * (100 - jitter) / (100 + jitter) };
        let micros = least + (((longest - least) * random) >> 32);
        Duration::from_millis(micros / 1_000).clamp(SHORTEST, LONGEST)
    }
}

/// The finish of SplitMix64 (Steele, Lea and Flood, 2014): all bits depend on all bits.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { seed: 1 };

    fn intervals(ttl: Duration, spread: bool) -> Vec<u64> {
        let lease = |number: u64| LeaseId(u128::from(mixed(number)));
        let next = |number| PACE.next(lease(number), ttl, 5_000, spread).as_millis() as u64;
        (0..10_000).map(next).collect()
    }

    #[test]
    fn a_third_of_the_ttl_a_tenth_more_or_less_and_never_over_ten_seconds() {
        for (ttl, least, most) in [
            (Duration::from_secs(1), 299, 366),
            (Duration::from_secs(6), 1_799, 2_200),
            (Duration::from_secs(30), 8_181, 10_000),
            (Duration::from_secs(86_400), 8_181, 10_000),
            (Duration::from_millis(50), 14, 18),
            (Duration::ZERO, 10, 10),
            (Duration::MAX, 8_181, 10_000),
        ] {
            let intervals = intervals(ttl, false);
            let (low, high) = (intervals.iter().min().expect("some"), intervals.iter().max().expect("some"));
            assert!(*low >= least && *high <= most, "{ttl:?}: {low} to {high}");
            assert!(most - least < 10 || (high - low) * 10 > (most - least) * 9, "{ttl:?}: {low} to {high}");
            assert!(u128::from(*high) <= longest_interval(ttl).as_millis());
        }
    }

    #[test]
    fn after_a_restart_they_are_spread_evenly() {
        let mut tenths = [0; 10];
        for interval in intervals(Duration::from_secs(30), true) {
            tenths[(interval / 1_000).min(9) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1_150).contains(count)), "{tenths:?}");
    }

    #[test]
    fn the_same_seed_says_the_same_and_the_next_answer_is_another() {
        let ttl = Duration::from_secs(30);
        let next = |pace: Pace, now| pace.next(LeaseId(7), ttl, now, false);
        assert_eq!(next(PACE, 1), next(PACE, 1));
        assert_ne!(next(PACE, 1), next(PACE, 2));
        assert_ne!(next(PACE, 1), next(Pace { seed: 2 }, 1));
    }
}
