//! The task that owns the registry's state. It moves commands to the store and commits into the state, and decides
//! nothing: what to write is `plan`'s, what follows is `state`'s.
//!
//! Writes go in rounds. While one is at the store, the next one is planned, and it is handed over as soon as the store takes
//! another: what the one before it wrote is applied while the store writes. So a command is planned on a state that may lack
//! what is on its way, and one whose footprint meets that waits until it has come back as a commit. So does one that would be
//! refused, or change nothing, as long as anything is on its way that came before it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Inner, Queued,
    brake::{Brake, Braking, Trust},
    clock::Clock,
    command::{Command, Error, Outcome},
    copy::Copies,
    lease::LeaseTable,
    plan::{
        Plan,
        footprints::{Footprint, Footprints},
    },
    state::{Dirty, Effects, Snapshot, State},
    timers::{Notice, TICK, tick_ms, tick_of},
    watch::EventLog,
    wheel::Wheel,
};
use crate::{
    dirty::DirtySet,
    model::{BrakeScope, Incarnation, InstanceKey, LeaseId, Limits, Revision, ServiceKey, UnixMillis},
    storage::{Commit, CommitError, Storage, Transaction},
    telemetry::Metrics,
};

/// How many commands are written together: enough to share a sync, few enough to answer soon.
const MAX_ROUND: usize = 512;
/// How often a command is planned again because another writer came first.
const MAX_ATTEMPTS: u32 = 16;
/// How much of a round timers may change: who asks for something waits for a whole round.
const MAX_DUE_CHANGES: usize = 512;
/// When an expiry is tried again that the store could not take.
const EXPIRY_RETRY_MS: u64 = 1_000;
/// How many drains end at a time.
const DRAINS_PER_TICK: usize = 10_000;
/// How often it is looked who the brake still keeps.
const LOOK_AT_KEPT: Duration = Duration::from_secs(1);
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// How much later a replica ends a drain that is another's to end.
const DRAIN_PATIENCE_MS: u64 = 3_000;
/// How long, and how many, instances that left are remembered.
const TOMBSTONE_AGE_MS: u64 = 24 * 60 * 60 * 1000;
const MAX_TOMBSTONES: usize = 200_000;
/// How long a service outlives its last instance.
const EMPTY_SERVICE_AGE_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
struct Pending {
    command: Command,
    reply: Option<oneshot::Sender<Result<Outcome, Error>>>,
    attempts: u32,
    /// Which round was being planned when it came.
    came_in: u64,
}

/// Commands that are to be planned.
#[derive(Debug, Default)]
struct Queue {
    new: VecDeque<Pending>,
    /// Those that wait for what is on its way.
    waiting: VecDeque<Pending>,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.new.len() + self.waiting.len() >= MAX_ROUND
    }

    /// Those that waited are looked at again, before the others.
    fn look_again(&mut self) {
        self.waiting.append(&mut self.new);
        self.new = std::mem::take(&mut self.waiting);
    }
}

/// A command that is planned and not applied yet.
#[derive(Debug)]
struct InFlight {
    pending: Pending,
    plan: Plan,
    footprint: Footprint,
    round: u64,
    written: Option<Revision>,
}

/// What goes to the store together.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    transactions: Vec<Transaction>,
    changes: usize,
    #[expect(clippy::vec_box, reason = "they move from one list to the next, and a list of them would be a large one")]
    commands: Vec<Box<InFlight>>,
}

pub(super) struct Task {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) state: State,
    snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) leases: Arc<LeaseTable>,
    events: Arc<EventLog>,
    dirty: Arc<DirtySet<Dirty>>,
    dirty_checked: Arc<DirtySet<ServiceKey>>,
    store_failed_ms: Arc<AtomicU64>,
    /// The last write did.
    fails: bool,
    /// What has changed since the last snapshot was published.
    changed: Vec<Dirty>,
    checked: Vec<ServiceKey>,
    replicas_changed: bool,
    /// The ends of drains; the timers of leases are in `timers`.
    drains: Wheel<(InstanceKey, Incarnation)>,
    /// What clients asked for, and what timers did: neither keeps the other from its turn.
    asked: Queue,
    due: Queue,
    /// It is being planned.
    next: Round,
    /// Rounds that are at the store, each in the order of its answer.
    #[expect(clippy::vec_box, reason = "as in `Round`")]
    writing: VecDeque<Vec<Box<InFlight>>>,
    /// Written, and on their way back as commits.
    #[expect(clippy::vec_box, reason = "as in `Round`")]
    written: Vec<Box<InFlight>>,
    footprints: Footprints,
    /// Something has left the stage: those that wait may go on.
    left: bool,
    /// From when leases whose owner is gone are looked for; none if there are none.
    pub(super) orphans_at: Option<Instant>,
    /// Since when the overdue leases that others are told of may have changed.
    pub(super) overdue_shown: (u64, Instant),
    pub(super) overdue: Arc<ArcSwap<Vec<LeaseId>>>,
    /// Leases that are kept, which could not be written.
    pub(super) unkept: Vec<(LeaseId, BrakeScope)>,
    pub(super) brake: Brake,
    pub(super) trust: Arc<Trust>,
    pub(super) braking: Arc<ArcSwap<Braking>>,
    copies: Arc<Copies>,
}

impl Task {
    pub(super) fn new(inner: &Inner, storage: Arc<dyn Storage>, state: State, effects: Effects, brake: Brake) -> Self {
        let mut task = Self {
            clock: inner.clock.clone(),
            limits: inner.limits.clone(),
            metrics: inner.metrics.clone(),
            storage,
            state,
            snapshot: inner.snapshot.clone(),
            leases: inner.leases.clone(),
            events: inner.events.clone(),
            dirty: inner.dirty.clone(),
            dirty_checked: inner.dirty_checked.clone(),
            store_failed_ms: inner.store_failed_ms.clone(),
            fails: false,
            changed: Vec::new(),
            checked: Vec::new(),
            replicas_changed: false,
            drains: Wheel::default(),
            asked: Queue::default(),
            due: Queue::default(),
            next: Round::default(),
            writing: VecDeque::new(),
            written: Vec::new(),
            footprints: Footprints::default(),
            left: false,
            orphans_at: None,
            overdue_shown: (0, Instant::now()),
            overdue: inner.overdue.clone(),
            unkept: Vec::new(),
            brake,
            trust: inner.trust.clone(),
            braking: inner.braking.clone(),
            copies: inner.copies.clone(),
        };
        // After a restart every lease has one full TTL, and every drain its full time.
        task.set_timers(&effects);
        for event in &effects.events {
            task.brake.follow(event, task.clock.handled_ms());
        }
        for event in effects.events.iter().filter(|event| event.instance.value.lapsed.is_some()) {
            task.take_over_kept(event.instance.value.lease);
        }
        task.leases.set_applied(task.state.snapshot().revision);
        task.dirty.mark(effects.dirty);
        task.dirty_checked.mark(effects.checked);
        task
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Queued>,
        mut commits: mpsc::Receiver<Commit>,
        mut notices: mpsc::Receiver<Vec<Notice>>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        let mut looking = Instant::now() + LOOK_AT_KEPT;
        let (mut writing, calls) = (FuturesOrdered::new(), self.storage.calls());
        loop {
            // What follows may be ready every time: what waits here gets its turn all the same.
            while !self.due.is_full()
                && let Ok(batch) = notices.try_recv()
            {
                self.note(batch);
            }
            while !self.asked.is_full()
                && let Ok(queued) = commands.try_recv()
            {
                self.enqueue(queued);
            }
            self.plan_next();
            // One that takes a round at a time gets larger ones when those who were answered are back.
            let is_free = writing.len() < calls && (calls > 1 || self.written.is_empty());
            if is_free && !self.next.transactions.is_empty() {
                let after = Round { number: self.next.number + 1, ..Round::default() };
                let Round { transactions, commands, .. } = std::mem::replace(&mut self.next, after);
                self.writing.push_back(commands);
                let (storage, started) = (self.storage.clone(), Instant::now());
                writing.push_back(async move { (storage.commit(transactions).await, started) });
            }
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.copies.hand_out(&self.state);
                    self.finish_drains();
                    if Instant::now() >= looking {
                        looking = Instant::now() + LOOK_AT_KEPT;
                        self.look_at_kept();
                        self.adopt_orphans();
                    }
                    self.show_overdue();
                    if Instant::now() >= housekeeping {
                        housekeeping = Instant::now() + HOUSEKEEPING;
                        self.keep_house();
                    }
                }
                commit = commits.recv() => {
                    let Some(commit) = commit else { return tracing::error!("the store's stream of changes has ended") };
                    self.apply(commit);
                    while let Ok(commit) = commits.try_recv() {
                        self.apply(commit);
                    }
                    self.publish();
                    self.answer_applied();
                }
                Some((outcomes, started)) = writing.next() => {
                    self.metrics.store_commit(started.elapsed(), outcomes.len());
                    self.written(outcomes);
                    self.answer_applied();
                }
                batch = notices.recv(), if !self.due.is_full() => {
                    let Some(batch) = batch else { return tracing::error!("the timers of leases have ended") };
                    self.note(batch);
                }
                queued = commands.recv(), if !self.asked.is_full() => {
                    let Some(queued) = queued else { return };
                    self.enqueue(queued);
                }
            }
        }
    }

    fn enqueue(&mut self, Queued { command, reply }: Queued) {
        if let Command::ReleaseBrake(release) = &command {
            let (released, revision) = (self.release_brake(release), self.state.snapshot().revision);
            return answer(reply, Ok(Outcome { released, revision, ..Outcome::default() }));
        }
        self.asked.new.push_back(Pending { command, reply, attempts: 0, came_in: self.next.number });
    }

    pub(super) fn enqueue_own(&mut self, command: Command) {
        self.due.new.push_back(Pending { command, reply: None, attempts: 0, came_in: self.next.number });
    }

    /// Plans what has come, for the next round.
    fn plan_next(&mut self) {
        if std::mem::take(&mut self.left) {
            self.footprints.look_again();
            self.due.look_again();
            self.asked.look_again();
        }
        let mut due = std::mem::take(&mut self.due);
        self.plan_some(&mut due, MAX_ROUND / 2, MAX_DUE_CHANGES);
        // To complete one may have brought others.
        due.new.append(&mut self.due.new);
        self.due = due;
        let mut asked = std::mem::take(&mut self.asked);
        self.plan_some(&mut asked, MAX_ROUND, usize::MAX);
        self.asked = asked;
    }

    /// Plans from the front of a queue until the round has `limit` transactions or so many changes.
    fn plan_some(&mut self, queue: &mut Queue, limit: usize, max_changes: usize) {
        let now = self.clock.unix();
        while self.next.transactions.len() < limit
            && self.next.changes < max_changes
            && let Some(pending) = queue.new.pop_front()
        {
            if self.is_obsolete(&pending.command) {
                continue;
            }
            let mut plan = match self.state.plan(&pending.command, now, &self.limits) {
                Ok(plan) => plan,
                Err(error) if self.is_applied(pending.came_in) => {
                    self.refuse(pending, error);
                    continue;
                }
                Err(_) => {
                    queue.waiting.push_back(pending);
                    continue;
                }
            };
            if plan.transaction.changes.is_empty() && !self.is_applied(pending.came_in) {
                self.footprints.wait(&plan);
                queue.waiting.push_back(pending);
                continue;
            }
            let Some(footprint) = self.footprints.enter(&plan) else {
                queue.waiting.push_back(pending);
                continue;
            };
            if plan.transaction.changes.is_empty() {
                self.footprints.leave(&footprint);
                self.complete(pending, &plan);
                continue;
            }
            let transaction = std::mem::take(&mut plan.transaction);
            self.next.changes += transaction.changes.len();
            self.next.transactions.push(transaction);
            let round = self.next.number;
            self.next.commands.push(Box::new(InFlight { pending, plan, footprint, round, written: None }));
        }
    }

    /// Whether everything up to this round has been applied.
    fn is_applied(&self, round: u64) -> bool {
        let rounds = [&self.written].into_iter().chain(&self.writing).chain([&self.next.commands]);
        rounds.flat_map(|commands| commands.first()).all(|oldest| oldest.round > round)
    }

    /// An expiry whose agent has registered again meanwhile, or the keeping of one that is no longer kept.
    fn is_obsolete(&self, command: &Command) -> bool {
        match command {
            Command::Expire(lease) => !self.leases.is_lapsed(*lease),
            Command::Lapse { lease, .. } => !self.brake.keeps(*lease),
            _ => false,
        }
    }

    /// The store's word on the round.
    fn written(&mut self, outcomes: Vec<Result<Revision, CommitError>>) {
        let reason = outcomes.iter().find_map(|outcome| match outcome {
            Err(CommitError::Unavailable(reason)) => Some(reason),
            _ => None,
        });
        let failed = reason.is_some();
        // What fails is tried again and again: it is said once.
        match (reason, std::mem::replace(&mut self.fails, failed)) {
            (Some(reason), false) => tracing::error!(reason, "writes fail"),
            (None, true) => tracing::info!("writes go through again"),
            _ => {}
        }
        let failed_ms = if failed { self.clock.elapsed_ms().max(1) } else { 0 };
        self.store_failed_ms.store(failed_ms, Ordering::Relaxed);
        for (mut in_flight, outcome) in self.writing.pop_front().into_iter().flatten().zip(outcomes) {
            match outcome {
                Ok(revision) => {
                    in_flight.written = Some(revision);
                    self.written.push(in_flight);
                }
                Err(error) => {
                    self.leave(&in_flight.footprint);
                    self.not_written(in_flight.pending, error);
                }
            }
        }
    }

    fn not_written(&mut self, mut pending: Pending, error: CommitError) {
        match error {
            CommitError::Conflict if pending.attempts < MAX_ATTEMPTS => {
                pending.attempts += 1;
                let queue = if pending.reply.is_some() { &mut self.asked } else { &mut self.due };
                queue.new.push_back(pending);
            }
            CommitError::TooLarge(what) => self.refuse(pending, Error::TooLarge { what }),
            error @ CommitError::Busy => {
                self.metrics.write(pending.command.as_str(), false);
                answer(pending.reply, Err(Error::Unavailable { reason: error.to_string() }));
            }
            error => self.refuse(pending, Error::Unavailable { reason: error.to_string() }),
        }
    }

    fn leave(&mut self, footprint: &Footprint) {
        self.footprints.leave(footprint);
        self.left = true;
    }

    /// Answers what is durable and applied.
    fn answer_applied(&mut self) {
        let applied = self.state.snapshot().revision;
        for in_flight in std::mem::take(&mut self.written) {
            match in_flight.written {
                Some(revision) if revision <= applied => {
                    self.leave(&in_flight.footprint);
                    self.complete(in_flight.pending, &in_flight.plan);
                }
                _ => self.written.push(in_flight),
            }
        }
    }

    fn complete(&mut self, pending: Pending, plan: &Plan) {
        self.metrics.write(pending.command.as_str(), true);
        let snapshot = self.state.snapshot();
        let held = plan.lease.and_then(|id| self.state.lease(id).map(|state| (id, state)));
        let lease = held.map(|(id, state)| (id, state.lease.ttl));
        let outcome = Outcome {
            revision: snapshot.revision,
            instances: plan.instances.iter().filter_map(|key| snapshot.instance(key).cloned()).collect(),
            lease,
            digest: held.map(|(_, state)| state.digest).unwrap_or_default(),
            released: 0,
        };
        if let Some((lease, _)) = lease {
            self.leases.revive(lease, self.clock.now_ms());
        }
        // More instances than one write may change; nothing was written of another replica's lease.
        let owns = |lease| self.state.own_lease(lease).is_some();
        match pending.command {
            Command::Expire(lease) if owns(lease) => self.enqueue_own(Command::Expire(lease)),
            Command::Lapse { lease, scope }
                if owns(lease) && self.state.members(lease).any(|of| of.value.lapsed.is_none()) =>
            {
                self.enqueue_own(Command::Lapse { lease, scope });
            }
            Command::Restore(lease) if owns(lease) && self.state.members(lease).any(|of| of.value.lapsed.is_some()) => {
                self.enqueue_own(Command::Restore(lease));
            }
            _ => {}
        }
        answer(pending.reply, Ok(outcome));
    }

    fn refuse(&mut self, pending: Pending, error: Error) {
        self.metrics.write(pending.command.as_str(), false);
        if let Error::Unavailable { reason } = &error {
            tracing::debug!(reason, "a write has failed");
            let later = self.clock.handled_ms() + EXPIRY_RETRY_MS;
            match &pending.command {
                // Until it is tried again its agent may still renew it.
                Command::Expire(lease) => self.leases.postpone(*lease, later),
                Command::Lapse { lease, scope } => self.unkept.push((*lease, *scope)),
                // Its next heartbeat tries again.
                Command::Restore(lease) => self.leases.tell_when_heard(*lease),
                Command::FinishDrain { key, incarnation } => {
                    self.drains.set(tick_of(later), (key.clone(), *incarnation));
                }
                _ => {}
            }
        }
        answer(pending.reply, Err(error));
    }

    fn apply(&mut self, commit: Commit) {
        let revision = commit.revision;
        let merged = commit.merged_after.map(|after| (after, revision));
        let effects = self.state.apply(commit, self.clock.unix());
        for event in &effects.events {
            self.brake.follow(event, self.clock.handled_ms());
            if let Some(cause) = event.cause() {
                self.metrics.removal(cause.as_str());
            }
            tracing::debug!(key = %event.instance.value.key, kind = ?event.kind, revision = %event.revision, "instance");
        }
        self.set_timers(&effects);
        self.leases.set_applied(revision);
        self.events.push(effects.events, merged);
        self.changed.extend(effects.dirty);
        self.checked.extend(effects.checked);
    }

    /// The snapshot goes first: whoever is told of a change looks there, and is not told again.
    fn publish(&mut self) {
        self.snapshot.store(Arc::new(self.state.snapshot().clone()));
        self.dirty.mark(self.changed.drain(..));
        self.dirty_checked.mark(self.checked.drain(..));
        if std::mem::take(&mut self.replicas_changed) {
            // Checks are shared out anew.
            let services = self.state.snapshot().services.values();
            let checked = services.filter(|state| !state.service.value.checks.is_empty());
            self.dirty_checked.mark(checked.map(|state| state.key.clone()));
        }
        self.events.publish(self.state.snapshot().revision);
    }

    fn set_timers(&mut self, effects: &Effects) {
        let now = self.clock.now_ms();
        for set in &effects.leases_set {
            self.own_or_not(set, now);
        }
        for (lease, digest) in &effects.digests {
            self.leases.set_digest(*lease, *digest);
        }
        for lease in &effects.leases_missed {
            self.enqueue_own(Command::MendLease(*lease));
        }
        let mut kept_gone = false;
        for lease in &effects.leases_gone {
            self.leases.remove(*lease);
            kept_gone |= self.brake.gone(*lease);
        }
        if kept_gone {
            self.show_brake();
        }
        if effects.replicas_changed {
            self.look_for_orphans();
            self.replicas_changed = true;
        }
        for (key, time) in &effects.drains {
            let Some(instance) = self.state.snapshot().instance(key) else { continue };
            // Of several replicas the one that has the lease ends a drain; the others only if it does not.
            let patience = if self.state.own_lease(instance.value.lease).is_some() { 0 } else { DRAIN_PATIENCE_MS };
            let deadline = now + patience + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
            self.drains.set(tick_of(deadline), (key.clone(), instance.value.incarnation));
        }
    }

    fn finish_drains(&mut self) {
        let mut due = Vec::new();
        // What is over the limit is taken at the next tick.
        self.drains.advance(self.clock.handled_ms() / tick_ms(), DRAINS_PER_TICK, &mut due);
        for (key, incarnation) in due {
            self.enqueue_own(Command::FinishDrain { key, incarnation });
        }
    }

    fn keep_house(&mut self) {
        if !self.state.is_first() {
            return;
        }
        let now = self.clock.unix();
        let before = UnixMillis(now.0.saturating_sub(TOMBSTONE_AGE_MS));
        let due = self.state.tombstones_due(before, MAX_TOMBSTONES, MAX_ROUND * self.limits.instances_per_call);
        for keys in due.chunks(self.limits.instances_per_call) {
            self.enqueue_own(Command::Forget(keys.to_vec()));
        }
        for key in self.state.services_abandoned(UnixMillis(now.0.saturating_sub(EMPTY_SERVICE_AGE_MS))) {
            self.enqueue_own(Command::DeleteService { key });
        }
    }
}

fn answer(reply: Option<oneshot::Sender<Result<Outcome, Error>>>, outcome: Result<Outcome, Error>) {
    if let Some(reply) = reply {
        // Whoever asked may have gone; what was written stays written.
        let _ = reply.send(outcome);
    }
}
