//! c: the same change with 10, 1 000 and 10 000 services registered. What nobody asks for should cost nothing: against
//! the smallest as the reference. All three are up at once and take turns.

use super::subject::{Round, Subject, follower};
use crate::{
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, percentile},
    scenarios::registry,
    server::{Server, Store},
};

const TARGET: Target = Target::Ratio(1.1);
const CHANGES: usize = 20;

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let sizes = [10, 1_000, 10_000];
    let streams = options.size(1_000, 100);
    let mut subjects = Vec::new();
    for services in sizes {
        let server = Server::convoy(Store::Memory).await?;
        registry::fill(&server.client, services, 10.min(100_000 / services)).await?;
        subjects.push(Subject::new(server, vec![follower([0], Keep::Resources); streams]).await?);
    }
    let mut rounds = sizes.map(|_| Vec::new());
    for round in 0..=options.rounds(7) {
        for turn in 0..sizes.len() {
            let which = (turn + round) % sizes.len();
            let measured = subjects[which].round(CHANGES).await?;
            if round > 0 {
                rounds[which].push(measured);
            }
        }
    }
    for (services, measured) in sizes.iter().zip(&rounds).skip(1) {
        let mut row = |what: &str, unit, of: &dyn Fn(&Round) -> f64| {
            let what = format!("{services} services (against 10), {streams} streams: {what}");
            let [floor, convoy] = [&rounds[0], measured].map(|rounds| rounds.iter().map(of).collect());
            report.add(Row { scenario: 'c', what, unit, floor, convoy, target: TARGET });
        };
        row("each, p50", Unit::Milliseconds, &|round| percentile(&round.each, 0.5));
        row("each, p99", Unit::Milliseconds, &|round| percentile(&round.each, 0.99));
        row("CPU per response", Unit::Microseconds, &|round| round.cpu);
    }
    Ok(())
}
