//! i: Convoy comes back with a full store. From its start until a client has all clusters and all assignments; stopped
//! in order before, and killed.

use std::time::Instant;

use super::subject::everything;
use crate::{
    fleet::Fleet,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, milliseconds},
    scenarios::registry,
    server::{self, Server, Store},
};

const SERVICES: usize = 1_000;
/// In milliseconds.
const TARGET: Target = Target::AtMost(2_000.0);

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let endpoints = options.size(100, 10);
    let directory = tempfile::tempdir_in(server::directory()?)?.keep();
    let mut running = Server::convoy(Store::Redb(&directory)).await?;
    registry::fill(&running.client, SERVICES, endpoints).await?;
    let complete = Fleet::open(running.xds, vec![everything(SERVICES, Keep::Heads)], 1).await?.totals();
    let (mut stopped, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds(3) {
        for (orderly, into) in [(true, &mut stopped), (false, &mut killed)] {
            if orderly {
                running.stop().await?;
            } else {
                drop(running);
            }
            let begun = Instant::now();
            running = Server::launch_convoy(Store::Redb(&directory))?;
            running.listens().await?;
            let fleet = Fleet::open(running.xds, vec![everything(SERVICES, Keep::Heads)], 1).await?;
            into.push(milliseconds(begun.elapsed()));
            let resources = fleet.totals().resources;
            anyhow::ensure!(resources == complete.resources, "{resources} resources after the restart");
            anyhow::ensure!(fleet.totals().bytes.abs_diff(complete.bytes) < 1024, "other content after the restart");
        }
    }
    for (what, convoy) in [("stopped", stopped), ("killed", killed)] {
        let what = format!("start to first complete answer, {} instances, {what} before", SERVICES * endpoints);
        report.add(Row { scenario: 'i', what, unit: Unit::Milliseconds, floor: Vec::new(), convoy, target: TARGET });
    }
    Ok(())
}
