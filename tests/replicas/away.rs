//! A replica that cannot reach etcd.

use std::time::{Duration, Instant};

use convoy_client::proto::LeaseOutcome;

use crate::{
    etcd::Cluster,
    journal::Journal,
    link::Link,
    mesh::{Agents, Replica, has},
    support::{sample::instances, until},
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
    let services = cut_off.api().http.get("/v1/services").await;
    let stale: u64 = services.stale.expect("it says so").parse().expect("seconds");
    assert!(stale >= 20, "{stale}");
    assert_eq!(other.api().http.get("/v1/services").await.stale, None);
    let asked = Instant::now();
    let refused = cut_off.api().register(instances("web", 20..21)).await.expect_err("it cannot be written");
    assert_eq!((&*refused.problem.code, asked.elapsed() < Duration::from_secs(1)), ("unavailable", true));
    link.mend();
    let lease = agents.join("web", 11, &other).await;
    has(&cut_off, "web", 11).await;
    // It is one of them again, and hears for the other.
    agents.go_to(11, &cut_off);
    agents.hears(11, "it is kept", |heard| heard.outcome() == LeaseOutcome::Kept && !heard.elsewhere).await;
    assert_eq!(lease.len(), 32);
    assert_eq!(journal.left(0), []);
}
