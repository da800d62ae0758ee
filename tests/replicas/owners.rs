//! Whose leases are: heard elsewhere, moved, adopted when a replica dies or ends, and ended by one alone.

use std::time::{Duration, Instant};

use convoy_client::proto::RemovalCause;

use crate::{
    etcd::Cluster,
    journal::Journal,
    mesh::{Agents, Replica, TTL, has, left, mesh},
    support::until,
};

/// Until a killed replica's key is gone, its leases are adopted, and their time is over.
const FAILOVER: Duration = Duration::from_secs(10 + 2 + 10 + 5);

fn expired(number: u32) -> (String, RemovalCause) {
    (format!("web-{number}"), RemovalCause::Expired)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_heartbeat_wherever_it_likes() {
    let cluster = Cluster::start(1, &[]);
    let replicas = mesh::<3>(&cluster, "").await;
    let (agents, journal) = (Agents::new(), Journal::begin(replicas[0].api()).await);
    for number in 0..6 {
        agents.join("web", number, &replicas[0]).await;
    }
    has(&replicas[2], "web", 6).await;
    // One goes round, as behind a balancer; one stays elsewhere; the others where they are.
    let begun = Instant::now();
    let mut turn = 0;
    agents.go_to(1, &replicas[1]);
    until("four times the TTL", async || {
        if begun.elapsed() > TTL / 6 * turn {
            turn += 1;
            agents.go_to(0, &replicas[turn as usize % 3]);
        }
        (begun.elapsed() > TTL * 4).then_some(())
    })
    .await;
    assert!(agents.all_kept());
    assert_eq!(journal.left(0), [], "whoever heartbeats somewhere stays");
    // Those that fall silent go, wherever they were heard last, and each once.
    (0..3).for_each(|number| agents.fall_silent(number));
    for replica in &replicas {
        has(replica, "web", 3).await;
    }
    assert_eq!(left(&journal, 3).await, (0..3).map(expired).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leases_of_a_replica_that_is_killed_go_on_and_its_dead_expire() {
    let cluster = Cluster::start(1, &[]);
    let [mut first, second, third] = mesh::<3>(&cluster, "").await;
    let (agents, journal) = (Agents::new(), Journal::begin(second.api()).await);
    for number in 0..30 {
        agents.join("web", number, &first).await;
    }
    has(&third, "web", 30).await;
    // Nobody hears of the dead any more, and they can have been heard by the first one only.
    let dead = 25..30;
    for number in 0..30 {
        match dead.contains(&number) {
            true => agents.fall_silent(number),
            false => agents.go_to(number, if number % 2 == 0 { &second } else { &third }),
        }
    }
    let killed = Instant::now();
    first.child.kill().await;
    for replica in [&second, &third] {
        has(replica, "web", 25).await;
    }
    let took = killed.elapsed();
    assert!(took > TTL && took < FAILOVER + TTL, "{took:?}");
    println!("a killed replica's dead are gone after {took:?}");
    assert!(agents.all_kept());
    assert_eq!(left(&journal, dead.len()).await, dead.map(expired).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_may_go_and_others_come() {
    let cluster = Cluster::start(1, &[]);
    let mut replicas = mesh::<2>(&cluster, "").await;
    let agents = Agents::new();
    for number in 0..10 {
        agents.join("web", number, &replicas[number as usize % 2]).await;
    }
    (0..10).for_each(|number| agents.fall_silent(number));
    for replica in &mut replicas {
        replica.child.kill().await;
    }
    let again = Replica::start(&cluster.endpoints(), "").await;
    has(&again, "web", 10).await;
    let journal = Journal::begin(again.api()).await;
    (0..8).for_each(|number| agents.go_to(number, &again));
    has(&again, "web", 8).await;
    assert_eq!(left(&journal, 2).await, [8, 9].map(expired));
    assert!(agents.all_kept());
}

/// It would end what others have, on what it knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_stopped_for_long_ends_nobody() {
    let cluster = Cluster::start(1, &[]);
    let [first, second] = mesh::<2>(&cluster, "").await;
    let (agents, journal) = (Agents::new(), Journal::begin(second.api()).await);
    for number in 0..10 {
        agents.join("web", number, &first).await;
    }
    has(&second, "web", 10).await;
    first.child.signal(rustix::process::Signal::STOP);
    (0..10).for_each(|number| agents.go_to(number, &second));
    // Its key is gone, its leases are the other's.
    let stopped = Instant::now();
    until("its leases are adopted", async || (stopped.elapsed() > FAILOVER).then_some(())).await;
    first.child.signal(rustix::process::Signal::CONT);
    let goes_on = Instant::now();
    until("it goes on", async || (goes_on.elapsed() > TTL * 2).then_some(())).await;
    assert_eq!(journal.left(0), []);
    assert!(agents.all_kept());
    for replica in [&first, &second] {
        assert_eq!(replica.api().ids("web").await.len(), 10);
    }
}
