//! d: changes at a steady rate over many services, whatever becomes of those before. Latency counts from when a change was
//! due, so that a load generator that falls behind shows, and is not hidden.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::subject::{Subject, follower, servers};
use crate::{
    change::Change,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, milliseconds, percentile},
};

const SERVICES: u16 = 1_000;
const STREAMS: u16 = 1_000;
const SUBSCRIBED: u16 = 20;
const INTERVAL: Duration = Duration::from_millis(1);
/// In milliseconds.
const TARGET: Target = Target::AtMost(50.0);

#[derive(Debug)]
struct Run {
    p50: f64,
    p99: f64,
    /// The 99th percentile of the last quarter of the changes: with a backlog it is the highest.
    end: f64,
    /// From the last change until everybody had everything.
    drain: f64,
    /// CPU time of the server for one change, in microseconds.
    cpu: f64,
}

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let changes = options.size(10_000, 2_000);
    let plan = |stream: u16| {
        let first = stream * SUBSCRIBED;
        follower((first..first + SUBSCRIBED).map(|service| service % SERVICES), Keep::Resources)
    };
    let [floor, convoy] = servers(SERVICES.into(), 10).await?;
    let plans = || (0..STREAMS).map(plan).collect();
    let mut subjects = [Subject::new(floor, plans()).await?, Subject::new(convoy, plans()).await?];
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds(3) {
        for (subject, into) in subjects.iter_mut().zip(&mut measured) {
            into.push(steady(subject, changes).await?);
        }
    }
    let mut row = |what: &str, unit, target, of: &dyn Fn(&Run) -> f64| {
        let what = format!("1 000 changes/s, {STREAMS} streams of {SUBSCRIBED} services: {what}");
        let [floor, convoy] = measured.each_ref().map(|runs| runs.iter().map(of).collect());
        report.add(Row { scenario: 'd', what, unit, floor, convoy, target });
    };
    row("p50", Unit::Milliseconds, Target::None, &|run| run.p50);
    row("p99", Unit::Milliseconds, TARGET, &|run| run.p99);
    row("p99 of the last quarter", Unit::Milliseconds, TARGET, &|run| run.end);
    row("all is received after the last", Unit::Milliseconds, TARGET, &|run| run.drain);
    row("CPU per change (20 responses)", Unit::Microseconds, Target::None, &|run| run.cpu);
    Ok(())
}

async fn steady(subject: &mut Subject, changes: usize) -> anyhow::Result<Run> {
    let before = subject.server.quiet().await?;
    let readers = usize::from(STREAMS * SUBSCRIBED / SERVICES);
    let begun = Instant::now();
    let (mut calls, mut last) = (JoinSet::new(), begun);
    let first = subject.next;
    for number in 0..changes {
        last = begun + INTERVAL * number as u32;
        // The timer's grain is a millisecond: what is due goes.
        if last > Instant::now() {
            tokio::time::sleep_until(last.into()).await;
        }
        let (turn, service) = (number / usize::from(SERVICES), number % usize::from(SERVICES));
        let change = Change { service: service as u16, number: first + turn as u16 };
        subject.fleet.sending(change, last, readers);
        let client = subject.server.client.clone();
        calls.spawn(async move { client.register(change.request()).await });
        while let Some(called) = calls.try_join_next() {
            called??;
        }
    }
    subject.next = first + (changes / usize::from(SERVICES)) as u16;
    while let Some(called) = calls.join_next().await {
        called??;
    }
    subject.fleet.complete().await?;
    let drain = milliseconds(last.elapsed());
    let cpu = subject.server.quiet().await?.saturating_sub(before);
    let latencies = subject.fleet.take_arrivals();
    let end = &latencies[latencies.len() * 3 / 4..];
    Ok(Run {
        p50: percentile(&latencies, 0.5),
        p99: percentile(&latencies, 0.99),
        end: percentile(end, 0.99),
        drain,
        cpu: cpu.as_secs_f64() * 1e6 / changes as f64,
    })
}
