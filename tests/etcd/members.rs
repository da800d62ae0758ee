//! Members that die, stop, and lead in turns.

use std::time::{Duration, Instant};

use convoy::storage::{CommitError, Storage};
use tokio::time::sleep;

use crate::{
    etcd::Cluster,
    replica::{Replica, config, put, record},
};

/// Waits for a leader, and says which member it is and all their ids.
async fn leader(cluster: &Cluster) -> (usize, Vec<String>) {
    for _ in 0..300 {
        match cluster.leader() {
            Some(leader) => return leader,
            None => sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the members have no leader")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_member_of_three_dead_all_goes_on_and_with_two_reading_does() {
    let mut cluster = Cluster::start(3, &[]);
    let config = config(cluster.endpoints());
    let mut replica = Replica::open(&config).await;
    replica.insist(0, 1).await;
    let (first, _) = leader(&cluster).await;
    cluster.kill(first);
    for number in 1..20 {
        replica.insist(u128::from(number), number).await;
    }
    replica.is_live().await;

    let second = (first + 1) % 3;
    cluster.kill(second);
    replica.is_away().await;
    let asked = Instant::now();
    let outcome = replica.store.commit(vec![put(100, 1, replica.of(100))]).await;
    assert!(matches!(&outcome[..], [Err(CommitError::Unavailable(_))]), "{outcome:?}");
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!(replica.state.len(), 20, "what is known stays");

    cluster.revive(second);
    replica.is_live().await;
    replica.insist(100, 1).await;
    cluster.revive(first);
    replica.equals(&config).await;
    for number in 1..20 {
        assert_eq!(replica.state[&crate::replica::key(number.into())].1, record(number), "what was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_come_and_go_and_nothing_is_lost_or_told_twice() {
    let cluster = Cluster::start(3, &[]);
    let config = config(cluster.endpoints());
    let (mut replica, mut other) = (Replica::open(&config).await, Replica::open(&config).await);
    let mut number = 1;
    for round in 0..6 {
        let (leading, ids) = leader(&cluster).await;
        // By its own will, or because it was stopped for a while.
        let stopped = round % 3 == 2;
        if stopped {
            cluster.pause(leading);
        } else {
            cluster.ctl(&["move-leader", &ids[(leading + 1) % 3]]).expect("it gives way");
        }
        for id in 0..15 {
            replica.insist(id, number).await;
            number += 1;
        }
        if stopped {
            cluster.resume(leading);
        }
    }
    other.hear(replica.revision).await;
    other.equals(&config).await;
    replica.equals(&config).await;
}

/// A member that stops without a word is left for another one, though its connections stay open.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_is_left() {
    let cluster = Cluster::start(3, &[]);
    let all = config(cluster.endpoints());
    let mut other = Replica::open(&all).await;
    let mut replica = Replica::open(&all).await;
    for at in 0..3 {
        cluster.pause(at);
        other.insist(at as u128, 1 + at as u64).await;
        replica.hear(other.revision).await;
        cluster.resume(at);
    }
    replica.equals(&all).await;
}
