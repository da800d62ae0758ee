//! What every store must do: one suite, run against each.

use std::{path::Path, sync::Arc, time::Duration};

use convoy_client::proto::{Check, Checks, TcpProbe};

use super::{Change, CommitError, Key, Opened, Record, Storage, Transaction, memory::MemoryStore, redb::RedbStore};
use crate::model::{
    Brake, BrakeScope, Capability, CheckKind, CheckState, CheckStatus, Exports, Failover, Incarnation, Instance,
    InstanceSpec, Lease, LeaseId, LoadPolicy, Locality, Namespace, NodeSelector, Override, OverrideHealth, Port,
    PortName, Protocol, RawKey, RawResource, RemovalCause, Revision, Service, ServicePort, Share, Sla, Tombstone,
    Transition, Turn, UnixMillis, Verdict, parse,
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
    (Key::Lease(LeaseId(id)), Record::Lease(Lease { ttl: Duration::from_secs(30), incarnation: Incarnation(1) }))
}

pub(crate) fn raw(name: &str, variant: &str) -> (Key, Record) {
    let selector = NodeSelector::parse("selector", "node.id == \"edge\"").expect("a selector");
    let resource =
        RawResource { bytes: b"\x0a\x01a"[..].into(), selector: Some(selector), ttl: Some(Duration::from_secs(9)) };
    (Key::Raw(RawKey::parse("clusters", name, variant).expect("a key")), Record::Raw(Arc::new(resource)))
}

fn put((key, record): (Key, Record)) -> Transaction {
    Transaction { expect: Vec::new(), changes: vec![Change { key, record: Some(record) }], lazy: false }
}

fn put_if(expect: Revision, (key, record): (Key, Record)) -> Transaction {
    Transaction {
        expect: vec![(key.clone(), expect)],
        changes: vec![Change { key, record: Some(record) }],
        lazy: false,
    }
}

fn delete(key: Key) -> Transaction {
    Transaction { expect: Vec::new(), changes: vec![Change { key, record: None }], lazy: false }
}

async fn conforms(store: &dyn Storage, opened: &mut Opened) {
    assert!(opened.records.is_empty());
    let start = opened.revision.0;

    // One call, several writes: each has its revision, and they come down the stream in order and whole.
    let both = Transaction {
        lazy: false,
        expect: Vec::new(),
        changes: [instance("a", "1", 1), lease(1)].map(|(key, record)| Change { key, record: Some(record) }).into(),
    };
    let outcomes = store.commit(vec![put(service("a")), both.clone()]).await;
    assert_eq!(outcomes, [Ok(Revision(start + 1)), Ok(Revision(start + 2))]);
    assert_eq!(opened.commits.recv().await.expect("a commit").revision, Revision(start + 1));
    let second = opened.commits.recv().await.expect("a commit");
    assert_eq!((second.revision, second.changes), (Revision(start + 2), both.changes));

    // Conditions: the present revision passes, an older one and «absent» do not, also inside one call.
    let outcomes = store
        .commit(vec![
            put_if(Revision(start + 2), instance("a", "1", 2)),
            put_if(Revision(start + 2), instance("a", "1", 3)),
            put_if(Revision(0), instance("a", "1", 4)),
            put_if(Revision(0), instance("a", "2", 5)),
        ])
        .await;
    let conflict = Err(CommitError::Conflict);
    assert_eq!(outcomes, [Ok(Revision(start + 3)), conflict.clone(), conflict, Ok(Revision(start + 4))]);
    for revision in [start + 3, start + 4] {
        assert_eq!(opened.commits.recv().await.expect("a commit").revision, Revision(revision));
    }

    // A deleted key is absent.
    let (key, record) = instance("a", "2", 6);
    let outcomes = store.commit(vec![delete(key.clone()), put_if(Revision(0), (key, record))]).await;
    assert_eq!(outcomes, [Ok(Revision(start + 5)), Ok(Revision(start + 6))]);

    // A lazy one is a commit like others to everybody but the disk.
    let lazy = Transaction { lazy: true, ..put_if(Revision(start + 6), instance("a", "2", 6)) };
    assert_eq!(store.commit(vec![lazy.clone()]).await, [Ok(Revision(start + 7))]);
    assert_eq!(store.commit(vec![lazy]).await, [Err(CommitError::Conflict)]);
    for revision in [start + 5, start + 6, start + 7] {
        assert_eq!(opened.commits.recv().await.expect("a commit").revision, Revision(revision));
    }

    // Variants of a resource are kept apart.
    let outcomes = store.commit(vec![put_if(Revision(0), raw("a", "")), put_if(Revision(0), raw("a", "edge"))]).await;
    assert_eq!(outcomes, [Ok(Revision(start + 8)), Ok(Revision(start + 9))]);
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
    {
        let (store, mut opened) = open(directory.path());
        conforms(&store, &mut opened).await;
    }
    let (store, opened) = RedbStore::open(directory.path(), "other").expect("it opens again");
    assert_eq!((&*opened.store_id, opened.revision), ("new", Revision(9)));
    let mut expected = vec![
        (instance("a", "1", 2), Revision(3)),
        (instance("a", "2", 6), Revision(7)),
        (lease(1), Revision(2)),
        (service("a"), Revision(1)),
        (raw("a", ""), Revision(8)),
        (raw("a", "edge"), Revision(9)),
    ];
    expected.sort_by(|a, b| a.0.0.cmp(&b.0.0));
    let mut found: Vec<_> =
        opened.records.into_iter().map(|(key, revision, record)| ((key, record), revision)).collect();
    found.sort_by(|a, b| a.0.0.cmp(&b.0.0));
    assert_eq!(found, expected);
    // Revisions go on, and conditions know what was there before.
    let (key, record) = instance("a", "1", 9);
    assert_eq!(store.commit(vec![put_if(Revision(3), (key, record))]).await, [Ok(Revision(10))]);
}

#[tokio::test]
async fn redb_is_opened_by_one_process_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = open(directory.path());
    let error = RedbStore::open(directory.path(), "new").expect_err("locked").to_string();
    assert!(error.contains("convoy.redb"), "{error}");
}
