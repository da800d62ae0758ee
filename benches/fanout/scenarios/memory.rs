//! f: the server's memory for a stream that is subscribed to 1 000 services and has them all. New servers for every
//! round, since an allocator keeps what it had.

use std::time::Duration;

use super::subject::{follower, servers};
use crate::{
    fleet::Fleet,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit},
    server::Server,
};

const SERVICES: usize = 1_000;
/// Few at a time, so that it is not the most that ever was under way which is measured.
const OPENING: usize = 4;
/// Allocators give memory back after a while.
const REST: Duration = Duration::from_secs(2);

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let streams = options.size(1_000, 100);
    let (mut floor, mut convoy) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds(3) {
        for (server, into) in servers(SERVICES, 1).await?.into_iter().zip([&mut floor, &mut convoy]) {
            into.push(measure(&server, streams).await?);
        }
    }
    let what = format!("memory for one of {streams} streams subscribed to {SERVICES} services");
    let target = Target::RatioAnd(1.5, 8.0);
    report.add(Row { scenario: 'f', what, unit: Unit::Kibibytes, floor, convoy, target });
    Ok(())
}

/// In KiB for one stream.
async fn measure(server: &Server, streams: usize) -> anyhow::Result<f64> {
    // What is there once, however many streams there are.
    let plan = follower(0..SERVICES as u16, Keep::Heads);
    drop(Fleet::open(server.xds, vec![plan.clone(); OPENING], OPENING).await?);
    rest(server).await?;
    let before = server.memory()?;
    let fleet = Fleet::open(server.xds, vec![plan; streams], OPENING).await?;
    rest(server).await?;
    let grown = server.memory()?.saturating_sub(before);
    Ok(grown as f64 / 1024.0 / fleet.len() as f64)
}

/// Waits until it has given back what it has to give.
pub async fn rest(server: &Server) -> anyhow::Result<()> {
    tokio::time::sleep(REST).await;
    server.quiet().await?;
    Ok(())
}
