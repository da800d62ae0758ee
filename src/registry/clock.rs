//! Observed time, in milliseconds since Convoy started. Time in which this process did not run (a pause, a stopped
//! process, a suspended machine) does not count: nobody could have been heard in it.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::model::UnixMillis;

/// A longer time between two ticks is a pause.
const LONGEST_GAP_MS: u64 = 500;

#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    paused_ms: Arc<AtomicU64>,
    last_tick_ms: Arc<AtomicU64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), paused_ms: Arc::default(), last_tick_ms: Arc::default() }
    }
}

impl Clock {
    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    pub fn now_ms(&self) -> u64 {
        self.elapsed_ms().saturating_sub(self.paused_ms.load(Ordering::Relaxed))
    }

    /// Called regularly by one task; a gap since the last call is taken out of time.
    pub fn tick(&self) -> u64 {
        let elapsed = self.elapsed_ms();
        let gap = elapsed.saturating_sub(self.last_tick_ms.swap(elapsed, Ordering::Relaxed));
        if gap > LONGEST_GAP_MS {
            self.paused_ms.fetch_add(gap, Ordering::Relaxed);
            tracing::warn!(gap_ms = gap, "Convoy did not run for a while; all leases are extended by that time");
        }
        self.now_ms()
    }

    /// Wall time, for records and people.
    pub fn unix(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(since.as_millis().try_into().unwrap_or(u64::MAX))
    }
}
