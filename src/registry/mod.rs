//! The registry: who is there. Writes go to storage, the state is built from storage's commits (`state`), what a
//! command would write is worked out beforehand (`plan`); one task (`task`) owns the state. Leases are renewed beside it
//! (`lease`), and another task watches over their deadlines (`timers`), on the runtime where heartbeats are heard.
//! Readers take an immutable `Snapshot` and never wait.

pub mod brake;
pub mod clock;
pub mod command;
pub mod copy;
pub mod digest;
mod keeping;
pub mod lease;
mod owning;
pub mod pace;
mod plan;
pub mod query;
pub mod selector_index;
mod starting;
pub mod state;
mod task;
pub mod timers;
pub mod virtual_service;
pub mod watch;
mod wheel;

pub use self::starting::Parts;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use convoy_client::proto::Load;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch as watch_channel},
    time::timeout,
};

use self::{
    brake::{BrakeConfig, Braking, Release, Trust},
    clock::Clock,
    command::{CheckReport, Command, Error, Outcome, Register},
    copy::{Copies, Copy},
    lease::{HeardHere, Known, LeaseTable, Renewal, Report},
    pace::Pace,
    state::{Dirty, Snapshot},
    timers::Notice,
    watch::{EventLog, Watches},
};
use crate::{
    dirty::DirtySet,
    model::{
        CheckStatus, Incarnation, InstanceId, InstanceKey, InstanceSpec, LeaseId, Limits, OverrideHealth, RawKey,
        RawResource, ReplicaId, Revision, ServiceKey, ServicePatch, Share, UnixMillis, Verdict,
    },
    storage::Health,
    telemetry::{Census, Metrics},
};

/// How long a write that failed stands for all: then somebody has to try, or nobody would know that it goes again.
const STORE_FAILURE_LASTS_MS: u64 = 5_000;
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
    pace: Pace,
    events: Arc<EventLog>,
    dirty: Arc<DirtySet<Dirty>>,
    /// Of the same, the services that have checks or had, for those who probe them.
    dirty_checked: Arc<DirtySet<ServiceKey>>,
    commands: mpsc::Sender<Queued>,
    watches: Watches,
    /// When a write has failed last, in elapsed time; 0 if the last one did not.
    store_failed_ms: Arc<AtomicU64>,
    health: watch_channel::Receiver<Health>,
    /// The store held something when it was opened, and as it was left.
    had_state: bool,
    trust: Arc<Trust>,
    /// What the brake holds now.
    braking: Arc<ArcSwap<Braking>>,
    copies: Arc<Copies>,
    backups: Arc<Semaphore>,
    /// Who of this replica's leases is overdue, for the other replicas.
    overdue: Arc<ArcSwap<Vec<LeaseId>>>,
    replica: ReplicaId,
    elsewhere: AtomicBool,
    /// To the registry's task, which ends with the timers that send there.
    notices: mpsc::WeakSender<Vec<Notice>>,
    random: Mutex<StdRng>,
}

/// What somebody may set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub limits: Limits,
    pub brake: BrakeConfig,
}

impl From<Limits> for Settings {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
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
    /// Its agent had better go on with another replica.
    pub elsewhere: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Kept(Held),
    /// The lease is not known or over, or what is registered is not what the agent said.
    RegisterAgain,
    /// The lease is not known, which may be because the store is away.
    Retry,
}

impl Registry {
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub fn store_id(&self) -> &str {
        &self.inner.store_id
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Whether the store held anything when it was opened, and as it was left. Without, or after a restore, a returning
    /// proxy knows more than Convoy does.
    pub fn had_state(&self) -> bool {
        self.inner.had_state
    }

    /// All that there is at one revision, leases and memories of who left as well.
    pub async fn copy(&self) -> Result<Copy, Error> {
        let copy = self.inner.copies.ask();
        copy.await.map_err(|_| Error::Unavailable { reason: "the registry has stopped".into() })
    }

    /// The right to make a backup; none if as many as may are being made. It ends when it is dropped.
    pub fn backup_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.backups.clone().try_acquire_owned().ok()
    }

    /// Whether writes go through: the last one did, and the store is not known to be away.
    pub fn is_writable(&self) -> bool {
        let failed = self.inner.store_failed_ms.load(Ordering::Relaxed);
        let fails = failed > 0 && self.inner.clock.elapsed_ms() < failed + STORE_FAILURE_LASTS_MS;
        !fails && *self.inner.health.borrow() == Health::Live
    }

    /// Whether the store can be reached. While it is away, what is known may be out of date.
    pub fn store_health(&self) -> watch_channel::Receiver<Health> {
        self.inner.health.clone()
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

    /// As `dirty`, of services that have checks or had, and for another reader.
    pub async fn dirty_checked(&self) -> BTreeSet<ServiceKey> {
        self.inner.dirty_checked.take().await
    }

    pub async fn register(
        &self,
        lease: Option<LeaseId>,
        ttl: Option<Duration>,
        incarnation: Option<Incarnation>,
        instances: Vec<(InstanceKey, Arc<InstanceSpec>)>,
    ) -> Result<(Outcome, Held), Error> {
        let random = self.inner.random.lock().expect("nothing panics while it holds this lock").random();
        let new_lease = LeaseId::new(self.unix(), random);
        let command = Command::Register(Register { lease, ttl, incarnation, instances, new_lease });
        let outcome = self.run(command).await?;
        let (lease, ttl) = outcome.lease.ok_or_else(|| Error::Unavailable { reason: "the lease is gone".into() })?;
        Ok((outcome, self.held(lease, ttl, false)))
    }

    fn held(&self, lease: LeaseId, ttl: Duration, spread: bool) -> Held {
        let heartbeat_interval = self.inner.pace.next(lease, ttl, self.inner.clock.now_ms(), spread);
        Held { lease, ttl, heartbeat_interval, elsewhere: self.inner.elsewhere.load(Ordering::Relaxed) }
    }

    /// Renews a lease. `known` is what its agent has said, if it wants to know whether that still stands.
    pub fn heartbeat(&self, lease: LeaseId, known: Option<Known>, load: Option<Load>) -> Heard {
        let renewal = self.inner.leases.renew(lease, self.inner.clock.now_ms(), known, load);
        let heard = match renewal {
            Renewal::Kept { ttl, spread } => Heard::Kept(self.held(lease, ttl, spread)),
            Renewal::Unknown if !self.is_writable() => Heard::Retry,
            Renewal::Unknown | Renewal::Differs => Heard::RegisterAgain,
        };
        match heard {
            Heard::Kept(_) => self.inner.metrics.kept(),
            Heard::RegisterAgain => self.inner.metrics.register_again(),
            Heard::Retry => self.inner.metrics.retry(),
        }
        heard
    }

    pub fn load(&self, lease: LeaseId) -> Option<Load> {
        if self.load_is_reported() { self.inner.leases.load(lease) } else { None }
    }

    /// The load that was reported last, and when.
    pub fn report(&self, lease: LeaseId) -> Option<Arc<Report>> {
        self.inner.leases.report(lease)
    }

    /// Whether any agent has ever reported a load.
    pub fn load_is_reported(&self) -> bool {
        self.inner.leases.is_loaded()
    }

    /// Wall time, for records and people.
    pub fn unix(&self) -> UnixMillis {
        self.inner.clock.unix()
    }

    pub fn leases(&self) -> usize {
        self.inner.leases.len()
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    /// Other replicas' leases that were heard here since the last time.
    pub fn take_heard(&self) -> Vec<HeardHere> {
        self.inner.leases.take_heard()
    }

    /// Renews an own lease that another replica has heard; see `LeaseTable::renew_for`.
    pub fn renew_for(&self, lease: LeaseId, load: Option<Load>) -> bool {
        self.inner.leases.renew_for(lease, self.inner.clock.now_ms(), load)
    }

    /// See `LeaseTable::take_reported`.
    pub fn take_reported(&self, are_others: bool) -> Vec<(LeaseId, Arc<Report>)> {
        self.inner.leases.take_reported(are_others)
    }

    /// What the agent of another replica's lease has reported there.
    pub fn reported(&self, lease: LeaseId, load: Load) {
        self.inner.leases.reported(lease, self.inner.clock.now_ms(), load);
    }

    /// See `LeaseTable::count_hearing`.
    pub fn count_hearing(&self, lease: LeaseId, only_here: bool) -> u8 {
        self.inner.leases.count_hearing(lease, only_here)
    }

    /// Sends agents to other replicas, or no longer: while the store is away, this one may be taken for gone.
    pub fn send_elsewhere(&self) {
        let away = *self.inner.health.borrow() != Health::Live;
        let others = self.snapshot().replicas.len() > 1;
        self.inner.elsewhere.store(away && others, Ordering::Relaxed);
    }

    /// Makes leases this replica's own, soon; those that cannot be are asked for again when they are next heard.
    pub fn adopt(&self, leases: Vec<LeaseId>) {
        if *self.inner.health.borrow() != Health::Live {
            return;
        }
        for some in leases.chunks(self.inner.limits.instances_per_call) {
            let queued = Queued { command: Command::Adopt(some.to_vec()), reply: None };
            // When so much waits already, they are heard again.
            if self.inner.commands.try_send(queued).is_err() {
                return;
            }
        }
    }

    /// Who of this replica's leases is overdue; the same list as long as nothing has changed.
    pub fn overdue(&self) -> Arc<Vec<LeaseId>> {
        self.inner.overdue.load_full()
    }

    /// What has become of other replicas' leases, as they say.
    pub async fn note(&self, notices: Vec<Notice>) {
        if let Some(told) = self.inner.notices.upgrade()
            && !notices.is_empty()
        {
            // It ends only with the registry.
            let _ = told.send(notices).await;
        }
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

    /// How Convoy's probes fare: whether those that fail are believed.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Observed time up to which everything has been handled; see `clock`.
    pub fn handled_ms(&self) -> u64 {
        self.inner.clock.handled_ms()
    }

    /// Milliseconds of observed time: those in which nobody could be heard do not count.
    pub fn observed_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    /// What the brake holds now; up to a second old.
    pub fn braking(&self) -> Arc<Braking> {
        self.inner.braking.load_full()
    }

    /// Ends the brake of a group, or of all of a scope, or of all; the outcome says how many leases were let go.
    pub async fn release_brake(&self, release: Release) -> Result<Outcome, Error> {
        self.run(Command::ReleaseBrake(release)).await
    }

    /// Stores what probes found. At most `instances_per_call` reports, one an instance.
    pub async fn report_checks(&self, mut reports: Vec<CheckReport>) -> Result<Outcome, Error> {
        let braked = !self.inner.trust.believed();
        for report in &mut reports {
            report.braked = braked && report.state.status == CheckStatus::Failing;
        }
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
        // That nothing has to be written, or that there is no such instance, may be out of date.
        if let Health::Away { reason, .. } = &*self.inner.health.borrow()
            && !matches!(command, Command::ReleaseBrake(_))
        {
            self.inner.metrics.write(command.as_str(), false);
            return Err(unavailable(reason));
        }
        let place = match self.inner.commands.try_reserve() {
            Ok(place) => place,
            Err(_) => match timeout(COMMAND_PATIENCE, self.inner.commands.reserve()).await {
                Ok(place) => place.map_err(|_| unavailable("the registry has stopped"))?,
                Err(_) => return Err(unavailable("too many writes wait already")),
            },
        };
        place.send(Queued { command, reply: Some(reply) });
        outcome.await.map_err(|_| unavailable("the registry has stopped"))?
    }
}
