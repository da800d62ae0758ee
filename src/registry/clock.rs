//! Observed time, in milliseconds since Convoy started. Time in which Convoy could hear nobody (a pause, a stopped
//! process, an intake that starves) does not count.
//!
//! One mechanism: a marker goes through the intake, again and again (`timers`). When it is back, everything that was ready
//! before it was sent has been handled. So
//!
//! - leases lapse only up to the time at which the last marker was sent: whoever was heard in time, by the kernel at
//!   least, has been handled before anybody lapses;
//! - a time between two returns that is longer than `LONGEST_SILENCE_MS` is taken out of time, whole: be it that the
//!   marker was not sent (nothing ran) or did not come back (the intake starved). One offset holds all such times, and by
//!   it all deadlines move.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use crate::model::UnixMillis;

/// A longer time between two returns of the marker is one in which nobody was heard.
const LONGEST_SILENCE_MS: u64 = 500;

#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    unobserved_ms: Arc<AtomicU64>,
    handled_ms: Arc<AtomicU64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), unobserved_ms: Arc::default(), handled_ms: Arc::default() }
    }
}

impl Clock {
    /// Time that has passed, observed or not.
    pub fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// Observed time: what deadlines are counted from. Right after a pause, before a marker is back, it is not known how
    /// much of the time that passed will be taken out; so it is never far ahead of what has been handled.
    pub fn now_ms(&self) -> u64 {
        let observed = self.elapsed_ms().saturating_sub(self.unobserved_ms.load(Ordering::Relaxed));
        observed.min(self.handled_ms() + LONGEST_SILENCE_MS)
    }

    /// Observed time up to which everything has been handled: a little behind, and never back. What ends, ends by it.
    pub fn handled_ms(&self) -> u64 {
        self.handled_ms.load(Ordering::Relaxed)
    }

    /// Takes in what a marker says.
    pub fn observe(&self, observed: Observed) {
        self.unobserved_ms.fetch_add(observed.unheard_ms, Ordering::Relaxed);
        self.handled_ms.fetch_max(observed.until_ms, Ordering::Relaxed);
    }

    /// Wall time, for records and people.
    pub fn unix(&self) -> UnixMillis {
        UnixMillis::now()
    }
}

/// What follows from a marker's return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Up to here, in observed time, everything has been handled. It never goes back.
    pub until_ms: u64,
    /// So much has to be taken out of time.
    pub unheard_ms: u64,
}

/// The watch over the markers. Pure.
#[derive(Debug, Default)]
pub struct Observation {
    last_back_ms: u64,
    unobserved_ms: u64,
    until_ms: u64,
}

impl Observation {
    /// A marker that was sent at one time is back at another; both are elapsed time.
    pub fn back(&mut self, sent_ms: u64, now_ms: u64) -> Observed {
        let silence = now_ms.saturating_sub(self.last_back_ms);
        self.last_back_ms = now_ms;
        let unheard_ms = if silence > LONGEST_SILENCE_MS { silence } else { 0 };
        self.unobserved_ms += unheard_ms;
        self.until_ms = self.until_ms.max(sent_ms.saturating_sub(self.unobserved_ms));
        Observed { until_ms: self.until_ms, unheard_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_markers_say() {
        // Sent, back; handled until, taken out.
        for (markers, (until, unheard)) in [
            (&[(0, 0)][..], (0, 0)),
            (&[(10, 11), (20, 21)], (20, 0)),
            // Late, but in time: nobody lapses meanwhile, and no time is taken out.
            (&[(10, 11), (20, 400)], (20, 0)),
            (&[(10, 11), (20, 511)], (20, 0)),
            // The marker did not come back in time: the intake starved.
            (&[(10, 11), (20, 512)], (10, 501)),
            (&[(10, 11), (20, 5_020)], (10, 5_009)),
            (&[(10, 11), (20, 5_020), (5_030, 5_031)], (21, 0)),
            // It was not sent in time: nothing ran.
            (&[(10, 11), (60_000, 60_001)], (10, 59_990)),
            (&[(10, 11), (60_000, 60_001), (60_100, 60_101)], (110, 0)),
            // Twice.
            (&[(10, 11), (2_000, 2_011), (5_000, 5_011), (5_100, 5_101)], (100, 0)),
        ] {
            let mut observation = Observation::default();
            let last = markers.iter().map(|(sent, back)| observation.back(*sent, *back)).last().expect("one at least");
            assert_eq!(last, Observed { until_ms: until, unheard_ms: unheard }, "{markers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_seen_before_the_marker_is_back() {
        let (clock, mut observation) = (Clock::default(), Observation::default());
        let mut pass = async |clock: &Clock, ms| {
            let sent = clock.elapsed_ms();
            tokio::time::advance(Duration::from_millis(ms)).await;
            clock.observe(observation.back(sent, clock.elapsed_ms()));
        };
        tokio::time::advance(Duration::from_millis(100)).await;
        pass(&clock, 1).await;
        assert_eq!((clock.handled_ms(), clock.now_ms()), (100, 101));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((clock.handled_ms(), clock.now_ms()), (100, 100 + LONGEST_SILENCE_MS));
        pass(&clock, 1).await;
        assert_eq!((clock.handled_ms(), clock.now_ms()), (100, 101));
    }

    proptest! {
        #[test]
        fn observed_time_never_goes_back_and_never_ahead(
            waits in prop::collection::vec((0u64..2_000, 0u64..2_000), 1..50),
        ) {
            let (mut observation, mut now, mut until, mut out) = (Observation::default(), 0, 0, 0);
            for (before, way) in waits {
                let sent = now + before;
                now = sent + way;
                let observed = observation.back(sent, now);
                out += observed.unheard_ms;
                prop_assert!(observed.until_ms >= until);
                until = observed.until_ms;
                prop_assert!(out <= now && until <= sent);
                if before + way > LONGEST_SILENCE_MS {
                    prop_assert_eq!(observed.unheard_ms, before + way);
                }
            }
        }
    }
}
