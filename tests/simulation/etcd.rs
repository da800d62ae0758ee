//! What etcd promises to the replicas of a mesh, in this process: one order of writes, each compared on the revisions that
//! it was planned on; every replica is told all of them in that order, each after a delay of its own; one that is cut off
//! is told nothing and can write nothing, and a write whose answer is lost may have happened. What was missed for long is
//! told as one difference. A replica's key goes when it has been away for its time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use convoy::{
    model::{Replica, ReplicaId, Revision, UnixMillis},
    storage::{Change, Commit, CommitError, Health, Key, Opened, Record, Storage, Transaction},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::trace::note;

/// How long a replica's key outlives it.
pub const KEY_TTL: Duration = Duration::from_secs(10);
/// What is not told for longer is told as a difference.
const HISTORY: usize = 40;

#[derive(Debug)]
struct Port {
    health: watch::Sender<Health>,
    /// Since when it cannot be reached.
    away: Option<Instant>,
    /// Its process is there.
    runs: bool,
    /// Since when its process is stopped: it does not renew its key.
    asleep: Option<Instant>,
    record: Arc<Replica>,
    /// Keys that it was told in a difference: under the revision of that, and under which they are here.
    aliases: HashMap<Key, (Revision, Revision)>,
}

#[derive(Debug)]
struct State {
    random: StdRng,
    revision: u64,
    records: BTreeMap<Key, (Revision, Record)>,
    log: Vec<Commit>,
    ports: HashMap<ReplicaId, Port>,
    next: u64,
    is_slow: bool,
}

#[derive(Debug)]
pub struct Etcd {
    state: Mutex<State>,
    news: Notify,
}

impl Etcd {
    pub fn new(seed: u64) -> Arc<Self> {
        let random = StdRng::seed_from_u64(seed);
        let (records, log, ports) = Default::default();
        let state = State { random, revision: 1, records, log, ports, next: 1, is_slow: false };
        Arc::new(Self { state: state.into(), news: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// A replica comes.
    pub fn open(self: &Arc<Self>) -> (Member, Opened, impl Future<Output = ()> + Send + use<>) {
        let mut state = self.lock();
        let id = ReplicaId(state.next);
        state.next += 1;
        let record = Replica { name: "sim".into(), address: ([10, 0, 0, 1], 1).into(), since: UnixMillis::now() };
        let port = Port {
            health: watch::Sender::new(Health::Live),
            away: None,
            runs: true,
            asleep: None,
            record: record.into(),
            aliases: HashMap::new(),
        };
        state.ports.insert(id, port);
        state.present(id);
        let revision = Revision(state.revision);
        let records: Vec<_> =
            state.records.iter().map(|(key, (at, record))| (key.clone(), *at, record.clone())).collect();
        let told: BTreeMap<Key, Revision> = records.iter().map(|(key, at, _)| (key.clone(), *at)).collect();
        drop(state);
        self.news.notify_waiters();
        let (commits, receiver) = mpsc::channel(1024);
        let telling = self.clone().tell(id, revision.0, told, commits);
        let opened =
            Opened { store_id: "sim".into(), replica: id, revision, restored: false, records, commits: receiver };
        (Member { etcd: self.clone(), id }, opened, telling)
    }

    async fn tell(
        self: Arc<Self>,
        id: ReplicaId,
        mut revision: u64,
        mut told: BTreeMap<Key, Revision>,
        commits: mpsc::Sender<Commit>,
    ) {
        loop {
            let news = self.news.notified();
            let next = {
                let mut state = self.lock();
                let Some(port) = state.ports.get(&id) else { return };
                let reaches = port.away.is_none();
                let due: Vec<Commit> =
                    state.log.iter().filter(|commit| commit.revision.0 > revision).cloned().collect();
                let delay = Duration::from_millis(state.random.random_range(1..20));
                (reaches && !due.is_empty()).then_some((due, delay))
            };
            let Some((due, delay)) = next else {
                news.await;
                continue;
            };
            sleep(delay).await;
            let is_difference = due.len() > HISTORY;
            let due = if is_difference { vec![self.lock().difference(&told, Revision(revision))] } else { due };
            for commit in due {
                revision = commit.revision.0;
                self.lock().alias(id, &commit, is_difference);
                for Change { key, record } in &commit.changes {
                    let at = self.lock().records.get(key).map(|(at, _)| *at);
                    match record {
                        Some(_) if is_difference => told.insert(key.clone(), at.unwrap_or(commit.revision)),
                        Some(_) => told.insert(key.clone(), commit.revision),
                        None => told.remove(key),
                    };
                }
                if commits.send(commit).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Cuts a replica off, or no longer.
    pub fn reach(&self, id: ReplicaId, reaches: bool) {
        let mut state = self.lock();
        let Some(port) = state.ports.get_mut(&id).filter(|port| port.runs) else { return };
        port.away = match reaches {
            true => None,
            false => Some(port.away.unwrap_or_else(Instant::now)),
        };
        let reason: Arc<str> = "cut off".into();
        port.health.send_replace(port.away.map_or(Health::Live, |since| Health::Away { since, reason }));
        state.come_back(id);
        drop(state);
        self.news.notify_waiters();
    }

    /// Its process is stopped, or goes on.
    pub fn sleeps(&self, id: ReplicaId, asleep: bool) {
        let mut state = self.lock();
        if let Some(port) = state.ports.get_mut(&id) {
            port.asleep = asleep.then(|| port.asleep.unwrap_or_else(Instant::now));
            state.come_back(id);
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Its disks are slow, or no longer.
    pub fn slow_down(&self, is_slow: bool) {
        self.lock().is_slow = is_slow;
    }

    /// Its process is gone; its key goes later, or at once if it says so.
    pub fn gone(&self, id: ReplicaId, says_so: bool) {
        let mut state = self.lock();
        if let Some(port) = state.ports.get_mut(&id) {
            let since = if says_so { Instant::now() - KEY_TTL } else { Instant::now() };
            (port.runs, port.away) = (false, Some(port.away.unwrap_or(since)));
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Lets the keys of those go that have been away for their time. For ever.
    pub async fn expire_keys(self: Arc<Self>) {
        loop {
            sleep_until(Instant::now() + Duration::from_millis(100)).await;
            let mut state = self.lock();
            let over = |port: &Port| port.away.into_iter().chain(port.asleep).any(|since| since.elapsed() >= KEY_TTL);
            let gone: Vec<ReplicaId> = state.ports.iter().filter(|(_, port)| over(port)).map(|(id, _)| *id).collect();
            for id in gone {
                let key = Key::Replica(id);
                if state.records.contains_key(&key) {
                    state.write(vec![Change { key, record: None }]);
                }
                if !state.ports[&id].runs {
                    state.ports.remove(&id);
                }
            }
            drop(state);
            self.news.notify_waiters();
        }
    }

    /// What it holds, but for who is here.
    pub fn holds(&self) -> BTreeMap<Key, (Revision, Record)> {
        let mut records = self.lock().records.clone();
        records.retain(|key, _| !matches!(key, Key::Replica(_)));
        records
    }
}

impl State {
    fn present(&mut self, id: ReplicaId) {
        let record = Some(Record::Replica(self.ports[&id].record.clone()));
        self.write(vec![Change { key: Key::Replica(id), record }]);
    }

    /// A replica that can renew its key again, and has lost it.
    fn come_back(&mut self, id: ReplicaId) {
        let Some(port) = self.ports.get(&id) else { return };
        if port.runs && port.away.is_none() && port.asleep.is_none() && !self.records.contains_key(&Key::Replica(id)) {
            self.present(id);
        }
    }

    fn write(&mut self, changes: Vec<Change>) -> Revision {
        self.revision += 1;
        let revision = Revision(self.revision);
        note(|| {
            format!("the store has at {}: {}", revision.0, changes.iter().map(said).collect::<Vec<_>>().join(", "))
        });
        for Change { key, record } in &changes {
            match record {
                Some(record) => self.records.insert(key.clone(), (revision, record.clone())),
                None => self.records.remove(key),
            };
        }
        self.log.push(Commit::new(revision, changes));
        revision
    }

    fn alias(&mut self, id: ReplicaId, commit: &Commit, is_difference: bool) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        for Change { key, .. } in &commit.changes {
            match self.records.get(key).filter(|_| is_difference) {
                Some((at, _)) => port.aliases.insert(key.clone(), (commit.revision, *at)),
                None => port.aliases.remove(key),
            };
        }
    }

    /// Whether what a replica expects is so.
    fn holds(&self, by: ReplicaId, Transaction { expect, still, .. }: &Transaction) -> bool {
        let at = |key: &Key| self.records.get(key).map(|(revision, _)| *revision).unwrap_or_default();
        let known = |key: &Key, told: Revision| match self.ports.get(&by).and_then(|port| port.aliases.get(key)) {
            Some((alias, at)) if *alias == told => *at,
            _ => told,
        };
        let quiet = |(service, since): &(_, Revision)| {
            let changed = |(key, (at, _)): (&Key, &(Revision, Record))| {
                matches!(key, Key::Instance(key) if key.service == *service) && at > since
            };
            !self.records.iter().any(changed)
        };
        expect.iter().all(|(key, revision)| at(key) == known(key, *revision)) && still.iter().all(quiet)
    }

    fn difference(&self, told: &BTreeMap<Key, Revision>, after: Revision) -> Commit {
        let rank = |change: &Change| match &change.key {
            Key::Service(_) | Key::Raw(_) | Key::Replica(_) => 0,
            Key::Lease(_) => 1,
            Key::Instance(_) => 2,
        };
        let differs = |(key, (at, _)): &(&Key, &(Revision, Record))| told.get(key).is_none_or(|told| told != at);
        let put =
            |(key, (_, record)): (&Key, &(Revision, Record))| Change { key: key.clone(), record: Some(record.clone()) };
        let mut puts: Vec<Change> = self.records.iter().filter(differs).map(put).collect();
        puts.sort_by_key(rank);
        let gone = told.keys().filter(|key| !self.records.contains_key(key));
        let mut deletions: Vec<Change> = gone.map(|key| Change { key: key.clone(), record: None }).collect();
        deletions.sort_by_key(|change| std::cmp::Reverse(rank(change)));
        let changes = puts.into_iter().chain(deletions).collect();
        Commit { merged_after: Some(after), ..Commit::new(Revision(self.revision), changes) }
    }
}

fn said(Change { key, record }: &Change) -> String {
    let is = match record {
        None => "gone".into(),
        Some(Record::Instance(instance)) => {
            let drains = if instance.drain.is_some() { ", drains" } else { "" };
            format!("in {} since {}{drains}", instance.incarnation.0, instance.health_since.0)
        }
        Some(Record::Tombstone(tombstone)) => {
            format!("{:?} in {} since {}", tombstone.cause, tombstone.incarnation.0, tombstone.removed_at.0)
        }
        Some(Record::Lease(lease)) => format!("of {}", lease.owner.0),
        Some(_) => "there".into(),
    };
    match key {
        Key::Instance(key) => format!("{key} {is}"),
        Key::Lease(lease) => format!("lease {:x} {is}", lease.0 >> 112),
        Key::Replica(id) => format!("replica {} {is}", id.0),
        key => format!("{key:?} {is}"),
    }
}

/// A replica's way to it.
#[derive(Debug)]
pub struct Member {
    etcd: Arc<Etcd>,
    id: ReplicaId,
}

impl Member {
    fn is_away(&self) -> bool {
        self.etcd.lock().ports.get(&self.id).is_none_or(|port| port.away.is_some())
    }
}

#[async_trait::async_trait]
impl Storage for Member {
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<Revision, CommitError>> {
        let unavailable = || CommitError::Unavailable("cut off".into());
        if self.is_away() {
            return transactions.iter().map(|_| Err(unavailable())).collect();
        }
        let (there, back) = {
            let State { random, is_slow, .. } = &mut *self.etcd.lock();
            let slowly = if *is_slow { random.random_range(100..700) } else { 0 };
            (random.random_range(1..10) + slowly, random.random_range(1..10))
        };
        sleep(Duration::from_millis(there)).await;
        let mut outcomes = Vec::new();
        for transaction in transactions {
            let mut state = self.etcd.lock();
            let away = state.ports.get(&self.id).is_none_or(|port| port.away.is_some());
            outcomes.push(match (away, state.holds(self.id, &transaction)) {
                (true, _) => Err(unavailable()),
                (_, false) => Err(CommitError::Conflict),
                _ => Ok(state.write(transaction.changes)),
            });
        }
        self.etcd.news.notify_waiters();
        sleep(Duration::from_millis(back)).await;
        if self.is_away() {
            // Nobody knows whether it happened.
            return outcomes.iter().map(|_| Err(unavailable())).collect();
        }
        // Who lost plans on what won: it has been told by then.
        sleep(Duration::from_millis(if outcomes.contains(&Err(CommitError::Conflict)) { 25 } else { 0 })).await;
        outcomes
    }

    fn health(&self) -> watch::Receiver<Health> {
        let state = self.etcd.lock();
        match state.ports.get(&self.id) {
            Some(port) => port.health.subscribe(),
            None => watch::channel(Health::Away { since: Instant::now(), reason: "gone".into() }).1,
        }
    }
}
