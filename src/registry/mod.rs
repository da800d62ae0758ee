//! The registry: who is there. Writes go to storage, the state is built from storage's commits (`state`), what a
//! command would write is worked out beforehand (`plan`); one task (`task`) owns the state and feeds the timers.
//! Readers take an immutable `Snapshot` and never wait.

pub mod clock;
pub mod command;
pub mod lease;
mod plan;
pub mod query;
pub mod state;
mod task;
pub mod watch;
mod wheel;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use convoy_client::proto::Load;
use tokio::{
    sync::{
        mpsc::{self, error::SendTimeoutError},
        oneshot, watch as watch_channel,
    },
    task::JoinHandle,
};

use self::{
    clock::Clock,
    command::{CheckReport, Command, Error, Outcome, Register},
    lease::LeaseTable,
    state::{Dirty, Snapshot, State},
    watch::EventLog,
};
use crate::{
    dirty::DirtySet,
    model::{
        Incarnation, InstanceId, InstanceKey, InstanceSpec, LeaseId, Limits, OverrideHealth, RawKey, RawResource,
        Revision, ServiceKey, ServicePatch, Share, Verdict,
    },
    storage::{Opened, Storage},
    telemetry::{Census, Metrics},
};

/// Commands that wait to be planned; the callers of more wait for a place, and not for ever.
const COMMANDS_WAITING: usize = 4096;
const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// The handle that everybody else holds; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store_id: Arc<str>,
    limits: Limits,
    clock: Clock,
    metrics: Arc<Metrics>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    leases: Arc<LeaseTable>,
    events: Arc<EventLog>,
    dirty: Arc<DirtySet<Dirty>>,
    commands: mpsc::Sender<Queued>,
    watchers: Arc<()>,
    /// The last write has failed.
    store_fails: Arc<AtomicBool>,
    /// What the store held when it was opened.
    opened_with: usize,
}

/// A command with the one who waits for its outcome.
#[derive(Debug)]
struct Queued {
    command: Command,
    reply: Option<oneshot::Sender<Result<Outcome, Error>>>,
}

/// The leases of a registration's or heartbeat's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub lease: LeaseId,
    pub ttl: Duration,
    pub heartbeat_interval: Duration,
}

impl Held {
    fn new(lease: LeaseId, ttl: Duration) -> Self {
        Self { lease, ttl, heartbeat_interval: lease::heartbeat_interval(ttl) }
    }
}

impl Registry {
    /// Starts the task that owns the state. It ends when the last handle is dropped, or when the store is lost.
    pub fn start(
        storage: Arc<dyn Storage>,
        opened: Opened,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> (Self, JoinHandle<()>) {
        let clock = Clock::default();
        let opened_with = opened.records.len();
        let (state, effects) = State::load(opened.revision, opened.records, clock.unix());
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING);
        let inner = Arc::new(Inner {
            store_id: opened.store_id.into(),
            limits,
            clock,
            metrics,
            snapshot: Arc::new(ArcSwap::from_pointee(state.snapshot().clone())),
            leases: Arc::default(),
            events: Arc::new(EventLog::new(opened.revision)),
            dirty: Arc::default(),
            commands,
            watchers: Arc::new(()),
            store_fails: Arc::default(),
            opened_with,
        });
        let task = task::Task::new(&inner, storage, state, effects);
        let running = tokio::spawn(task.run(receiver, opened.commits));
        (Self { inner }, running)
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Whether the store held anything when it was opened. Without, a returning proxy knows more than Convoy does.
    pub fn had_state(&self) -> bool {
        self.inner.opened_with > 0
    }

    /// Whether writes go through: the last one did.
    pub fn is_writable(&self) -> bool {
        !self.inner.store_fails.load(Ordering::Relaxed)
    }

    /// Up to which revision every change is in the snapshot, and has been marked dirty.
    pub fn published(&self) -> watch_channel::Receiver<Revision> {
        self.inner.events.published()
    }

    /// Whether no change waits to be taken.
    pub fn is_clean(&self) -> bool {
        self.inner.dirty.look(BTreeSet::is_empty)
    }

    /// Waits until something has changed, and takes its names. For one reader.
    pub async fn dirty(&self) -> BTreeSet<Dirty> {
        self.inner.dirty.take().await
    }

    pub async fn register(
        &self,
        lease: Option<LeaseId>,
        ttl: Option<Duration>,
        incarnation: Option<Incarnation>,
        instances: Vec<(InstanceKey, Arc<InstanceSpec>)>,
    ) -> Result<(Outcome, Held), Error> {
        let new_lease = LeaseId(rand::random());
        let command = Command::Register(Register { lease, ttl, incarnation, instances, new_lease });
        let outcome = self.run(command).await?;
        let (lease, ttl) = outcome.lease.ok_or_else(|| Error::Unavailable { reason: "the lease is gone".into() })?;
        Ok((outcome, Held::new(lease, ttl)))
    }

    /// Renews a lease; none means that it is not known or over, and that its agent has to register again.
    pub fn heartbeat(&self, lease: LeaseId, load: Option<Load>) -> Option<Held> {
        let ttl = self.inner.leases.renew(lease, self.inner.clock.now_ms(), load);
        self.inner.metrics.heartbeat(ttl.is_some());
        ttl.map(|ttl| Held::new(lease, ttl))
    }

    pub fn load(&self, lease: LeaseId) -> Option<Load> {
        self.inner.leases.load(lease)
    }

    pub fn leases(&self) -> usize {
        self.inner.leases.len()
    }

    /// Counts all that there is.
    pub fn census(&self) -> Census {
        let snapshot = self.snapshot();
        let mut instances = Verdict::ALL.map(|verdict| (verdict.as_str(), 0));
        for instance in snapshot.services.values().flat_map(|service| service.instances.values()) {
            instances[instance.value.health().verdict as usize].1 += 1;
        }
        Census { instances: instances.into(), services: snapshot.services.len(), leases: self.leases() }
    }

    pub async fn deregister(&self, key: InstanceKey, incarnation: Option<Incarnation>) -> Result<Outcome, Error> {
        self.run(Command::Deregister { key, incarnation }).await
    }

    pub async fn drain(
        &self,
        key: InstanceKey,
        incarnation: Option<Incarnation>,
        time: Option<Duration>,
    ) -> Result<Outcome, Error> {
        self.run(Command::Drain { key, incarnation, time }).await
    }

    /// Removes an instance whose liveness check has failed for so long.
    pub async fn evict(&self, key: InstanceKey, incarnation: Incarnation) -> Result<Outcome, Error> {
        self.run(Command::Evict { key, incarnation }).await
    }

    /// Puts an operator's word over an instance's health; none takes it back.
    pub async fn set_override(
        &self,
        key: InstanceKey,
        say: Option<(OverrideHealth, Arc<str>)>,
    ) -> Result<Outcome, Error> {
        self.run(Command::SetOverride { key, say }).await
    }

    /// Stores what probes found. At most `instances_per_call` reports, one an instance.
    pub async fn report_checks(&self, reports: Vec<CheckReport>) -> Result<Outcome, Error> {
        self.run(Command::ReportChecks(reports)).await
    }

    /// Stores steps of the weights of a service's instances.
    pub async fn set_shares(
        &self,
        service: ServiceKey,
        shares: Vec<(InstanceId, Incarnation, Share)>,
    ) -> Result<Outcome, Error> {
        self.run(Command::SetShares { service, shares }).await
    }

    pub async fn put_service(&self, key: ServiceKey, patch: ServicePatch) -> Result<Outcome, Error> {
        self.run(Command::PutService { key, patch }).await
    }

    pub async fn delete_service(&self, key: ServiceKey) -> Result<Outcome, Error> {
        self.run(Command::DeleteService { key }).await
    }

    pub async fn put_raw(&self, key: RawKey, resource: RawResource) -> Result<Outcome, Error> {
        self.run(Command::PutRaw { key, resource }).await
    }

    pub async fn delete_raw(&self, key: RawKey) -> Result<Outcome, Error> {
        self.run(Command::DeleteRaw { key }).await
    }

    async fn run(&self, command: Command) -> Result<Outcome, Error> {
        let (reply, outcome) = oneshot::channel();
        let unavailable = |reason: &str| Error::Unavailable { reason: reason.into() };
        let queued = self.inner.commands.send_timeout(Queued { command, reply: Some(reply) }, COMMAND_PATIENCE).await;
        queued.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => unavailable("too many writes wait already"),
            SendTimeoutError::Closed(_) => unavailable("the registry has stopped"),
        })?;
        outcome.await.map_err(|_| unavailable("the registry has stopped"))?
    }
}
