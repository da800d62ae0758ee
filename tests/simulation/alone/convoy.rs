//! The one Convoy, as a process: registry, cache, fan-out, and the time that it gives agents after a restore.

use std::sync::Arc;

use convoy::{
    model::{Limits, ReplicaId},
    registry::{Registry, Settings, brake::BrakeConfig},
    storage::Storage,
    telemetry::Metrics,
    xds::{cache::Cache, fanout, protocol::Readiness, status::Proxies},
};
use futures_util::future::BoxFuture;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time::Instant};

use super::{LONGEST, SETTLE, disk::Disk};
use crate::gate::Gate;

pub struct Convoy {
    /// Which one it is of those that there were.
    pub id: ReplicaId,
    pub registry: Registry,
    pub cache: Arc<Cache>,
    pub proxies: Arc<Proxies>,
    pub gate: Gate,
    /// Since when it has gone on: its start, or the end of its last pause.
    pub runs_since: Instant,
    tasks: Vec<JoinHandle<()>>,
}

impl Convoy {
    pub fn start(disk: &Arc<Disk>, id: u64, seed: u64) -> Self {
        let (store, opened) = disk.open();
        let (store, gate) = (Arc::new(store), Gate::default());
        let settings =
            Settings { limits: Limits::default(), brake: BrakeConfig { longest: LONGEST, ..BrakeConfig::default() } };
        let random = StdRng::seed_from_u64(seed ^ id);
        let (registry, parts) =
            Registry::prepare(store.clone(), opened, settings, Arc::new(Metrics::default()), random);
        let readiness = if registry.had_state() { Readiness::Ready } else { Readiness::Unknown };
        let cache = Arc::new(Cache::new(registry.clone(), readiness));
        let mut running: Vec<BoxFuture<'static, ()>> =
            vec![parts.task, parts.timers, Box::pin(fanout::run(cache.clone()))];
        if readiness != Readiness::Ready {
            let settle = fanout::settle(cache.clone(), SETTLE);
            running.push(Box::pin(async move {
                settle.await;
                store.settled().await;
            }));
        }
        let tasks = running.into_iter().map(|running| tokio::spawn(gate.clone().behind(running))).collect();
        let (id, proxies, runs_since) = (ReplicaId(id), Arc::default(), Instant::now());
        Self { id, registry, cache, proxies, gate, runs_since, tasks }
    }

    pub fn runs(&self) -> bool {
        self.gate.is_open()
    }

    /// Stops the process, or lets it go on.
    pub fn go_on(&mut self, runs: bool) {
        match runs {
            true if !self.runs() => {
                self.gate.open();
                self.runs_since = Instant::now();
            }
            true => {}
            false => self.gate.shut(),
        }
    }

    pub fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
