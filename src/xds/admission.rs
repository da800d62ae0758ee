//! Who may be sent everything now, and how long a stream lives.
//!
//! When thousands connect at once, those that come back with what they had cost next to nothing, and are never kept
//! waiting. Those that begin from nothing are each sent the whole mesh, and go a number at a time: then the first of
//! them are in service early, and what is being written is bounded. Nobody is refused.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// How long a client that does not take what it is sent keeps others waiting.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// By how much streams of one age differ, so that they do not end together.
const JITTER: f64 = 0.2;

#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    max_age: Option<Duration>,
}

impl Admission {
    pub fn new(cold_starts: usize, max_age: Option<Duration>) -> Self {
        Self { places: Arc::new(Semaphore::new(cold_starts)), max_age }
    }

    pub async fn admit(&self) -> Place {
        let permit = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let over = async move {
            sleep(PATIENCE).await;
            drop(permit);
        };
        Place(tokio::spawn(over).abort_handle())
    }

    /// When a stream that begins now has lived long enough.
    pub fn end_of_a_stream(&self) -> Option<Instant> {
        let age = self.max_age?;
        Some(Instant::now() + age.mul_f64(1.0 + JITTER * (rand::rng().random::<f64>() - 0.5)))
    }
}

/// A place among those that are sent everything. It is given back when it is dropped, and when `PATIENCE` is over even if
/// it is not: nobody asks a stream whose client reads nothing for more, so that the stream cannot look at the time itself.
#[derive(Debug)]
pub struct Place(AbortHandle);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_given_back_in_the_end_whatever_its_stream_does() {
        let (admission, begun) = (Admission::new(1, None), Instant::now());
        let held = admission.admit().await;
        let next = admission.admit().await;
        assert!(begun.elapsed() >= PATIENCE, "while the first is held");
        drop(held);
        let begun = Instant::now();
        drop(next);
        admission.admit().await;
        assert!(begun.elapsed() < PATIENCE, "when it is dropped");
    }
}
