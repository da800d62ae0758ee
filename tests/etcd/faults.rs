//! Other things that happen to an etcd.

use convoy::{
    model::Revision,
    storage::{CommitError, Health, Storage},
};
use tokio::time::timeout;

use crate::{
    etcd::Cluster,
    replica::{PATIENCE, Replica, config, itself, put},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_is_said_and_goes_when_there_is_room() {
    let cluster = Cluster::start(1, &["--quota-backend-bytes", "4194304"]);
    let config = config(cluster.endpoints());
    let mut replica = Replica::open(&config).await;
    let mut number = 1;
    let reason = loop {
        let many = (0..100).map(|id| put(id, number, replica.of(id))).collect();
        let outcomes = replica.store.commit(many).await;
        let last = outcomes.iter().flatten().max().copied().unwrap_or_default();
        replica.hear(last).await;
        number += 1;
        if let Some(Err(error)) = outcomes.into_iter().find(Result::is_err) {
            break error;
        }
    };
    let CommitError::Unavailable(reason) = reason else { panic!("{reason}") };
    assert!(reason.contains("quota") && reason.contains("alarm disarm"), "{reason}");
    assert_eq!(*replica.store.health().borrow(), Health::Live, "what can be read is read");
    // To the end, and not in the background.
    cluster.ctl(&["compact", "--physical", &replica.revision.0.to_string()]).expect("compacted");
    cluster.ctl(&["defrag"]).expect("defragmented");
    cluster.ctl(&["alarm", "disarm"]).expect("disarmed");
    replica.insist(0, number).await;
    replica.equals(&config).await;
}

/// What is there is not what the registry was built from: it is not mixed with that.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_made_anew_is_another_store() {
    let mut cluster = Cluster::start(1, &[]);
    let config = config(cluster.endpoints());
    let mut replica = Replica::open(&config).await;
    replica.write((0..10).map(|id| put(id, 1, Revision(0))).collect()).await;
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.directory().join("m0")).expect("removed");
    cluster.revive(0);
    let ended = timeout(PATIENCE, replica.opened.commits.recv()).await.expect("in time");
    assert_eq!(ended, None, "the stream ends");
    let again = Replica::open(&config).await;
    assert_ne!(again.opened.store_id, replica.opened.store_id);
    assert!(again.state.is_empty());
}

/// Restored under the same name it has the same id, and revisions that come again: whoever notices gives it another.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_restored_to_an_older_state_is_another_store() {
    let mut cluster = Cluster::start(1, &[]);
    let config = config(cluster.endpoints());
    let mut replica = Replica::open(&config).await;
    replica.insist(1, 1).await;
    let snapshot = cluster.directory().join("snapshot").display().to_string();
    cluster.ctl(&["snapshot", "save", &snapshot]).expect("saved");
    replica.insist(2, 1).await;
    cluster.kill(0);
    cluster.restore(0, &snapshot);
    cluster.revive(0);
    let ended = timeout(PATIENCE, replica.opened.commits.recv()).await.expect("in time");
    assert_eq!(ended, None, "the stream ends");
    let again = Replica::open(&config).await;
    assert_ne!(again.opened.store_id, replica.opened.store_id);
    assert_eq!(again.state.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_format_is_not_opened() {
    let cluster = Cluster::start(1, &[]);
    let config = config(cluster.endpoints());
    drop(Replica::open(&config).await);
    cluster.ctl(&["put", "/convoy/m/format", "2"]).expect("put");
    let error = convoy::storage::etcd::EtcdStore::open(&config, "new", &itself()).await.expect_err("newer").to_string();
    assert!(error.contains("\"2\"") && error.contains("newer"), "{error}");
    cluster.ctl(&["put", "/convoy/m/format", "1"]).expect("put");
    cluster.ctl(&["put", "/convoy/l/00000000000000000000000000000001", "x"]).expect("put");
    let error =
        convoy::storage::etcd::EtcdStore::open(&config, "new", &itself()).await.expect_err("damaged").to_string();
    assert!(error.contains("l/00000000000000000000000000000001"), "{error}");
}
