//! A replica that cannot reach etcd.

use std::time::{Duration, Instant};

use convoy_client::proto::LeaseOutcome;

use crate::{
    etcd::Cluster,
    journal::Journal,
    link::Link,
    mesh::{Agents, Replica, has},
    support::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_replica_that_is_cut_off_are_sent_to_another() {
    let cluster = Cluster::start(1, &[]);
    let link = Link::to(&cluster.endpoints()[0]).await;
    let cut_off = Replica::start(&[link.endpoint()], "").await;
    let other = Replica::start(&cluster.endpoints(), "").await;
    let (agents, journal) = (Agents::new(), Journal::begin(other.api()).await);
    for number in 0..10 {
        agents.join("web", number, &cut_off).await;
    }
    has(&other, "web", 10).await;
    link.cut();
    for number in 0..10 {
        agents.hears(number, "it is sent elsewhere", |heard| heard.elsewhere).await;
        assert_eq!(agents.heard(number).map(|heard| heard.outcome()), Some(LeaseOutcome::Kept));
        agents.go_to(number, &other);
    }
    // Long enough that its key is gone, and its leases would be over.
    let begun = Instant::now();
    until("its leases are adopted", async || (begun.elapsed() > Duration::from_secs(30)).then_some(())).await;
    assert_eq!(journal.left(0), []);
    assert_eq!(cut_off.api().ids("web").await.len(), 10, "it serves what it knew");
    link.mend();
    let lease = agents.join("web", 11, &other).await;
    has(&cut_off, "web", 11).await;
    // It is one of them again, and hears for the other.
    agents.go_to(11, &cut_off);
    agents.hears(11, "it is kept", |heard| heard.outcome() == LeaseOutcome::Kept && !heard.elsewhere).await;
    assert_eq!(lease.len(), 32);
    assert_eq!(journal.left(0), []);
}
