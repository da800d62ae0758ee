//! The brake: when too many fall silent at once, it is more likely the network, or Convoy, than they.
//!
//! It counts those that are *overdue* (two heartbeats missed), not those that have lapsed, so that the first of many to
//! lapse is judged by all of them. It is counted by service, by zone, and over everything that is heard (the intake, by
//! lease). Too many are more than `share` and more than `count`. A lease that lapses then, or whose going would leave a
//! service with nobody, is kept: its instances become `suspect`, their true health stays, and everybody can see why.
//!
//! It always ends: when heartbeats return; when there are no longer too many, for as long as a heartbeat may take; after
//! `longest` (at least two TTLs); or by an operator. Explicit deregistration never asks here.
//!
//! Pure: time comes in as a number, what there is as the registry's state. Cost goes with those that are overdue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer};

use super::state::{Event, State};
use crate::{
    model::{BrakeScope, Incarnation, Instance, InstanceKey, Invalid, LeaseId, Locality, ServiceKey, UnixMillis},
    prehashed::Prehashed,
};

/// How long there have to be few enough before those that are kept go: the longest time between two heartbeats.
const LINGER_MS: u64 = 10_000;

/// When the brake holds (section `brake` of the configuration file).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrakeConfig {
    /// Whether it holds at all; a service may be left out by itself.
    pub enabled: bool,
    /// More than this share of a service, a zone or the intake, in percent.
    pub share_percent: usize,
    /// And more than so many.
    pub count: usize,
    /// It keeps nobody longer than this, or two TTLs if that is more.
    #[serde(deserialize_with = "duration")]
    pub longest: Duration,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    convoy_client::json::parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Default for BrakeConfig {
    fn default() -> Self {
        Self { enabled: true, share_percent: 30, count: 3, longest: Duration::from_secs(60) }
    }
}

impl BrakeConfig {
    pub fn check(&self) -> Result<(), Invalid> {
        if self.share_percent > 100 {
            return Err(Invalid::new("brake.share_percent", self.share_percent, "from 0 to 100"));
        }
        Ok(())
    }

    /// Whether these are too many at once.
    fn too_many(&self, overdue: usize, of: usize) -> bool {
        overdue > self.count && overdue * 100 > of * self.share_percent
    }
}

/// How Convoy's probes fare. One that fails is believed only while at least half of the others do not; and none before it
/// is known how they fare: what was disbelieved before a restart is not believed because of it.
#[derive(Debug)]
pub struct Trust {
    targets: AtomicUsize,
    passing: AtomicUsize,
}

impl Default for Trust {
    fn default() -> Self {
        Self { targets: usize::MAX.into(), passing: 0.into() }
    }
}

impl Trust {
    /// How many targets are probed, and how many of these pass.
    pub fn set(&self, targets: usize, passing: usize) {
        self.targets.store(targets, Relaxed);
        self.passing.store(passing, Relaxed);
    }

    /// Whether a failing probe counts: nothing speaks against it.
    pub fn believed(&self) -> bool {
        self.passing.load(Relaxed) * 2 >= self.others()
    }

    /// Whether a failing probe is a word of its own for somebody's death: others are well by the same prober.
    pub fn confirms(&self) -> bool {
        self.others() > 0 && self.believed()
    }

    fn others(&self) -> usize {
        self.targets.load(Relaxed).saturating_sub(1)
    }
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    Service(ServiceKey),
    /// Of instances that say where they are.
    Zone(Arc<Locality>),
    Intake,
}

impl Group {
    pub fn scope(&self) -> BrakeScope {
        match self {
            Self::Service(_) => BrakeScope::Service,
            Self::Zone(_) => BrakeScope::Zone,
            Self::Intake => BrakeScope::Intake,
        }
    }
}

/// Of what an operator ends the brake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    All,
    Scope(BrakeScope),
    Named(BrakeScope, String),
}

impl Release {
    fn concerns(&self, group: &Group) -> bool {
        match self {
            Self::All => true,
            Self::Scope(scope) => group.scope() == *scope,
            Self::Named(scope, name) => group.scope() == *scope && group.to_string() == *name,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => key.fmt(f),
            Self::Zone(locality) => write!(f, "{}/{}", locality.region, locality.zone),
            Self::Intake => f.write_str("intake"),
        }
    }
}

/// The zone in which an instance is counted.
fn zone_of(instance: &Instance) -> Option<Arc<Locality>> {
    let Locality { region, zone, .. } = &*instance.spec.locality;
    let known = !zone.is_empty() || !region.is_empty();
    known.then(|| Arc::new(Locality { region: region.clone(), zone: zone.clone(), ..Locality::default() }))
}

/// What becomes of a lease that lapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Expire,
    Keep(BrakeScope),
}

/// The present, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What everything here is timed by.
    pub observed_ms: u64,
    /// To tell how long somebody has been kept before a restart.
    pub unix: UnixMillis,
}

/// A lease that is kept.
#[derive(Clone, Debug)]
struct Kept {
    group: Group,
    until_ms: u64,
}

/// Those that are kept for one reason.
#[derive(Debug, Default)]
struct Holding {
    since_ms: u64,
    leases: HashSet<LeaseId, Prehashed>,
    /// Since when there have been few enough.
    calm_since_ms: Option<u64>,
}

/// One group that is being braked, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Braked {
    pub group: Group,
    /// In observed time.
    pub since_ms: u64,
    pub overdue: usize,
    pub of: usize,
    /// How many leases are kept by it.
    pub leases: usize,
}

/// All that is being braked.
#[derive(Debug, Default)]
pub struct Braking {
    pub groups: Vec<Braked>,
    pub leases: usize,
    pub overdue: usize,
    /// When this was put together, in observed time.
    pub at_ms: u64,
}

#[derive(Debug)]
pub struct Brake {
    config: BrakeConfig,
    overdue: HashSet<LeaseId, Prehashed>,
    /// How often that has changed.
    changes: u64,
    /// Instances whose lease is overdue.
    services: HashMap<ServiceKey, usize>,
    zones: HashMap<Arc<Locality>, usize>,
    /// All instances by zone.
    in_zone: HashMap<Arc<Locality>, usize>,
    kept: HashMap<LeaseId, Kept, Prehashed>,
    by_end: BTreeSet<(u64, LeaseId)>,
    holding: HashMap<Group, Holding>,
    /// Leases that an operator let go, until they are gone or heard: if the store cannot take that, they lapse once more.
    released: HashSet<LeaseId, Prehashed>,
    /// Instances that are in traffic though a check fails, and until when.
    disbelieved: BTreeMap<InstanceKey, (Incarnation, u64)>,
}

impl Brake {
    pub fn new(config: BrakeConfig) -> Self {
        Self {
            config,
            overdue: HashSet::default(),
            changes: 0,
            services: HashMap::new(),
            zones: HashMap::new(),
            in_zone: HashMap::new(),
            kept: HashMap::default(),
            by_end: BTreeSet::new(),
            holding: HashMap::new(),
            released: HashSet::default(),
            disbelieved: BTreeMap::new(),
        }
    }

    /// Follows what happened to an instance.
    pub fn follow(&mut self, event: &Event, now_ms: u64) {
        let after = event.cause().is_none().then_some(&*event.instance.value);
        let key = &event.instance.value.key;
        match after.filter(|after| after.disbelieved.is_some()).map(|after| after.incarnation) {
            Some(incarnation) => {
                let until = now_ms + u64::try_from(self.config.longest.as_millis()).unwrap_or(u64::MAX / 2);
                self.disbelieved.entry(key.clone()).or_insert((incarnation, until));
            }
            _ => drop(self.disbelieved.remove(key)),
        }
        if let Some(before) = event.before.as_ref().map(|before| &*before.value) {
            self.count(before, false);
        }
        if let Some(after) = after {
            self.count(after, true);
        }
    }

    fn count(&mut self, instance: &Instance, comes: bool) {
        let zone = zone_of(instance);
        if let Some(zone) = zone.clone() {
            step(&mut self.in_zone, zone, comes);
        }
        if self.overdue.contains(&instance.lease) {
            self.count_overdue(&instance.key.service, zone, comes);
        }
    }

    fn count_overdue(&mut self, service: &ServiceKey, zone: Option<Arc<Locality>>, comes: bool) {
        step(&mut self.services, service.clone(), comes);
        if let Some(zone) = zone {
            step(&mut self.zones, zone, comes);
        }
    }

    /// Two heartbeats of a lease are missing.
    pub fn overdue(&mut self, lease: LeaseId, state: &State) {
        // What is told may be about one that has gone meanwhile, and nobody would tell of it again.
        if state.lease(lease).is_some() && self.overdue.insert(lease) {
            self.changes += 1;
            self.count_members(lease, state, true);
        }
    }

    /// A lease was heard again; whether it had been kept.
    pub fn returned(&mut self, lease: LeaseId, state: &State) -> bool {
        if self.overdue.remove(&lease) {
            self.changes += 1;
            self.count_members(lease, state, false);
        }
        self.let_go(lease)
    }

    /// A lease is gone, and its instances before it; whether it had been kept.
    pub fn gone(&mut self, lease: LeaseId) -> bool {
        self.changes += u64::from(self.overdue.remove(&lease));
        self.let_go(lease)
    }

    fn count_members(&mut self, lease: LeaseId, state: &State, comes: bool) {
        for instance in state.members(lease) {
            self.count_overdue(&instance.value.key.service, zone_of(&instance.value), comes);
        }
    }

    fn let_go(&mut self, lease: LeaseId) -> bool {
        self.released.remove(&lease);
        let Some(kept) = self.kept.remove(&lease) else { return false };
        self.by_end.remove(&(kept.until_ms, lease));
        if let Some(holding) = self.holding.get_mut(&kept.group) {
            holding.leases.remove(&lease);
            if holding.leases.is_empty() {
                self.holding.remove(&kept.group);
            }
        }
        true
    }

    /// What becomes of a lease whose time is over. `silent` says whether nothing at all has been heard of late; `dead`
    /// tells of an instance whether a probe that is to be believed says so as well.
    pub fn lapse(
        &mut self,
        lease: LeaseId,
        state: &State,
        now: Now,
        silent: bool,
        dead: impl Fn(&InstanceKey) -> bool,
    ) -> Decision {
        // Whoever lapses is overdue, however short its TTL.
        self.overdue(lease, state);
        if self.released.contains(&lease) {
            return Decision::Expire;
        }
        let Some(group) = self.config.enabled.then(|| self.reason(lease, state, dead)).flatten() else {
            return Decision::Expire;
        };
        let scope = if group == Group::Intake && silent { BrakeScope::Blind } else { group.scope() };
        let ttl = state.lease_ttl(lease).unwrap_or_default();
        let longest = self.config.longest.max(ttl * 2).saturating_sub(lapsed_for(lease, state, now.unix));
        if longest.is_zero() {
            return Decision::Expire;
        }
        self.let_go(lease);
        let until_ms = now.observed_ms.saturating_add(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX / 2));
        self.by_end.insert((until_ms, lease));
        let new = || Holding { since_ms: now.observed_ms, ..Holding::default() };
        self.holding.entry(group.clone()).or_insert_with(new).leases.insert(lease);
        self.kept.insert(lease, Kept { group, until_ms });
        Decision::Keep(scope)
    }

    /// Why a lease is not let go, if there is a reason. Each of its instances is a vote to keep it.
    fn reason(&self, lease: LeaseId, state: &State, dead: impl Fn(&InstanceKey) -> bool) -> Option<Group> {
        let serves = |instance: &&super::command::Versioned<Instance>| {
            let service = state.snapshot().services.get(&instance.value.key.service);
            instance.value.verdict().serves()
                && service.is_some_and(|service| service.service.value.brake)
                && !dead(&instance.value.key)
        };
        let mut serving = state.members(lease).filter(serves).peekable();
        serving.peek()?;
        if self.holds(&Group::Intake, state) {
            return Some(Group::Intake);
        }
        serving.find_map(|instance| {
            let zone = zone_of(&instance.value).map(Group::Zone);
            let service = Group::Service(instance.value.key.service.clone());
            zone.into_iter().chain([service]).find(|group| self.holds(group, state))
        })
    }

    /// Whether too many of a group are overdue; of a service, also if nobody else is left.
    fn holds(&self, group: &Group, state: &State) -> bool {
        let (overdue, of) = self.numbers(group, state);
        self.config.too_many(overdue, of)
            || match group {
                Group::Service(key) => overdue > 0 && !self.somebody_is_left(key, state),
                _ => false,
            }
    }

    fn numbers(&self, group: &Group, state: &State) -> (usize, usize) {
        let count = |of: Option<&usize>| of.copied().unwrap_or_default();
        match group {
            Group::Service(key) => {
                let of = state.snapshot().services.get(key).map_or(0, |service| service.instances.len());
                (count(self.services.get(key)), of)
            }
            Group::Zone(zone) => (count(self.zones.get(zone)), count(self.in_zone.get(zone))),
            Group::Intake => (self.overdue.len(), state.lease_count()),
        }
    }

    fn somebody_is_left(&self, key: &ServiceKey, state: &State) -> bool {
        let Some(service) = state.snapshot().services.get(key) else { return false };
        let is_left =
            |instance: &Instance| instance.verdict_before().serves() && !self.overdue.contains(&instance.lease);
        service.instances.values().any(|instance| is_left(&instance.value))
    }

    /// Looks at those that are kept, every second or so: who has to go now.
    pub fn tick(&mut self, state: &State, now_ms: u64) -> Vec<LeaseId> {
        let mut going: Vec<LeaseId> =
            self.by_end.iter().take_while(|(until, _)| *until <= now_ms).map(|(_, lease)| *lease).collect();
        let groups: Vec<Group> = self.holding.keys().cloned().collect();
        for group in groups {
            let holds = self.holds(&group, state);
            let Some(holding) = self.holding.get_mut(&group) else { continue };
            if holds {
                holding.calm_since_ms = None;
            } else if now_ms >= *holding.calm_since_ms.get_or_insert(now_ms) + LINGER_MS {
                going.extend(&holding.leases);
            }
        }
        self.drop_kept(&going);
        going
    }

    /// Those whose failing check counts from now on: because probes are believed again, or it has been long enough.
    pub fn believe(&mut self, believed: bool, now_ms: u64) -> Vec<(InstanceKey, Incarnation)> {
        let over = |(_, (_, until)): &(&InstanceKey, &(Incarnation, u64))| believed || *until <= now_ms;
        self.disbelieved.iter().filter(over).map(|(key, (incarnation, _))| (key.clone(), *incarnation)).collect()
    }

    /// Ends it by an operator's word: who has to go.
    pub fn release(&mut self, release: &Release) -> Vec<LeaseId> {
        let of = |(_, kept): &(&LeaseId, &Kept)| release.concerns(&kept.group);
        let going: Vec<LeaseId> = self.kept.iter().filter(of).map(|(lease, _)| *lease).collect();
        self.drop_kept(&going);
        self.released.extend(&going);
        going
    }

    fn drop_kept(&mut self, leases: &[LeaseId]) {
        for lease in leases {
            self.let_go(*lease);
        }
    }

    /// Whether a lease that lapsed is kept.
    pub fn keeps(&self, lease: LeaseId) -> bool {
        self.kept.contains_key(&lease)
    }

    /// How often it has changed who is overdue.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn overdue_leases(&self) -> impl Iterator<Item = LeaseId> {
        self.overdue.iter().copied()
    }

    pub fn overdue_count(&self) -> usize {
        self.overdue.len()
    }

    /// What is being braked now, in a stable order.
    pub fn status(&self, state: &State) -> Vec<Braked> {
        let of = |(group, holding): (&Group, &Holding)| {
            let (overdue, of) = self.numbers(group, state);
            let group = group.clone();
            Braked { group, since_ms: holding.since_ms, overdue, of, leases: holding.leases.len() }
        };
        let mut status: Vec<Braked> = self.holding.iter().map(of).collect();
        status.sort_by(|a, b| a.group.cmp(&b.group));
        status
    }
}

/// How long the instances of a lease have been kept already: before a restart.
fn lapsed_for(lease: LeaseId, state: &State, now: UnixMillis) -> Duration {
    let since = state.members(lease).filter_map(|instance| instance.value.lapsed).map(|brake| brake.since).min();
    Duration::from_millis(since.map_or(0, |since| now.0.saturating_sub(since.0)))
}

fn step<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, comes: bool) {
    if comes {
        *counts.entry(key).or_default() += 1;
    } else if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
