//! What a fleet of streams has seen, and when: each stream's start, and each change's arrival at each stream.
//!
//! Latency counts from just before the registry is called until the response is read, on one clock. Of several changes
//! of one service a stream may get only the newest; it has then seen the older ones too.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::change::Change;

/// What a fleet may take for anything that it is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Seen {
    /// When the registry was told of the changes of each service, from the number with which it began.
    sent: HashMap<u16, (u16, Vec<Instant>)>,
    /// From each change to each stream, as they came.
    arrivals: Vec<Duration>,
    ready: Vec<Instant>,
    /// Arrivals, or streams' starts, that are still waited for.
    missing: usize,
    responses: usize,
    resources: usize,
    bytes: usize,
    thrown_out: usize,
    failed: Option<String>,
}

#[derive(Debug, Default)]
pub struct Board {
    seen: Mutex<Seen>,
    complete: Notify,
}

/// Everything received, by all streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub responses: usize,
    pub resources: usize,
    pub bytes: usize,
    /// How often a stream was ended by the server, and came back.
    pub thrown_out: usize,
}

impl Board {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it holds this lock")
    }

    /// So many streams, or arrivals, are waited for from now on.
    pub fn expect(&self, more: usize) {
        self.seen().missing += more;
    }

    /// A change goes to the registry now (or was due now), and should reach so many streams.
    pub fn sending(&self, change: Change, at: Instant, streams: usize) {
        let mut seen = self.seen();
        seen.missing += streams;
        seen.sent.entry(change.service).or_insert((change.number, Vec::new())).1.push(at);
    }

    pub fn ready(&self) {
        let mut seen = self.seen();
        seen.ready.push(Instant::now());
        self.arrived(seen, 1);
    }

    pub fn response(&self, resources: usize, bytes: usize) {
        let mut seen = self.seen();
        seen.responses += 1;
        seen.resources += resources;
        seen.bytes += bytes;
    }

    /// A stream that had state `before` of a service has now `change`.
    pub fn changed(&self, before: u16, change: Change) {
        let now = Instant::now();
        let mut seen = self.seen();
        let mut arrived = 0;
        let Seen { sent, arrivals, .. } = &mut *seen;
        let Some((first, sent)) = sent.get(&change.service) else { return };
        for number in before + 1..=change.number {
            let Some(sent) = number.checked_sub(*first).and_then(|at| sent.get(usize::from(at))) else { continue };
            arrivals.push(now.saturating_duration_since(*sent));
            arrived += 1;
        }
        self.arrived(seen, arrived);
    }

    pub fn thrown_out(&self) {
        self.seen().thrown_out += 1;
    }

    fn arrived(&self, mut seen: MutexGuard<'_, Seen>, count: usize) {
        seen.missing = seen.missing.saturating_sub(count);
        if seen.missing == 0 {
            self.complete.notify_one();
        }
    }

    pub fn fail(&self, error: String) {
        self.seen().failed.get_or_insert(error);
        self.complete.notify_one();
    }

    /// Waits until nothing is missing.
    pub async fn complete(&self) -> anyhow::Result<()> {
        let complete = async {
            loop {
                let complete = self.complete.notified();
                {
                    let seen = self.seen();
                    if let Some(error) = &seen.failed {
                        anyhow::bail!("a stream has failed: {error}");
                    }
                    if seen.missing == 0 {
                        return Ok(());
                    }
                }
                complete.await;
            }
        };
        match tokio::time::timeout(PATIENCE, complete).await {
            Ok(done) => done,
            Err(_) => anyhow::bail!("after {PATIENCE:?} there are still {} missing", self.seen().missing),
        }
    }

    /// How long the changes took that have arrived since the last time, in the order in which they did.
    pub fn take_arrivals(&self) -> Vec<Duration> {
        std::mem::take(&mut self.seen().arrivals)
    }

    /// When the streams had what they had asked for.
    pub fn take_ready(&self) -> Vec<Instant> {
        std::mem::take(&mut self.seen().ready)
    }

    pub fn missing(&self) -> usize {
        self.seen().missing
    }

    pub fn totals(&self) -> Totals {
        let seen = self.seen();
        Totals { responses: seen.responses, resources: seen.resources, bytes: seen.bytes, thrown_out: seen.thrown_out }
    }
}
