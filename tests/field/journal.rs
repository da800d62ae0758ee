//! What a watch tells, all of it, with the times at which it came.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use convoy_client::proto::{RemovalCause, WatchEvent, WatchKind};
use tokio::task::JoinHandle;

use crate::support::{
    api::{Api, Face},
    until,
    watch::Watch,
};

/// Reads until it is dropped.
#[derive(Debug)]
pub struct Journal {
    told: Arc<Mutex<Vec<(Instant, WatchEvent)>>>,
    reader: JoinHandle<()>,
}

impl Journal {
    /// Begins when the watch has told what there is.
    pub async fn begin(api: &Api) -> Self {
        let mut watch = Watch::all(api, Face::Grpc).await;
        watch.synced().await;
        let told = Arc::<Mutex<Vec<_>>>::default();
        let (telling, begun) = (told.clone(), Instant::now());
        let reader = tokio::spawn(async move {
            // However long nothing happens.
            loop {
                match watch.whenever().await {
                    Ok(event) => telling.lock().expect("nobody panics with it").push((Instant::now(), event)),
                    Err(why) => break eprintln!("the journal's watch has ended after {:?}: {why}", begun.elapsed()),
                }
            }
        });
        Self { told, reader }
    }

    /// How much it holds: what comes later, [`since`](Self::since) tells.
    pub fn mark(&self) -> usize {
        self.told.lock().expect("nobody panics with it").len()
    }

    /// What has been told of instances since a mark.
    pub fn since(&self, mark: usize) -> Vec<(Instant, WatchEvent)> {
        assert!(!self.reader.is_finished(), "the watch goes on");
        let told = self.told.lock().expect("nobody panics with it");
        told[mark..].iter().filter(|(_, event)| event.instance.is_some()).cloned().collect()
    }

    /// Who has left since a mark: when, who, why, by id.
    pub fn left(&self, mark: usize) -> Vec<(String, RemovalCause, Instant)> {
        let mut left: Vec<_> = self
            .since(mark)
            .into_iter()
            .filter(|(_, event)| event.kind() == WatchKind::Removed)
            .map(|(at, event)| {
                let cause = event.cause();
                (event.instance.unwrap_or_default().id, cause, at)
            })
            .collect();
        left.sort_by(|a, b| a.0.cmp(&b.0));
        left
    }

    /// The same, when so many have: a watch may be told a moment later than a listing shows it.
    pub async fn all_left(&self, mark: usize, count: usize) -> Vec<(String, RemovalCause, Instant)> {
        let all = async || Some(self.left(mark)).filter(|left| left.len() >= count);
        until("the watch tells of all that have left", all).await
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
