//! A copy has all that the store has, and nothing else.

use super::*;
use crate::{
    model::{RawKey, RawResource},
    registry::{Registry, Settings},
    storage::{Key, Record, record, redb::RedbStore},
    telemetry::Metrics,
};

fn sorted(records: impl IntoIterator<Item = (Key, Revision, Record)>) -> Vec<(String, Revision, Record)> {
    let mut named: Vec<_> =
        records.into_iter().map(|(key, revision, record)| (record::encode_key(&key), revision, record)).collect();
    named.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    named
}

#[tokio::test]
async fn a_copy_is_what_the_store_holds() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, opened) = RedbStore::open(directory.path(), "id").expect("it opens");
    let (registry, running) =
        Registry::start(Arc::new(store), opened, Settings::default(), Arc::new(Metrics::default()));
    let mut leases = Vec::new();
    for (name, host) in [("web/1", 1), ("web/2", 2), ("api/1", 3)] {
        let said = vec![(key(name), Arc::new(spec(host)))];
        leases.push(registry.register(None, None, None, said).await.expect("registered").1.lease);
    }
    // Two under one lease, one that has left, one that drains, and something that somebody wrote.
    let said = vec![(key("api/2"), Arc::new(spec(4)))];
    registry.register(Some(leases[2]), None, None, said).await.expect("registered");
    registry.deregister(key("web/2"), None).await.expect("deregistered");
    registry.drain(key("web/1"), None, Some(Duration::from_secs(600))).await.expect("drains");
    let raw = RawKey::parse("clusters", "edge", "").expect("a key");
    let resource = RawResource { bytes: b"\x0a\x01a"[..].into(), selector: None, ttl: None };
    let outcome = registry.put_raw(raw, resource).await.expect("written");

    let copy = registry.copy().await.expect("a copy");
    assert_eq!(copy.revision(), outcome.revision);
    let copied = sorted(copy.records());
    drop(registry);
    running.await.expect("it ends");
    let (_, opened) = RedbStore::open(directory.path(), "other").expect("it opens");
    assert_eq!(copied, sorted(opened.records));
    assert!(copied.len() >= 9, "{copied:#?}");
}
