//! What a replica missed.

use std::time::{Duration, Instant};

use convoy::{
    model::Revision,
    storage::{CommitError, Health, Storage},
};

use crate::{
    etcd::Cluster,
    link::Link,
    replica::{Replica, config, delete, key, put},
};

/// A write is refused so soon when etcd is known to be away.
const AT_ONCE: Duration = Duration::from_millis(100);

fn compact(cluster: &Cluster, revision: Revision) {
    cluster.ctl(&["compact", &revision.0.to_string()]).expect("compacted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_while_cut_off_is_told_as_a_difference() {
    let cluster = Cluster::start(1, &[]);
    let link = Link::to(&cluster.endpoints()[0]).await;
    let direct = config(cluster.endpoints());
    let mut other = Replica::open(&direct).await;
    let mut replica = Replica::open(&config(vec![link.endpoint()])).await;
    assert_eq!(replica.opened.store_id, other.opened.store_id);
    other.write((0..40).map(|id| put(id, 1, Revision(0))).collect()).await;
    replica.hear(other.revision).await;

    link.cut();
    let away = replica.is_away().await;
    let Health::Away { since, reason } = away else { panic!("{away:?}") };
    assert!(since.elapsed() >= Duration::from_secs(1) && !reason.is_empty(), "{reason}");
    let asked = Instant::now();
    let outcome = replica.store.commit(vec![put(99, 1, Revision(0))]).await;
    assert!(matches!(&outcome[..], [Err(CommitError::Unavailable(_))]), "{outcome:?}");
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());

    // Ten change, some of them twice; ten go, ten come, one comes and goes, one goes and comes.
    let changed = (0..10).map(|id| put(id, 2, other.of(id))).collect();
    other.write(changed).await;
    let changed = (0..5).map(|id| put(id, 3, other.of(id))).collect();
    other.write(changed).await;
    let gone = (10..20).map(|id| delete(id, other.of(id))).collect();
    other.write(gone).await;
    other.write((50..60).map(|id| put(id, 1, Revision(0))).collect()).await;
    other.write(vec![put(70, 1, Revision(0))]).await;
    other.write(vec![delete(70, other.of(70)), put(20, 4, other.of(20))]).await;
    compact(&cluster, other.revision);
    link.mend();
    replica.is_live().await;
    let changes = replica.hear(other.revision).await;
    assert_eq!(changes, 10 + 10 + 10 + 1, "what nobody changed is told to nobody");
    replica.equals(&direct).await;

    // What it plans on what it was told then is compared with what etcd has.
    let written = vec![put(0, 9, replica.of(0)), delete(50, replica.of(50)), put(30, 9, replica.of(30))];
    replica.write(written).await;
    assert!(!replica.state.contains_key(&key(50)));
    let old = replica.store.commit(vec![put(0, 10, other.of(0))]).await;
    assert_eq!(old, [Err(CommitError::Conflict)]);
    replica.equals(&direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_gap_is_told_from_etcds_history_commit_by_commit() {
    let cluster = Cluster::start(1, &[]);
    let link = Link::to(&cluster.endpoints()[0]).await;
    let direct = config(cluster.endpoints());
    let mut other = Replica::open(&direct).await;
    let mut replica = Replica::open(&config(vec![link.endpoint()])).await;
    for round in 1..6 {
        link.cut();
        for number in 1..=20 {
            let write = put(number, round * 100 + number as u64, other.of(number));
            other.write(vec![write]).await;
        }
        link.mend();
        assert_eq!(replica.hear(other.revision).await, 20, "each of them, in order");
    }
    replica.is_live().await;
    replica.equals(&direct).await;
}

/// Compacted without anything of ours in it: there is no difference, and nothing is told but the revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_without_changes_tells_nothing() {
    let cluster = Cluster::start(1, &[]);
    let link = Link::to(&cluster.endpoints()[0]).await;
    let mut replica = Replica::open(&config(vec![link.endpoint()])).await;
    replica.write((0..10).map(|id| put(id, 1, Revision(0))).collect()).await;
    link.cut();
    for number in 0..5 {
        cluster.ctl(&["put", "/another/application", &number.to_string()]).expect("put");
    }
    let at = Revision(replica.revision.0 + 5);
    compact(&cluster, at);
    link.mend();
    assert_eq!(replica.hear(at).await, 0);
    let next = put(0, 2, replica.of(0));
    replica.write(vec![next]).await;
}
