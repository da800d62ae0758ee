//! What every store must do: one suite, run against each.

use std::{path::Path, sync::Arc, time::Duration};

use convoy_client::proto::{Check, Checks, TcpProbe};

use super::{
    Change, Commit, CommitError, Key, Opened, Record, Storage, Transaction,
    etcd::{EtcdStore, config::EtcdConfig},
    memory::MemoryStore,
    real_etcd::Cluster,
    redb::RedbStore,
};
use crate::model::{
    Brake, BrakeScope, Capability, CheckKind, CheckState, CheckStatus, Exports, Failover, Incarnation, Instance,
    InstanceSpec, Lease, LeaseId, LoadPolicy, Locality, Namespace, NodeSelector, Override, OverrideHealth, Port,
    PortName, Protocol, RawKey, RawResource, RemovalCause, Replica, ReplicaId, Revision, Service, ServicePort, Share,
    Sla, Tombstone, Transition, Turn, UnixMillis, Verdict, parse,
};

pub(crate) fn service(name: &str) -> (Key, Record) {
    let port = PortName::parse("port", "http").expect("a label");
    let tcp = Check { tcp: Some(TcpProbe::default()), ..Default::default() };
    let service = Service {
        default_port: port.clone(),
        ports: [(port, ServicePort { protocol: Protocol::Http, number: 80 })].into(),
        drain_time: Duration::from_secs(15),
        exports: Exports { all: true, namespaces: [Namespace::default()].into() },
        brake: false,
        load: LoadPolicy { slow_start: Duration::from_secs(9), ..LoadPolicy::default() },
        checks: parse::checks(&Checks { checks: vec![tcp] }, 1).expect("a check"),
        failover: Some(Failover { overprovisioning_factor: 200 }),
        selector: parse::selector("selector", "instance.labels.a == 'b'").expect("a selector"),
    };
    (Key::Service(parse::service_key("", name).expect("a key")), Record::Service(Arc::new(service)))
}

pub(crate) fn instance(service: &str, id: &str, weight: u16) -> (Key, Record) {
    let key = parse::instance_key("", service, id).expect("a key");
    let port = PortName::parse("port", "http").expect("a label");
    let spec = InstanceSpec {
        address: [10, 0, 0, 1].into(),
        ports: [Port { name: port, number: 80, protocol: Protocol::Http }].into(),
        weight,
        ready: true,
        labels: [("a", "b")].into(),
        capabilities: [Capability {
            name: "ocr".into(),
            version: "2".into(),
            description: "reads".into(),
            attributes: [("pages", "9")].into(),
        }]
        .into(),
        locality: Arc::new(Locality { region: "r".into(), ..Locality::default() }),
        sla: Sla { throughput_rps: Some(0.5), ..Sla::default() }.into(),
        description: "a reader".into(),
        card: Some("{}".into()),
    };
    let turn = |turn| Transition { at: UnixMillis(3), turn, reason: "why".into() };
    let check = CheckState {
        name: "http".into(),
        kind: CheckKind::Readiness,
        status: CheckStatus::Failing,
        since: UnixMillis(5),
        output: "503".into(),
    };
    let operator = Override { health: OverrideHealth::Degraded, reason: "a trial".into(), since: UnixMillis(6) };
    let instance = Instance {
        was_ready: true,
        ready_since: UnixMillis(3),
        lapsed: Some(Brake { scope: BrakeScope::Zone, since: UnixMillis(4) }),
        disbelieved: Some(UnixMillis(5)),
        checks: [check].into(),
        operator: Some(Arc::new(operator)),
        share: Share::of_percent(40),
        health_since: UnixMillis(2),
        history: [turn(Turn::To(Verdict::Suspect)), turn(Turn::Removed(RemovalCause::Evicted))].into_iter().collect(),
        ..Instance::new(key.clone(), Incarnation(1), LeaseId(1), Arc::new(spec), UnixMillis(1))
    };
    (Key::Instance(key), Record::Instance(Arc::new(instance)))
}

pub(crate) fn tombstone(service: &str, id: &str) -> (Key, Record) {
    let turn = Transition { at: UnixMillis(4), turn: Turn::Removed(RemovalCause::Drained), reason: "".into() };
    let tombstone = Tombstone {
        incarnation: Incarnation(3),
        cause: RemovalCause::Drained,
        removed_at: UnixMillis(4),
        history: [turn].into_iter().collect(),
    };
    (Key::Instance(parse::instance_key("", service, id).expect("a key")), Record::Tombstone(tombstone))
}

pub(crate) fn lease(id: u128) -> (Key, Record) {
    (
        Key::Lease(LeaseId(id)),
        Record::Lease(Lease { ttl: Duration::from_secs(30), incarnation: Incarnation(1), owner: ReplicaId::ONLY }),
    )
}

pub(crate) fn raw(name: &str, variant: &str) -> (Key, Record) {
    let selector = NodeSelector::parse("selector", "node.id == \"edge\"").expect("a selector");
    let resource =
        RawResource { bytes: b"\x0a\x01a"[..].into(), selector: Some(selector), ttl: Some(Duration::from_secs(9)) };
    (Key::Raw(RawKey::parse("clusters", name, variant).expect("a key")), Record::Raw(Arc::new(resource)))
}

fn put((key, record): (Key, Record)) -> Transaction {
    Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() }
}

fn put_if(expect: Revision, (key, record): (Key, Record)) -> Transaction {
    Transaction {
        expect: vec![(key.clone(), expect)],
        changes: vec![Change { key, record: Some(record) }],
        ..Transaction::default()
    }
}

fn delete(key: Key) -> Transaction {
    Transaction { changes: vec![Change { key, record: None }], ..Transaction::default() }
}

/// The revisions of what was written, in the transactions' order.
fn written(outcomes: Vec<Result<Revision, CommitError>>) -> Vec<u64> {
    outcomes.into_iter().map(|outcome| outcome.expect("written").0).collect()
}

/// The next commits, up to a revision: they come in order.
async fn commits(opened: &mut Opened, up_to: u64) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    while commits.last().is_none_or(|last| last.revision.0 < up_to) {
        let commit = opened.commits.recv().await.expect("a commit");
        assert!(commits.last().is_none_or(|last| last.revision < commit.revision), "out of order: {commit:?}");
        commits.push(commit);
    }
    assert_eq!(commits.last().map(|last| last.revision.0), Some(up_to));
    commits
}

/// The changes of a transaction are in the commit of its revision, together and in their order.
fn assert_holds(commits: &[Commit], revision: u64, changes: &[Change]) {
    let commit = commits.iter().find(|commit| commit.revision.0 == revision).expect("its commit");
    let held: Vec<_> = commit.changes.iter().filter(|change| changes.contains(change)).collect();
    assert_eq!(held, changes.iter().collect::<Vec<_>>(), "in {commit:?}");
}

/// What every store promises. How many revisions there are is a store's own affair, as long as they grow; what stands at
/// the end is answered, with its revisions.
async fn conforms(store: &dyn Storage, opened: &mut Opened) -> Vec<((Key, Record), Revision)> {
    assert!(opened.records.iter().all(|(key, ..)| matches!(key, Key::Replica(_))));
    let conflict = Err(CommitError::Conflict);
    let last = |revisions: &[u64]| *revisions.iter().max().expect("some");

    // One call, several writes: each comes down the stream whole, under the revision that was answered.
    let both = Transaction {
        changes: [instance("a", "1", 1), lease(1)].map(|(key, record)| Change { key, record: Some(record) }).into(),
        ..Transaction::default()
    };
    let revisions = written(store.commit(vec![put(service("a")), both.clone()]).await);
    assert!(revisions.iter().all(|revision| *revision > opened.revision.0));
    let told = commits(opened, last(&revisions)).await;
    assert_holds(&told, revisions[0], &put(service("a")).changes);
    assert_holds(&told, revisions[1], &both.changes);
    let [of_service, of_both] = revisions[..] else { panic!("two") };

    // Conditions: the present revision passes, an older one and «absent» do not, also inside one call.
    let outcomes = store
        .commit(vec![
            put_if(Revision(of_both), instance("a", "1", 2)),
            put_if(Revision(of_both), instance("a", "1", 3)),
            put_if(Revision(0), instance("a", "1", 4)),
            put_if(Revision(0), instance("a", "2", 5)),
        ])
        .await;
    assert_eq!(outcomes[1..3], [conflict.clone(), conflict.clone()]);
    let revisions = written(vec![outcomes[0].clone(), outcomes[3].clone()]);
    let of_first = revisions[0];
    assert!(revisions.iter().all(|revision| *revision > of_service.max(of_both)));
    let told = commits(opened, last(&revisions)).await;
    assert_holds(&told, revisions[0], &put(instance("a", "1", 2)).changes);
    assert_holds(&told, revisions[1], &put(instance("a", "2", 5)).changes);

    // Those of a call that touch the same keys are written in their order. A deleted key is absent.
    let (key, record) = instance("a", "2", 6);
    let revisions = written(store.commit(vec![delete(key.clone()), put_if(Revision(0), (key, record))]).await);
    assert!(revisions[0] < revisions[1], "{revisions:?}");
    let told = commits(opened, revisions[1]).await;
    assert_holds(&told, revisions[0], &delete(instance("a", "2", 6).0).changes);

    // A lazy one is a commit like others to everybody but the disk.
    let lazy = Transaction { lazy: true, ..put_if(Revision(revisions[1]), instance("a", "2", 6)) };
    let [of_second] = written(store.commit(vec![lazy.clone()]).await)[..] else { panic!("one") };
    assert_eq!(store.commit(vec![lazy]).await, vec![conflict.clone()]);
    commits(opened, of_second).await;

    // Variants of a resource are kept apart.
    let outcomes = store.commit(vec![put_if(Revision(0), raw("a", "")), put_if(Revision(0), raw("a", "edge"))]).await;
    let raws = written(outcomes);
    commits(opened, last(&raws)).await;

    // Many in one call are each written or each in conflict, whoever is beside them.
    let many: Vec<Transaction> = (0..400).map(|id| put_if(Revision(id % 2), lease(100 + u128::from(id)))).collect();
    let outcomes = store.commit(many.clone()).await;
    let ends = outcomes.iter().flatten().max().expect("some").0;
    let told = commits(opened, ends).await;
    for (id, (outcome, transaction)) in outcomes.into_iter().zip(&many).enumerate() {
        match outcome {
            Ok(revision) if id % 2 == 0 => assert_holds(&told, revision.0, &transaction.changes),
            outcome => assert_eq!((outcome, id % 2), (conflict.clone(), 1)),
        }
    }
    let leases = (0..400).step_by(2).map(|id| lease(100 + id).0);
    let ends = written(store.commit(leases.map(delete).collect()).await);
    commits(opened, last(&ends)).await;

    // What was to be deleted and is not there is no failure, and what is answered has been told.
    let [ends] = written(store.commit(vec![delete(lease(7).0)]).await)[..] else { panic!("one") };
    assert!(ends >= last(&raws));

    vec![
        (instance("a", "1", 2), Revision(of_first)),
        (instance("a", "2", 6), Revision(of_second)),
        (lease(1), Revision(of_both)),
        (service("a"), Revision(of_service)),
        (raw("a", ""), Revision(raws[0])),
        (raw("a", "edge"), Revision(raws[1])),
    ]
}

/// A store that is opened again holds what it held.
async fn holds(store: &dyn Storage, opened: Opened, mut expected: Vec<((Key, Record), Revision)>) {
    expected.sort_by(|a, b| a.0.0.cmp(&b.0.0));
    // That a replica is here is not its registry's to write.
    let written_here = |(key, ..): &(Key, Revision, Record)| !matches!(key, Key::Replica(_));
    let mut found: Vec<_> = opened
        .records
        .into_iter()
        .filter(written_here)
        .map(|(key, revision, record)| ((key, record), revision))
        .collect();
    found.sort_by(|a, b| a.0.0.cmp(&b.0.0));
    assert_eq!(found, expected);
    // Revisions go on, and conditions know what was there before.
    let ((key, record), revision) = expected.swap_remove(0);
    let [ends] = written(store.commit(vec![put_if(revision, (key, record))]).await)[..] else { panic!("one") };
    assert!(ends > opened.revision.0);
}

#[tokio::test]
async fn memory_conforms() {
    let (store, mut opened) = MemoryStore::open("id".into());
    conforms(&store, &mut opened).await;
}

fn open(directory: &Path) -> (RedbStore, Opened) {
    RedbStore::open(directory, "new").expect("it opens")
}

#[tokio::test]
async fn redb_conforms_and_holds_everything_when_it_is_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let expected = {
        let (store, mut opened) = open(directory.path());
        conforms(&store, &mut opened).await
    };
    let (store, opened) = RedbStore::open(directory.path(), "other").expect("it opens again");
    assert_eq!(&*opened.store_id, "new");
    holds(&store, opened, expected).await;
}

#[tokio::test]
async fn etcd_conforms_and_holds_everything_when_it_is_opened_again() {
    let cluster = Cluster::start(1, &[]);
    let config = EtcdConfig { endpoints: cluster.endpoints(), ..EtcdConfig::default() };
    let replica = Replica { name: "a".into(), address: ([127, 0, 0, 1], 7071).into(), since: UnixMillis(1) };
    let (store, mut opened) = EtcdStore::open(&config, "new", &replica).await.expect("it opens");
    let expected = conforms(&store, &mut opened).await;
    drop(store);
    let (store, again) = EtcdStore::open(&config, "other", &replica).await.expect("it opens again");
    assert_eq!(again.store_id, opened.store_id);
    holds(&store, again, expected).await;
}

#[tokio::test]
async fn redb_is_opened_by_one_process_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = open(directory.path());
    let error = RedbStore::open(directory.path(), "new").expect_err("locked").to_string();
    assert!(error.contains("convoy.redb"), "{error}");
}
