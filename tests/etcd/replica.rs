//! A replica as its registry sees it: what it is told, and that this is consistent.

use std::{collections::BTreeMap, time::Duration};

use convoy::{
    model::{self, Incarnation, Lease, LeaseId, ReplicaId, Revision, UnixMillis},
    storage::{
        Change, CommitError, Health, Key, Opened, Record, Storage, Transaction,
        etcd::{EtcdStore, config::EtcdConfig},
    },
};
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Replica {
    pub store: EtcdStore,
    pub opened: Opened,
    pub revision: Revision,
    /// What it was told, under which revision.
    pub state: BTreeMap<Key, (Revision, Record)>,
}

pub fn config(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig { endpoints, ..EtcdConfig::default() }
}

pub fn key(id: u128) -> Key {
    Key::Lease(LeaseId(id))
}

/// A record that no other number makes.
pub fn record(number: u64) -> Record {
    Record::Lease(Lease { ttl: Duration::from_millis(number), incarnation: Incarnation(1), owner: ReplicaId::ONLY })
}

pub fn put(id: u128, number: u64, expect: Revision) -> Transaction {
    let changes = vec![Change { key: key(id), record: Some(record(number)) }];
    Transaction { expect: vec![(key(id), expect)], changes, ..Transaction::default() }
}

pub fn delete(id: u128, expect: Revision) -> Transaction {
    let changes = vec![Change { key: key(id), record: None }];
    Transaction { expect: vec![(key(id), expect)], changes, ..Transaction::default() }
}

/// What a replica says of itself.
pub fn itself() -> model::Replica {
    model::Replica { name: "test".into(), address: ([127, 0, 0, 1], 1).into(), since: UnixMillis(1) }
}

impl Replica {
    pub async fn open(config: &EtcdConfig) -> Self {
        let new_id = rand::random::<u64>().to_string();
        let (store, mut opened) = EtcdStore::open(config, &new_id, &itself()).await.expect("it opens");
        let mut records = std::mem::take(&mut opened.records);
        // Who is here is not what these tests are about.
        records.retain(|(key, ..)| !matches!(key, Key::Replica(_)));
        let state = records.into_iter().map(|(key, revision, record)| (key, (revision, record))).collect();
        Self { store, revision: opened.revision, opened, state }
    }

    /// The revision of a key as it was told; 0 for none.
    pub fn of(&self, id: u128) -> Revision {
        self.state.get(&key(id)).map(|(revision, _)| *revision).unwrap_or_default()
    }

    /// Hears until a revision has been told; how many changes there were. Nothing is told twice, or out of order.
    pub async fn hear(&mut self, up_to: Revision) -> usize {
        let mut changes = 0;
        while self.revision < up_to {
            let commit = timeout(PATIENCE, self.opened.commits.recv()).await.expect("in time").expect("a commit");
            assert!(commit.revision > self.revision, "{} after {}", commit.revision, self.revision);
            self.revision = commit.revision;
            let mut told = commit.changes;
            told.retain(|change| !matches!(change.key, Key::Replica(_)));
            changes += told.len();
            for Change { key, record } in told {
                match record {
                    Some(record) => {
                        let before = self.state.insert(key, (commit.revision, record.clone()));
                        assert!(before.is_none_or(|(_, before)| before != record), "told twice: {record:?}");
                    }
                    None => assert!(self.state.remove(&key).is_some(), "told twice: {key:?} is gone"),
                }
            }
        }
        changes
    }

    /// Writes, and hears of it.
    pub async fn write(&mut self, transactions: Vec<Transaction>) {
        let outcomes = self.store.commit(transactions).await;
        let last = outcomes.into_iter().map(|outcome| outcome.expect("written")).max().unwrap_or_default();
        self.hear(last).await;
    }

    /// Writes, again and again while etcd is not available; plans anew when it turns out to be written already. Gives up
    /// when patience is out.
    pub async fn insist(&mut self, id: u128, number: u64) {
        let insisting = async {
            loop {
                match self.store.commit(vec![put(id, number, self.of(id))]).await[0].clone() {
                    Ok(revision) => return self.hear(revision).await,
                    Err(CommitError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(CommitError::Conflict) => {
                        // The registry has been told by now, and plans on that.
                        let told = self.opened.commits.len();
                        assert!(told > 0, "a conflict with nothing new");
                        let before = self.revision;
                        self.hear(Revision(before.0 + 1)).await;
                        if self.state.get(&key(id)).is_some_and(|(_, is)| *is == record(number)) {
                            return 0;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(PATIENCE, insisting).await.expect("in time");
    }

    pub async fn is(&self, what: &str, wanted: impl FnMut(&Health) -> bool) -> Health {
        let mut health = self.store.health();
        let waited = timeout(PATIENCE, health.wait_for(wanted)).await;
        waited.unwrap_or_else(|_| panic!("it is not {what}")).expect("the store is open").clone()
    }

    pub async fn is_away(&self) -> Health {
        self.is("away", |health| *health != Health::Live).await
    }

    pub async fn is_live(&self) {
        self.is("live", |health| *health == Health::Live).await;
    }

    /// What it was told is what etcd holds.
    pub async fn equals(&mut self, config: &EtcdConfig) {
        let fresh = Self::open(config).await;
        self.hear_all(&fresh).await;
        let records = |replica: &Self| -> BTreeMap<Key, Record> {
            replica.state.iter().map(|(key, (_, record))| (key.clone(), record.clone())).collect()
        };
        assert_eq!(records(self), records(&fresh));
    }

    /// Hears what a newer one knows. A write that both have heard of is behind everything else.
    async fn hear_all(&mut self, fresh: &Self) {
        let last = Transaction { changes: put(u128::MAX, 1, Revision(0)).changes, ..Transaction::default() };
        let written = fresh.store.commit(vec![last]).await[0].clone().expect("written");
        self.hear(written).await;
        self.state.remove(&key(u128::MAX));
        let gone = Transaction { changes: delete(u128::MAX, written).changes, ..Transaction::default() };
        let gone = fresh.store.commit(vec![gone]).await[0].clone().expect("written");
        self.state.insert(key(u128::MAX), (written, record(1)));
        self.hear(gone).await;
    }
}
