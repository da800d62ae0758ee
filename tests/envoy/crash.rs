//! An agent is killed without warning. What fails, fails before its lease has ended; with the routes' retries hardly
//! anything does.

use std::time::Duration;

use convoy_client::{Protocol, proto::RemovalCause};
use tokio::time::Instant;

use crate::{
    agents::{Backend, Member, registration},
    convoy::{Convoy, Removals},
    envoy::{DELTA, Envoy, SOTW},
    load::{Load, Plan, Report},
    machine,
};

const TTL: Duration = Duration::from_secs(2);
/// How long after its lease an agent may still be asked.
const AFTERMATH: Duration = Duration::from_millis(200);
const KILLS: usize = 3;
/// Requests that retries do not save: those that the dead agent had read already, at most one a connection.
const LOST_AT_MOST: usize = PLAN.connections as usize;
const PLAN: Plan = Plan { host: "reviews", connections: 8, every: Duration::from_millis(5) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_a_killed_agent_once_its_lease_has_ended() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let mut members = Vec::new();
    for id in ["first", "second"] {
        members.push(Member::join(&convoy, "reviews", id, Protocol::Http, TTL).await);
    }
    // The dialect makes no difference here, so each Envoy shows something else.
    let with = Envoy::start(&convoy, SOTW).await;
    let without = Envoy::start_without_retries(&convoy, DELTA).await;
    let mut lost_with_retries = 0;
    for number in 1..=KILLS {
        let victim = Member::join(&convoy, "reviews", "victim", Protocol::Http, TTL).await;
        for envoy in [&with, &without] {
            envoy.sees("reviews", "all three", |hosts| hosts.len() == 3).await;
        }
        let loads = [Load::start(with.outbound, PLAN), Load::start(without.outbound, PLAN)];
        for load in &loads {
            load.reaches(500).await;
        }
        let mut removals = Removals::of(&convoy, "reviews").await;
        let killed = Instant::now();
        drop(victim);
        assert_eq!(removals.next().await.cause(), RemovalCause::Expired);
        let removed = Instant::now();
        let since = [loads[0].count(), loads[1].count()];
        for (load, count) in loads.iter().zip(since) {
            load.reaches(count + 1_000).await;
        }
        println!("kill {number}: the lease ended {:?} after", removed - killed);
        let [with_retries, without_retries] = loads.map(Load::stop);
        lost_with_retries += failed("with retries", &with_retries, killed, removed);
        failed("without retries", &without_retries, killed, removed);
    }
    assert!(lost_with_retries <= KILLS * LOST_AT_MOST, "{lost_with_retries} requests failed in spite of retries");
    let retries = "cluster.reviews.upstream_rq_retry";
    let (retried, not_retried) = (with.stat(retries).await, without.stat(retries).await);
    println!("retries: {retried} with, {not_retried} without");
    assert_eq!(not_retried, 0, "retries are not switched off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_nobody_reaches_costs_no_request_with_the_default_retries() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let _alive = Member::join(&convoy, "reviews", "alive", Protocol::Http, TTL).await;
    let with = Envoy::start(&convoy, SOTW).await;
    let without = Envoy::start_without_retries(&convoy, DELTA).await;
    let dead = Backend::start("dead");
    let request = registration(&convoy, "reviews", &dead, Protocol::Http).into_request();
    drop(dead);
    convoy.client().register(request).await.expect("registered");
    let mut failures = Vec::new();
    for envoy in [&with, &without] {
        envoy.sees("reviews", "both", |hosts| hosts.len() == 2).await;
        let load = Load::start(envoy.outbound, PLAN);
        load.reaches(500).await;
        let report = load.stop();
        let retries = envoy.stat("cluster.reviews.upstream_rq_retry").await;
        println!("an instance that is not there: {} of 500 failed, {retries} retries", report.failures().len());
        failures.push((report.failures().len(), retries));
    }
    let [(with_retries, retries), (without_retries, no_retries)] = failures[..] else { panic!("two Envoys") };
    assert_eq!((with_retries, no_retries), (0, 0));
    assert!(retries > 0 && without_retries > 0, "it was never tried");
}

/// How many requests failed; none that began, or ended, too late.
fn failed(what: &str, report: &Report, killed: Instant, removed: Instant) -> usize {
    let failures = report.failures();
    let first = failures.iter().map(|failure| failure.ended.saturating_duration_since(killed)).min();
    let last = failures.iter().map(|failure| failure.ended).max();
    let total = report.samples.iter().filter(|sample| sample.begun >= killed && sample.begun < removed).count();
    println!(
        "  {what}: {} of {total} requests failed, first {first:?} after the kill, last {:?} before the lease's end, \
         slowest request {:?}",
        failures.len(),
        last.map(|last| removed.saturating_duration_since(last)),
        report.slowest(),
    );
    let late: Vec<_> = failures.iter().filter(|failure| failure.ended > removed + AFTERMATH).collect();
    assert!(late.is_empty(), "{what}: failed later than {AFTERMATH:?} after the lease's end: {late:#?}");
    let early: Vec<_> = failures.iter().filter(|failure| failure.ended < killed).collect();
    assert!(early.is_empty(), "{what}: failed before the kill: {early:#?}");
    failures.len()
}
