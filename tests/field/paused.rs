//! Somebody is paused for longer than the leases: Convoy, which may hold that against nobody; an agent, which has to
//! register again.

use std::time::{Duration, Instant};

use convoy_client::proto::{RemovalCause, Verdict, WatchKind};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use rustix::process::Signal;

use crate::{
    field::Field,
    fleet::{Orders, id, ids},
    support::until,
};

const TTL: Duration = Duration::from_secs(2);
/// How late an expiry may be seen on a busy machine.
const LATE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn nobody_expires_because_convoy_was_paused() {
    const AGENTS: u32 = 6;
    const PAUSE: Duration = Duration::from_secs(7);
    // Without the brake: it is the clock that must not count this time.
    let field = Field::start("brake: {enabled: false}\n", Orders::ttl(TTL), 1..AGENTS + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    field.convoy.signal(Signal::STOP);
    tokio::time::sleep(PAUSE).await;
    field.convoy.signal(Signal::CONT);
    // Whoever is taken for late has gone when each has been due once more.
    field.holds(2 * TTL, async || assert_eq!(field.convoy.api.ids("web").await, ids(1..AGENTS + 1))).await;
    let healthy = field.all_are(Verdict::Healthy, AGENTS as usize).await;
    assert_eq!(field.identities().await, field.identities, "nobody had to register again");
    assert_eq!(field.journal.left(mark), []);
    assert_eq!(field.proxy.fewest_since(begun), AGENTS as usize);
    let events = field.journal.since(mark).len();
    println!("Convoy paused for {PAUSE:?}: nobody left, {events} events, all healthy (looked at for {healthy:.1?})");
    field.explain(1).await.step("lease", "passes", "it is held").endpoint("HEALTHY", "HEALTHY");
}

#[tokio::test]
async fn a_paused_agent_expires_and_registers_again_when_it_goes_on() {
    let field = Field::start("brake: {}\n", Orders::ttl(TTL), 1..4).await;
    let (mark, paused) = (field.journal.mark(), Instant::now());
    field.fleet.signal(1..2, Signal::STOP);
    field.only_are_left(&ids(2..4)).await;
    let [(gone, RemovalCause::Expired, at)] = &field.journal.all_left(mark, 1).await[..] else {
        panic!("one has expired: {:?}", field.journal.left(mark))
    };
    let expired = *at - paused;
    assert_eq!(*gone, id(1));
    assert!(expired < TTL + LATE, "{expired:?}");
    until("two endpoints", async || (field.proxy.endpoints().len() == 2).then_some(())).await;
    let explained = field.explain(1).await;
    explained.says("default/web/web-1 is in nobody's endpoints: it is not registered; it was expired");

    let (mark, goes_on) = (field.journal.mark(), Instant::now());
    field.fleet.signal(1..2, Signal::CONT);
    field.all_are(Verdict::Healthy, 3).await;
    until("three endpoints", async || (field.proxy.count(HealthStatus::Healthy) == 3).then_some(())).await;
    println!("an agent paused: expired after {expired:.1?}, back {:.1?} after it went on", goes_on.elapsed());
    let back = field.identities().await;
    let (before, now) = (&field.identities[&id(1)], &back[&id(1)]);
    // It is the same process, so it is the same incarnation. The lease that ended did not come back: it has another.
    assert!(now.incarnation == before.incarnation && now.lease != before.lease, "{before:?}, {now:?}");
    assert!([2, 3].into_iter().all(|other| back[&id(other)] == field.identities[&id(other)]));
    let told: Vec<_> = field.journal.since(mark).into_iter().map(|(_, event)| event).collect();
    let told: Vec<_> = told.iter().map(|event| (event.kind(), event.instance.as_ref().map(|of| &*of.id))).collect();
    assert_eq!(told, [(WatchKind::Added, Some("web-1"))]);
    field.explain(1).await.step("registration", "passes", &now.incarnation.to_string()).endpoint("HEALTHY", "HEALTHY");
}

/// The other life of the same instance has a newer incarnation, and so the paused one finds its place taken.
#[tokio::test]
async fn a_paused_agent_that_was_replaced_does_not_come_back() {
    let mut field = Field::start("brake: {}\n", Orders::ttl(TTL), 1..4).await;
    field.fleet.signal(1..2, Signal::STOP);
    field.only_are_left(&ids(2..4)).await;
    field.fleet.start(1..2);
    field.all_are(Verdict::Healthy, 3).await;
    let replaced = field.identities().await;
    assert!(replaced[&id(1)].incarnation > field.identities[&id(1)].incarnation);
    let mark = field.journal.mark();
    field.fleet.signal(1..2, Signal::CONT);
    let fleet = &mut field.fleet;
    until("the old process to end", async || (fleet.ended() == [1]).then_some(())).await;
    field.holds(TTL, async || assert_eq!(field.identities().await, replaced)).await;
    assert_eq!(field.journal.since(mark).len(), 0);
}
