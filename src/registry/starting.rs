//! How a registry begins: from what the store holds, its handle and what has to run for it.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};

use super::{
    Inner, Registry, Settings,
    brake::Brake,
    clock::Clock,
    pace::Pace,
    state::State,
    task,
    timers::{self, Marker, Timers},
    watch::{EventLog, Watches},
};
use crate::{
    storage::{Opened, Storage},
    telemetry::Metrics,
};

/// Commands that wait to be planned; the callers of more wait for a place, and not for ever.
const COMMANDS_WAITING: usize = 4096;
/// Each holds on to what was the state when it began.
const BACKUPS_AT_ONCE: usize = 2;

/// What has to run for a registry.
#[expect(missing_debug_implementations, reason = "futures have none")]
pub struct Parts {
    /// Owns the state.
    pub task: BoxFuture<'static, ()>,
    /// Of leases. They end with the task.
    pub timers: BoxFuture<'static, ()>,
}

impl Parts {
    fn spawn(self, [intake, own]: [&Handle; 2]) -> JoinHandle<()> {
        let mut beside = JoinSet::new();
        beside.spawn_on(self.timers, intake);
        own.spawn(async move {
            self.task.await;
            // Dropped here and not before: the timers end with the registry.
            drop(beside);
        })
    }
}

fn by_chance() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}

impl Registry {
    /// Starts the task that owns the state. It ends when the last handle is dropped, or when the store is lost. The
    /// timers of leases run on the same runtime; where heartbeats come from sockets, see `start_beside`.
    pub fn start(
        storage: Arc<dyn Storage>,
        opened: Opened,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> (Self, JoinHandle<()>) {
        let here = Handle::current();
        let (registry, parts) = Self::prepare(storage, opened, settings, metrics, by_chance());
        (registry, parts.spawn([&here, &here]))
    }

    /// As `start`, with the timers of leases on the runtime that reads heartbeats from sockets (`intake`), and the task
    /// on one of its `own`.
    pub fn start_beside(
        threads: [&Handle; 2],
        storage: Arc<dyn Storage>,
        opened: Opened,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> (Self, JoinHandle<()>) {
        let served = threads[0].clone();
        let (registry, parts) =
            Self::prepare_with(storage, opened, settings, metrics, by_chance(), (Some(served), Marker::socket));
        (registry, parts.spawn(threads))
    }

    /// As `start`, but what is to run is the caller's, and all chance comes from `random`: for simulations.
    pub fn prepare(
        storage: Arc<dyn Storage>,
        opened: Opened,
        settings: Settings,
        metrics: Arc<Metrics>,
        random: StdRng,
    ) -> (Self, Parts) {
        Self::prepare_with(storage, opened, settings, metrics, random, (None, || Ok(Marker::Tasks)))
    }

    fn prepare_with(
        storage: Arc<dyn Storage>,
        opened: Opened,
        settings: Settings,
        metrics: Arc<Metrics>,
        mut random: StdRng,
        (served, marker): (Option<Handle>, impl FnOnce() -> std::io::Result<Marker> + Send + 'static),
    ) -> (Self, Parts) {
        let clock = Clock::default();
        let had_state = !opened.records.is_empty() && !opened.restored;
        let (mut state, effects) = State::load(opened.revision, opened.records, clock.unix());
        state.me = opened.replica;
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING);
        let (told, notices) = timers::channel();
        let inner = Arc::new(Inner {
            store_id: opened.store_id.into(),
            limits: settings.limits,
            clock,
            metrics,
            snapshot: Arc::new(ArcSwap::from_pointee(state.snapshot().clone())),
            leases: Arc::default(),
            pace: Pace { seed: random.random() },
            random: Mutex::new(random),
            events: Arc::new(EventLog::new(opened.revision)),
            dirty: Arc::default(),
            dirty_checked: Arc::default(),
            commands,
            watches: Watches::new(served),
            store_failed_ms: Arc::default(),
            health: storage.health(),
            had_state,
            trust: Arc::default(),
            braking: Arc::default(),
            copies: Arc::default(),
            backups: Arc::new(Semaphore::new(BACKUPS_AT_ONCE)),
            overdue: Arc::default(),
            replica: opened.replica,
            elsewhere: AtomicBool::new(false),
            notices: told.downgrade(),
        });
        let task = task::Task::new(&inner, storage, state, effects, Brake::new(settings.brake));
        let (timers, clock) = (Timers::new(inner.leases.clone()), inner.clock.clone());
        let timing = async move {
            let ended = match marker() {
                Ok(marker) => timers::run(timers, clock, marker, told).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(%error, "the timers of leases have failed");
            }
        };
        let task = task.run(receiver, opened.commits, notices);
        (Self { inner }, Parts { task: Box::pin(task), timers: Box::pin(timing) })
    }
}
