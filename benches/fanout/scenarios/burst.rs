//! e: a burst of changes while some readers do not read. What the server keeps for these should depend on how many names
//! they follow and not on how much has changed; when they read again they should get the newest state; and the others
//! should not notice. The references are a burst in which each name changes once, and one without slow readers.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::{
    memory::rest,
    subject::{Subject, follower},
};
use crate::{
    change::Change,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, milliseconds, percentile},
    scenarios::registry,
    server::{Server, Store},
    stream::Plan,
};

const SERVICES: u16 = 1_000;
/// Those that read. Of the others there are more, since it is their memory that is measured.
const FAST: usize = 50;
const CALLS_AT_ONCE: usize = 64;

#[derive(Debug)]
struct Burst {
    /// Of the fast readers.
    p50: f64,
    p99: f64,
    /// What the server's memory grew by, in KiB.
    grown: f64,
    /// One stream's state at the start, in KiB.
    whole: f64,
    /// Until the slow readers had the newest state, and in how many responses each.
    catch_up: f64,
    responses: f64,
}

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (turns, slow) = (options.size(10, 2) as u16, options.size(200, 50));
    let changes = usize::from(turns) * usize::from(SERVICES);
    let (mut without, mut with, mut once) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds(3) {
        without.push(burst(turns, 0).await?);
        with.push(burst(turns, slow).await?);
        once.push(burst(1, slow).await?);
    }
    let of = |bursts: &[Burst], of: &dyn Fn(&Burst) -> f64| bursts.iter().map(of).collect::<Vec<f64>>();
    let mut row = |what: &str, unit, floor: Vec<f64>, convoy: Vec<f64>, target| {
        let what = format!("{changes} changes, {slow} slow readers of {SERVICES} services: {what}");
        report.add(Row { scenario: 'e', what, unit, floor, convoy, target });
    };
    for (name, share) in [("p50", (|burst| burst.p50) as fn(&Burst) -> f64), ("p99", |burst| burst.p99)] {
        let what = format!("the {FAST} others, {name} (against none slow)");
        row(&what, Unit::Milliseconds, of(&without, &share), of(&with, &share), Target::Ratio(1.3));
    }
    let memory = |burst: &Burst| burst.grown / slow as f64;
    // One response that is being written, and one that waits. A queue of messages would hold ten of them.
    let target = Target::AtMost(2.0 * with.first().map_or(0.0, |burst| burst.whole));
    row(
        "memory for each of them (against each name once)",
        Unit::Kibibytes,
        of(&once, &memory),
        of(&with, &memory),
        target,
    );
    let catch_up = of(&with, &|burst| burst.catch_up);
    row("newest state after they read again", Unit::Milliseconds, Vec::new(), catch_up, Target::None);
    let responses = of(&with, &|burst| burst.responses);
    row("responses to catch up, each", Unit::Count, Vec::new(), responses, Target::None);
    Ok(())
}

async fn burst(turns: u16, slow: usize) -> anyhow::Result<Burst> {
    let server = Server::convoy(Store::Memory).await?;
    registry::fill(&server.client, SERVICES.into(), 1).await?;
    let (reads, reading) = watch::channel(true);
    let fast = follower(0..SERVICES, Keep::Resources);
    let slow_plan = Plan { reads: Some(reading), ..fast.clone() };
    let plans = [vec![fast; FAST], vec![slow_plan; slow]].concat();
    let subject = Subject::new(server, plans).await?;
    rest(&subject.server).await?;
    let (before, opened) = (subject.server.memory()?, subject.fleet.totals());
    reads.send_replace(false);

    let changes: Vec<Change> =
        (1..=turns).flat_map(|number| (0..SERVICES).map(move |service| Change { service, number })).collect();
    let unread = changes.len() * slow;
    let calls = stream::iter(&changes).map(|change| {
        subject.fleet.sending(*change, Instant::now(), FAST + slow);
        subject.server.client.register(change.request())
    });
    calls.buffer_unordered(CALLS_AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    while subject.fleet.missing() > unread {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rest(&subject.server).await?;
    let (grown, received) = (subject.server.memory()?.saturating_sub(before), subject.fleet.totals());
    let fast = subject.fleet.take_arrivals();

    let resumed = Instant::now();
    reads.send_replace(true);
    subject.fleet.complete().await?;
    let catch_up = milliseconds(resumed.elapsed());
    let responses = (subject.fleet.totals().responses - received.responses) as f64 / slow.max(1) as f64;
    Ok(Burst {
        p50: percentile(&fast, 0.5),
        p99: percentile(&fast, 0.99),
        grown: grown as f64 / 1024.0,
        whole: opened.bytes as f64 / 1024.0 / (FAST + slow) as f64,
        catch_up,
        responses,
    })
}
