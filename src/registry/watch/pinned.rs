//! What a watch that lists holds: a snapshot, which is all that there was. One whose client does not read it on would keep
//! it for ever, and with it all that has been replaced since; so it is taken away, and the watch starts again when it is
//! read.

use std::{
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::time::Instant;

use crate::registry::state::Snapshot;

/// How long a listing may not be read on.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for those.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Held {
    snapshot: Option<Arc<Snapshot>>,
    read_at: Instant,
}

/// A listing's snapshot, as long as it has one.
#[derive(Debug)]
pub(super) struct Pinned(Arc<Mutex<Held>>);

impl Pinned {
    /// To read on from; none if it was taken away.
    pub(super) fn read(&self) -> Option<Arc<Snapshot>> {
        let mut held = lock(&self.0);
        held.read_at = Instant::now();
        held.snapshot.clone()
    }
}

/// All listings.
#[derive(Debug)]
pub(super) struct Listings {
    all: Mutex<Vec<Weak<Mutex<Held>>>>,
    swept: Mutex<Instant>,
}

impl Default for Listings {
    fn default() -> Self {
        Self { all: Mutex::default(), swept: Mutex::new(Instant::now()) }
    }
}

impl Listings {
    pub(super) fn pin(&self, snapshot: Arc<Snapshot>) -> Pinned {
        let held = Arc::new(Mutex::new(Held { snapshot: Some(snapshot), read_at: Instant::now() }));
        lock(&self.all).push(Arc::downgrade(&held));
        Pinned(held)
    }

    /// Takes the snapshots of those that were not read on for long. To be called whenever something has changed: while
    /// nothing does, what they hold is what there is.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        if now < *lock(&self.swept) + SWEEP_INTERVAL {
            return;
        }
        *lock(&self.swept) = now;
        lock(&self.all).retain(|listing| {
            let Some(listing) = listing.upgrade() else { return false };
            let mut held = lock(&listing);
            if now >= held.read_at + PATIENCE {
                held.snapshot = None;
            }
            held.snapshot.is_some()
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_on_is_taken_away() {
        let listings = Listings::default();
        let (read, unread) = (listings.pin(Arc::default()), listings.pin(Arc::default()));
        let gone = listings.pin(Arc::default());
        drop(gone);
        for _ in 0..7 {
            tokio::time::advance(Duration::from_secs(10)).await;
            assert!(read.read().is_some(), "it is read on, however slowly");
            listings.sweep();
        }
        assert!(unread.read().is_none());
        assert_eq!(lock(&listings.all).len(), 1);
    }
}
