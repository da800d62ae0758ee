//! a and b: one endpoint of one service changes, and all streams are to have it. With redb beside it, against a floor that
//! makes one bare commit first.

use super::{
    registry,
    subject::{Round, Subject, floor, follower, servers},
};
use crate::{
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, percentile},
    server::{self, Server, Store},
};

const TARGET: Target = Target::Ratio(1.3);
/// Of the one service that changes.
const ENDPOINTS: usize = 10;

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (memory, redb): (&[_], &[_]) = match options.streams {
        Some(streams) => (&[(streams, 20)], &[]),
        None if options.quick => (&[(1, 20), (200, 10)], &[(1, 20)]),
        None => (&[(1, 100), (100, 50), (1_000, 20), (5_000, 8)], &[(1, 100), (1_000, 20)]),
    };
    for &(streams, changes) in memory {
        measure(options, report, "memory", servers(1, ENDPOINTS).await?, streams, changes).await?;
    }
    for &(streams, changes) in redb {
        measure(options, report, "redb", durable_servers().await?, streams, changes).await?;
    }
    Ok(())
}

async fn durable_servers() -> anyhow::Result<[Server; 2]> {
    let directory = tempfile::tempdir_in(server::directory()?)?.keep();
    let convoy = Server::convoy(Store::Redb(&directory)).await?;
    registry::fill(&convoy.client, 1, ENDPOINTS).await?;
    let floor = floor(&convoy, 1, Some(&directory.join("floor.redb"))).await?;
    Ok([floor, convoy])
}

async fn measure(
    options: &Options,
    report: &mut Report,
    store: &str,
    [floor, convoy]: [Server; 2],
    streams: usize,
    changes: usize,
) -> anyhow::Result<()> {
    let plans = || vec![follower([0], Keep::Resources); streams];
    let mut subjects = [Subject::new(floor, plans()).await?, Subject::new(convoy, plans()).await?];
    let mut rounds = [Vec::new(), Vec::new()];
    // The first is for caches and allocators.
    for round in 0..=options.rounds(7) {
        for turn in 0..2 {
            // Who goes first changes.
            let which = (turn + round) % 2;
            let measured = subjects[which].round(changes).await?;
            if round > 0 {
                rounds[which].push(measured);
            }
        }
    }
    let mut row = |scenario, what: String, unit, target, of: &dyn Fn(&Round) -> f64| {
        let [floor, convoy] = rounds.each_ref().map(|rounds| rounds.iter().map(of).collect());
        report.add(Row { scenario, what, unit, floor, convoy, target });
    };
    let plural = if streams == 1 { "stream" } else { "streams" };
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let what = format!("{store}, {streams} {plural}: each, {name}");
        row('a', what, Unit::Milliseconds, TARGET, &|round| percentile(&round.each, share));
    }
    if streams > 1 {
        let what = format!("{store}, {streams} streams: the last, p50");
        row('a', what, Unit::Milliseconds, TARGET, &|round| percentile(&round.all, 0.5));
    }
    let what = format!("{store}, {streams} {plural}: CPU per response");
    // With few streams it is that of the registry's call.
    let target = if store == "memory" && streams >= 100 { TARGET } else { Target::None };
    row('b', what, Unit::Microseconds, target, &|round| round.cpu);
    if streams < 100 {
        // Nearly all of it is waiting for the server to come to rest.
        return Ok(());
    }
    let what = format!("{store}, {streams} {plural}: the load generator's CPU per response");
    row('b', what, Unit::Microseconds, Target::None, &|round| round.own_cpu);
    Ok(())
}
