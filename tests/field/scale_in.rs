//! Nine of ten agents go at once, as when somebody scales in. Those that are told to stop say so, and the brake has
//! nothing to say to that; those that are killed look like a partition, so they are kept for a while, and it ends.

use std::time::{Duration, Instant};

use convoy_client::proto::{BrakeScope, RemovalCause, Verdict};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use rustix::process::Signal;

use crate::{
    field::{Field, braked_by, verdict},
    fleet::{Orders, ids},
    support::until,
};

const TTL: Duration = Duration::from_secs(3);
const AGENTS: u32 = 20;
const GO: u32 = 18;
/// How late things may be seen on a busy machine.
const LATE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn those_that_say_so_go_at_once() {
    let field = Field::start("brake: {}\n", Orders::ttl(TTL), 1..AGENTS + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    field.fleet.signal(1..GO + 1, Signal::TERM);
    field.only_are_left(&ids(GO + 1..AGENTS + 1)).await;
    let gone = begun.elapsed();
    println!("{GO} of {AGENTS} told to stop: gone after {gone:.1?}");
    assert!(gone < LATE, "{gone:?}, and leases of {TTL:?}");
    for (id, cause, _) in field.journal.all_left(mark, GO as usize).await {
        assert!(matches!(cause, RemovalCause::Deregistered | RemovalCause::Drained), "{id}: {cause}");
    }
    assert!(field.brakes().await.is_empty());
    assert_eq!(field.verdicts().await.into_iter().collect::<Vec<_>>(), [(Verdict::Healthy, (AGENTS - GO) as usize)]);
    let rest = (AGENTS - GO) as usize;
    until("the endpoints", async || (field.proxy.count(HealthStatus::Healthy) == rest).then_some(())).await;
}

#[tokio::test]
async fn those_that_are_killed_are_kept_for_a_while() {
    const LONGEST: Duration = Duration::from_secs(6);
    let mut field = Field::start("brake: {longest: 6s}\n", Orders::ttl(TTL), 1..AGENTS + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    field.fleet.kill(1..GO + 1);
    let suspects = |field: &Field| field.proxy.count(HealthStatus::Degraded);
    until("suspects, to the proxy", async || (suspects(&field) == GO as usize).then_some(())).await;
    let kept_after = begun.elapsed();
    assert!(kept_after < TTL + LATE, "{kept_after:?}");
    for instance in field.instances().await {
        let goes = ids(1..GO + 1).contains(&instance.id);
        let expected = if goes { (Verdict::Suspect, Some(BrakeScope::Intake)) } else { (Verdict::Healthy, None) };
        assert_eq!((verdict(&instance), braked_by(&instance)), expected, "{}", instance.id);
    }
    let brakes = field.brakes().await;
    assert_eq!((brakes.len(), &brakes[0]["scope"], &brakes[0]["kept"]), (1, &"intake".into(), &GO.into()));
    let explained = field.explain(1).await;
    explained.step("lease", "note", "too many fell silent (intake)").endpoint("DEGRADED", "DEGRADED");
    explained.says("sidecar has default/web/web-1 in web as DEGRADED, weight 100");
    assert_eq!(field.journal.left(mark), [], "nobody has gone before");

    field.only_are_left(&ids(GO + 1..AGENTS + 1)).await;
    println!("{GO} of {AGENTS} killed: suspects after {kept_after:.1?}, gone after {:.1?}", begun.elapsed());
    for (id, cause, at) in field.journal.all_left(mark, GO as usize).await {
        let kept = at - begun;
        assert_eq!(cause, RemovalCause::Expired, "{id}");
        assert!(kept > LONGEST && kept < TTL + LONGEST + LATE, "{id} was kept for {kept:?}");
    }
    assert!(field.brakes().await.is_empty());
    assert_eq!(field.verdicts().await.into_iter().collect::<Vec<_>>(), [(Verdict::Healthy, (AGENTS - GO) as usize)]);
}
