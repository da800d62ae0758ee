//! The task that makes the checks. It follows the registry's services, makes the probes that are due, and tells the
//! registry what has turned, and nothing else: a result that changes nothing costs no write.
//!
//! It runs on a thread of its own. What it wants written is state and not a queue: at most the newest word on each check
//! of each instance waits, while one batch is being written. What could not be written is tried again. Every word is of
//! one incarnation; the registry drops those of another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use imbl::{OrdMap, ordmap::DiffItem};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    CheckConfig,
    policy::Policy,
    probe::{self, Found},
    schedule::{Finding, Known, Schedule, Target, TargetKey, Ticket, Turn},
};
use crate::{
    model::{
        Check, CheckState, CheckStatus, Incarnation, Instance, InstanceId, InstanceKey, Protocol, ReplicaId, Revision,
        Service, ServiceKey, UnixMillis,
    },
    registry::{
        Registry,
        command::{CheckReport, Versioned},
        state::ServiceState,
    },
    telemetry::Metrics,
};

/// Probes that are due in the same so many milliseconds begin together.
const STEP_MS: u64 = 10;
/// When what could not be written is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// A probe that takes so much longer than its timeout was not made in one go: Convoy was paused, or had no processor.
const TOO_LATE: Duration = Duration::from_millis(500);

/// Makes the checks of all services, for as long as the registry lasts.
pub async fn run(registry: Registry, config: CheckConfig, metrics: Arc<Metrics>) {
    Prober::new(registry, &config, metrics, rand::random()).run().await;
}

/// A service as it was when it was looked at last.
struct Followed {
    definition: Revision,
    /// None of a service without checks.
    instances: OrdMap<InstanceId, Versioned<Instance>>,
}

/// A batch that has been written, or not.
struct Written {
    reports: Vec<CheckReport>,
    evictions: BTreeMap<InstanceKey, Incarnation>,
    failed: bool,
}

struct Prober {
    registry: Registry,
    enabled: bool,
    policy: Policy,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    begun: Instant,
    followed: HashMap<ServiceKey, Followed>,
    probes: JoinSet<(Found, Duration)>,
    tickets: HashMap<Id, (Ticket, Arc<Target>)>,
    reports: BTreeMap<InstanceKey, BTreeMap<Arc<str>, CheckReport>>,
    evictions: BTreeMap<InstanceKey, Incarnation>,
    writing: JoinSet<Written>,
    /// Whether failures were believed when that was last seen.
    believed: bool,
    /// It was seen to be otherwise while a batch was written: what is in it may have been written as believed.
    say_again: bool,
    /// Whose reports are being written.
    in_writing: BTreeSet<InstanceKey>,
    /// Among whom the targets were shared out when that was last looked at.
    replicas: Vec<ReplicaId>,
    retry_at: Instant,
}

impl Prober {
    fn new(registry: Registry, config: &CheckConfig, metrics: Arc<Metrics>, seed: u64) -> Self {
        Self {
            registry,
            enabled: config.enabled,
            policy: config.policy(),
            metrics,
            schedule: Schedule::new(seed, config.concurrency),
            begun: Instant::now(),
            followed: HashMap::new(),
            probes: JoinSet::new(),
            tickets: HashMap::new(),
            reports: BTreeMap::new(),
            evictions: BTreeMap::new(),
            writing: JoinSet::new(),
            believed: true,
            say_again: false,
            in_writing: BTreeSet::new(),
            replicas: Vec::new(),
            retry_at: Instant::now(),
        }
    }

    async fn run(mut self) {
        loop {
            self.start_due();
            self.write();
            let wake = self.schedule.next_ms().map(|at| at.div_ceil(STEP_MS) * STEP_MS);
            let wake_at = self.begun + Duration::from_millis(wake.unwrap_or_default());
            let waits = self.writing.is_empty() && !(self.reports.is_empty() && self.evictions.is_empty());
            tokio::select! {
                services = self.registry.dirty_checked() => {
                    self.look_who_is_here();
                    for service in services {
                        self.follow(&service);
                    }
                    self.tell_counts();
                }
                Some(ended) = self.probes.join_next_with_id() => {
                    self.ended(ended);
                    while let Some(ended) = self.probes.try_join_next_with_id() {
                        self.ended(ended);
                    }
                    self.tell_counts();
                }
                Some(written) = self.writing.join_next() => self.written(written),
                () = sleep_until(wake_at), if wake.is_some() => {}
                () = sleep_until(self.retry_at), if waits => {}
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the brake asks: whether those that fail are to be believed. When they no longer are, that is also about those
    /// which failed before it was seen.
    fn tell_counts(&mut self) {
        let counts = self.schedule.counts();
        self.registry.trust().set(counts.targets, counts.passing);
        let believed = self.registry.trust().believed();
        if std::mem::replace(&mut self.believed, believed) && !believed {
            self.say_again = !self.writing.is_empty();
            // Those that wait come again with a failure that is believed.
            self.evictions.clear();
            self.say_failing_again();
        }
        self.metrics.check_targets(self.schedule.len());
    }

    fn start_due(&mut self) {
        let now = self.now_ms();
        while let Some((ticket, target)) = self.schedule.take_due(now) {
            let probed = target.clone();
            let started = self.probes.spawn(async move {
                let begun = Instant::now();
                (probe::probe(&probed).await, begun.elapsed())
            });
            self.tickets.insert(started.id(), (ticket, target));
        }
    }

    fn ended(&mut self, ended: Result<(Id, (Found, Duration)), JoinError>) {
        let (id, found, took) = match ended {
            Ok((id, (found, took))) => (id, found, took),
            Err(error) => (error.id(), Found::bad("the probe itself has failed"), Duration::ZERO),
        };
        if let Some((ticket, target)) = self.tickets.remove(&id) {
            self.found(ticket, &target, &found, took);
        }
    }

    fn found(&mut self, ticket: Ticket, target: &Target, found: &Found, took: Duration) {
        if found.finding == Finding::Bad && took > target.check.timeout + TOO_LATE {
            self.metrics.probe(target.check.probe.as_str(), "discarded", took);
            return self.schedule.put_off(ticket, self.now_ms());
        }
        let result = match found.finding {
            Finding::Good => "good",
            Finding::Degraded => "degraded",
            Finding::Bad => "bad",
        };
        self.metrics.probe(target.check.probe.as_str(), result, took);
        let Some((target, turn)) = self.schedule.done(ticket, found.finding, self.now_ms()) else { return };
        match turn {
            None => {}
            Some(Turn::To(status)) => {
                self.metrics.check_turn(status.as_str());
                if status != CheckStatus::Failing {
                    self.evictions.remove(&target.instance);
                }
                tracing::debug!(key = %target.instance, check = %target.check.name, status = status.as_str(), output = found.output, "check");
                self.report(&target.instance, target.incarnation, &target.check, status, &found.output);
            }
            // Nobody is removed on the word of probes that fail nearly everywhere.
            Some(Turn::Evict) if !self.registry.trust().believed() => {}
            Some(Turn::Evict) => drop(self.evictions.insert(target.instance.clone(), target.incarnation)),
        }
    }

    fn say_failing_again(&mut self) {
        let snapshot = self.registry.snapshot();
        let again = |target: &Arc<Target>| {
            let instance = &snapshot.instance(&target.instance)?.value;
            let state = instance.checks.iter().find(|state| state.name == target.check.name)?;
            let fails = state.status == CheckStatus::Failing && instance.incarnation == target.incarnation;
            let (key, incarnation, state) = (instance.key.clone(), instance.incarnation, state.clone());
            fails.then_some(CheckReport { key, incarnation, state, braked: false, gone: false })
        };
        let reports: Vec<CheckReport> = self.schedule.failing().filter_map(again).collect();
        reports.into_iter().for_each(|report| self.say(report));
    }

    fn report(
        &mut self,
        key: &InstanceKey,
        incarnation: Incarnation,
        check: &Check,
        status: CheckStatus,
        output: &str,
    ) {
        let state = CheckState { status, output: output.into(), ..CheckState::pending(check, UnixMillis::now()) };
        self.say(CheckReport { key: key.clone(), incarnation, state, braked: false, gone: false });
    }

    fn say(&mut self, report: CheckReport) {
        let of_instance = self.reports.entry(report.key.clone()).or_default();
        of_instance.insert(report.state.name.clone(), report);
    }

    /// Of several replicas each probes its share. When one comes or goes, all services are looked at anew.
    fn look_who_is_here(&mut self) {
        let snapshot = self.registry.snapshot();
        if !snapshot.replicas.keys().eq(&self.replicas) {
            self.replicas = snapshot.replicas.keys().copied().collect();
            self.followed.clear();
        }
    }

    /// Looks at a service that may have changed.
    fn follow(&mut self, key: &ServiceKey) {
        let snapshot = self.registry.snapshot();
        let Some(service) = snapshot.services.get(key) else {
            self.followed.remove(key);
            let gone: Vec<TargetKey> = self.schedule.targets_of(key).cloned().collect();
            gone.iter().for_each(|target| self.schedule.remove(key, target));
            return;
        };
        let definition = service.service.revision;
        let before = self.followed.remove(key).filter(|followed| followed.definition == definition);
        // Also when nobody makes them: newcomers are not to wait for them.
        let checked = !service.service.value.checks.is_empty();
        match before {
            None => {
                for instance in service.instances.values() {
                    self.follow_instance(service, &instance.value);
                }
                let stays = |target: &&TargetKey| service.instances.contains_key(&target.instance);
                let gone: Vec<TargetKey> =
                    self.schedule.targets_of(key).filter(|target| !stays(target)).cloned().collect();
                gone.iter().for_each(|target| self.schedule.remove(key, target));
            }
            Some(before) if checked => {
                for change in before.instances.diff(&service.instances) {
                    match change {
                        DiffItem::Add(_, instance) | DiffItem::Update { new: (_, instance), .. } => {
                            self.follow_instance(service, &instance.value);
                        }
                        DiffItem::Remove(id, _) => self.forget(key, id, &before.instances),
                    }
                }
            }
            Some(_) => {}
        }
        let instances = if checked { service.instances.clone() } else { OrdMap::new() };
        self.followed.insert(key.clone(), Followed { definition, instances });
    }

    fn forget(&mut self, service: &ServiceKey, id: &InstanceId, before: &OrdMap<InstanceId, Versioned<Instance>>) {
        let names = self.schedule.targets_of(service).filter(|target| target.instance == *id);
        let targets: Vec<TargetKey> = names.cloned().collect();
        targets.iter().for_each(|target| self.schedule.remove(service, target));
        if let Some(instance) = before.get(id) {
            self.reports.remove(&instance.value.key);
            self.evictions.remove(&instance.value.key);
        }
    }

    /// Brings an instance's targets, and what is stored of its checks, in line with what there is.
    fn follow_instance(&mut self, service: &ServiceState, instance: &Instance) {
        if !self.registry.snapshot().is_probed_by(&instance.key, self.registry.replica()) {
            let stored = instance.checks.iter().map(|state| &state.name);
            for name in service.service.value.checks.iter().map(|check| &check.name).chain(stored) {
                let target = TargetKey { instance: instance.key.id.clone(), check: name.clone() };
                self.schedule.remove(&service.key, &target);
            }
            self.reports.remove(&instance.key);
            self.evictions.remove(&instance.key);
            return;
        }
        let checks: &[Check] = if self.enabled { &service.service.value.checks } else { &[] };
        let known = |name: &str| checks.iter().any(|check| &*check.name == name);
        for state in instance.checks.iter().filter(|state| !known(&state.name)) {
            let target = TargetKey { instance: instance.key.id.clone(), check: state.name.clone() };
            self.schedule.remove(&service.key, &target);
            let (key, incarnation, state) = (instance.key.clone(), instance.incarnation, state.clone());
            self.say(CheckReport { key, incarnation, state, braked: false, gone: true });
        }
        for check in checks {
            self.follow_check(&service.service.value, instance, check);
        }
    }

    fn follow_check(&mut self, service: &Service, instance: &Instance, check: &Check) {
        let key = TargetKey { instance: instance.key.id.clone(), check: check.name.clone() };
        let stored = instance.checks.iter().find(|state| state.name == check.name);
        let unsettled = self.in_writing.contains(&instance.key)
            || self.reports.get(&instance.key).is_some_and(|reports| reports.contains_key(&check.name));
        let target = match self.target(service, instance, check) {
            Ok(target) => target,
            Err(why) => {
                self.schedule.remove(&instance.key.service, &key);
                if stored.is_none_or(|stored| stored.status != CheckStatus::Pending || *stored.output != *why) {
                    self.report(&instance.key, instance.incarnation, check, CheckStatus::Pending, &why);
                }
                return;
            }
        };
        let status = stored.map_or(CheckStatus::Pending, |stored| stored.status);
        // What is stored decides: an instance that left and came back between two looks has yet to be found well.
        let held = self.schedule.status(&instance.key.service, &key);
        if !unsettled && held.is_some_and(|held| held != status) {
            self.schedule.remove(&instance.key.service, &key);
        }
        if !unsettled && stored.is_none_or(|stored| stored.kind != check.kind) {
            let output = stored.map_or("not probed yet".into(), |stored| stored.output.clone());
            self.report(&instance.key, instance.incarnation, check, status, &output);
        }
        let now = UnixMillis::now();
        let lasts = |since: UnixMillis| now.0.saturating_sub(since.0);
        let known = Known {
            status,
            lasts_ms: stored.map_or(0, |stored| lasts(stored.since)),
            registered_ms: lasts(instance.registered_at),
        };
        self.schedule.set(target, known, self.now_ms());
    }

    /// What is to be probed, or why nothing is.
    fn target(&self, service: &Service, instance: &Instance, check: &Check) -> Result<Target, String> {
        let name = check.port.as_ref().unwrap_or(&service.default_port);
        let port = instance.port(name).ok_or_else(|| format!("not probed: it has no port {name}"))?;
        self.policy.check(instance.spec.address).map_err(|closed| closed.to_string())?;
        Ok(Target {
            instance: instance.key.clone(),
            incarnation: instance.incarnation,
            check: Arc::new(check.clone()),
            address: SocketAddr::new(instance.spec.address, port.number),
            http2: matches!(port.protocol, Protocol::Http2 | Protocol::Grpc),
        })
    }

    /// Begins to write what waits, as much as one write may hold.
    fn write(&mut self) {
        let idle = self.reports.is_empty() && self.evictions.is_empty();
        if idle || !self.writing.is_empty() || Instant::now() < self.retry_at {
            return;
        }
        let (mut reports, mut later) = (Vec::new(), BTreeMap::new());
        while reports.len() < self.registry.limits().instances_per_call
            && let Some(mut of_instance) = self.reports.first_entry()
        {
            // One of each instance; the others come with the next write.
            let report = of_instance.get_mut().pop_first();
            let rest = of_instance.remove();
            if let Some((_, report)) = report {
                self.in_writing.insert(report.key.clone());
                if !rest.is_empty() {
                    later.insert(report.key.clone(), rest);
                }
                reports.push(report);
            }
        }
        self.reports.append(&mut later);
        let evictions = std::mem::take(&mut self.evictions);
        let registry = self.registry.clone();
        self.writing.spawn(async move {
            let mut failed = !reports.is_empty() && registry.report_checks(reports.clone()).await.is_err();
            for (key, incarnation) in &evictions {
                failed |= registry.evict(key.clone(), *incarnation).await.is_err();
            }
            Written { reports, evictions, failed }
        });
    }

    fn written(&mut self, written: Result<Written, JoinError>) {
        let in_writing = std::mem::take(&mut self.in_writing);
        match written {
            Ok(Written { reports, failed: true, .. }) => {
                self.retry_at = Instant::now() + WRITE_RETRY;
                for report in reports {
                    // What has been found meanwhile is newer. An eviction comes again with the next failure.
                    let of_instance = self.reports.entry(report.key.clone()).or_default();
                    of_instance.entry(report.state.name.clone()).or_insert(report);
                }
            }
            Ok(Written { evictions, .. }) => {
                for key in evictions.keys() {
                    tracing::info!(%key, "a liveness check has failed for too long");
                }
            }
            Err(error) => tracing::error!(%error, "the writer of checks has failed"),
        }
        if std::mem::take(&mut self.say_again) {
            self.say_failing_again();
        }
        // What they looked like while their reports were under way was not final.
        let snapshot = self.registry.snapshot();
        for key in in_writing {
            let Some(service) = snapshot.services.get(&key.service) else { continue };
            if let Some(instance) = service.instances.get(&key.id) {
                self.follow_instance(service, &instance.value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
