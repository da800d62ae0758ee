//! Agents are killed. A few of many are gone soon after their leases; if nobody would be left they are suspects first,
//! and gone when the brake has held them long enough.

use std::time::{Duration, Instant};

use convoy_client::proto::{BrakeScope, RemovalCause, Verdict};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;

use crate::{
    field::{Field, braked_by},
    fleet::{Orders, id, ids},
    support::until,
};

/// How late an expiry may be seen on a busy machine.
const LATE: Duration = Duration::from_secs(2);

/// Kills the first so many: they go as their leases end, and nobody else does.
async fn killed_and_gone(killed: u32, of: u32, ttl: Duration) {
    let mut field = Field::start("brake: {}\n", Orders::ttl(ttl), 1..of + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    field.fleet.kill(1..killed + 1);
    field.only_are_left(&ids(killed + 1..of + 1)).await;
    let count = of - killed;
    until("the endpoints", async || (field.proxy.count(HealthStatus::Healthy) == count as usize).then_some(())).await;
    let left = field.journal.all_left(mark, killed as usize).await;
    assert_eq!(left.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>(), ids(1..killed + 1));
    for (id, cause, at) in &left {
        let after = *at - begun;
        assert_eq!(*cause, RemovalCause::Expired, "{id}");
        assert!(after < ttl + LATE, "{id} has gone {after:?} after it was killed");
    }
    let at = |which: Option<&(String, RemovalCause, Instant)>| which.map(|(.., at)| *at - begun).unwrap_or_default();
    let (first, last) = (at(left.iter().min_by_key(|(.., at)| *at)), at(left.iter().max_by_key(|(.., at)| *at)));
    println!("{killed} of {of} killed, leases of {ttl:?}: gone {first:.1?} to {last:.1?} after");
    // Nobody was kept on the way, nor anybody else doubted.
    assert_eq!(field.journal.since(mark).len(), left.len(), "only removals are told");
    assert!(field.brakes().await.is_empty());
    assert_eq!(field.verdicts().await.into_iter().collect::<Vec<_>>(), [(Verdict::Healthy, count as usize)]);
    let explained = field.explain(1).await;
    explained.says("default/web/web-1 is in nobody's endpoints: it is not registered; it was expired");
    field.explain(of).await.step("verdict", "passes", "healthy").endpoint("HEALTHY", "HEALTHY");
}

#[tokio::test]
async fn one_of_three_that_is_killed_goes() {
    killed_and_gone(1, 3, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn twenty_of_a_hundred_that_are_killed_go() {
    killed_and_gone(20, 100, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn two_of_two_that_are_killed_are_suspects_and_go_when_the_brake_ends() {
    const TTL: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(6);
    let mut field = Field::start("brake: {longest: 6s}\n", Orders::ttl(TTL), 1..3).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    field.fleet.kill(1..3);
    let suspects = field.all_are(Verdict::Suspect, 2).await;
    assert!(suspects < TTL + LATE, "{suspects:?}");
    for instance in field.instances().await {
        assert_eq!(braked_by(&instance), Some(BrakeScope::Service), "{}", instance.id);
    }
    let [brake] = &field.brakes().await[..] else { panic!("one brake: {:?}", field.brakes().await) };
    assert_eq!(
        (&brake["scope"], &brake["name"], &brake["kept"]),
        (&"service".into(), &"default/web".into(), &2.into())
    );
    let explained = field.explain(1).await;
    explained
        .step("lease", "note", "the brake keeps it: too many fell silent (service)")
        .step("verdict", "note", "suspect");
    // Nobody else is there: they keep the status that they had.
    explained
        .endpoint("HEALTHY", "HEALTHY")
        .says(&format!("sidecar has default/web/{} in web as HEALTHY, weight 100", id(1)));

    field.only_are_left(&[]).await;
    until("no endpoints", async || field.proxy.endpoints().is_empty().then_some(())).await;
    let left = field.journal.all_left(mark, 2).await;
    println!("2 of 2 killed: suspects after {suspects:.1?}, gone after {:.1?}", begun.elapsed());
    for (id, cause, at) in &left {
        let kept = *at - begun;
        assert_eq!(*cause, RemovalCause::Expired, "{id}");
        assert!(kept > LONGEST && kept < TTL + LONGEST + LATE, "{id} was kept for {kept:?}");
    }
    assert_eq!(left.len(), 2);
    assert!(field.brakes().await.is_empty());
    let explained = field.explain(1).await;
    explained.says("default/web/web-1 is in nobody's endpoints: it is not registered; it was expired");
}
