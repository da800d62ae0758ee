//! g and h: everybody connects at once. The returning ones have it all, say so by version, and should get no resources;
//! the cold ones ask for the clusters, then for all assignments.

use std::{sync::Arc, time::Instant};

use anyhow::Context;

use super::subject::{everything, record};
use crate::{
    fleet::Fleet,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, milliseconds, percentile},
    scenarios::registry,
    server::{Server, Store},
    stream::{Goal, Plan},
    tape::{self, Tape},
    wire::{self, CLUSTER, ENDPOINT},
};

const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;
const TARGET: Target = Target::Ratio(1.5);

pub async fn run_returning(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    measure(options, report, Kind::Returning, options.size(5_000, 500), options.rounds(3)).await
}

pub async fn run_cold(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    measure(options, report, Kind::Cold, options.size(5_000, 200), options.rounds(3)).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Returning,
    Cold,
}

/// Everybody's start.
#[derive(Debug)]
struct Start {
    /// When half of the clients, and the last of them, had what they wanted.
    half: f64,
    last: f64,
    /// When the server had nothing left to do: of the assignments that returning clients have, nothing is said.
    rest: f64,
    /// CPU time for one client, in microseconds.
    cpu: f64,
    /// Sent to one client.
    kibibytes: f64,
    resources: usize,
    /// Connections that the server ended.
    thrown_out: usize,
}

async fn measure(
    options: &Options,
    report: &mut Report,
    kind: Kind,
    clients: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let convoy = Server::convoy(Store::Memory).await?;
    registry::fill(&convoy.client, SERVICES, ENDPOINTS).await?;
    let recorded = record(&convoy, everything(SERVICES, Keep::Everything)).await?;
    let tape = crate::server::directory()?.join("tape");
    Tape::save(&recorded, &tape)?;
    let servers = [Server::floor(&tape, None).await?, convoy];
    let plan = match kind {
        Kind::Cold => Plan { returns: true, ..everything(SERVICES, Keep::Heads) },
        Kind::Returning => returning(&tape::versions(&recorded, CLUSTER)?, &tape::versions(&recorded, ENDPOINT)?),
    };
    let mut measured = [Vec::new(), Vec::new()];
    for server in &servers {
        // For caches and allocators.
        start(server, &plan, options.size(200, 20)).await?;
    }
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (turn + round) % 2;
            measured[which].push(start(&servers[which], &plan, clients).await?);
        }
    }
    let (scenario, what) = match kind {
        Kind::Returning => ('g', "returning clients at once"),
        Kind::Cold => ('h', "cold clients at once"),
    };
    let mut row = |name: &str, unit, target, of: &dyn Fn(&Start) -> f64| {
        let what = format!("{clients} {what}: {name}");
        let [floor, convoy] = measured.each_ref().map(|starts| starts.iter().map(of).collect());
        report.add(Row { scenario, what, unit, floor, convoy, target });
    };
    row("half of them have it", Unit::Milliseconds, Target::None, &|start| start.half);
    row("the last has it", Unit::Milliseconds, TARGET, &|start| start.last);
    row("the server is at rest", Unit::Milliseconds, TARGET, &|start| start.rest);
    row("CPU per client", Unit::Microseconds, Target::None, &|start| start.cpu);
    row("sent to each", Unit::Kibibytes, Target::None, &|start| start.kibibytes);
    let mut count = |name: &str, of: &dyn Fn(&Start) -> usize| {
        let [floor, convoy] = measured.each_ref().map(|starts| starts.iter().map(|start| of(start) as f64).collect());
        let (unit, target) = (Unit::Count, Target::AtMost(0.0));
        report.add(Row { scenario, what: format!("{clients} {what}: {name}"), unit, floor, convoy, target });
    };
    count("thrown out by the server", &|start| start.thrown_out);
    if kind == Kind::Returning {
        count("resources sent", &|start| start.resources);
    }
    Ok(())
}

/// A client that has these.
pub fn returning(clusters: &[(String, String)], endpoints: &[(String, String)]) -> Plan {
    let names: Vec<String> = endpoints.iter().map(|(name, _)| name.clone()).collect();
    let requests = [wire::request(CLUSTER, &[], clusters), wire::request(ENDPOINT, &names, endpoints)];
    let goal = Goal { cluster_responses: 1, ..Goal::default() };
    let requests = requests.map(Arc::from).into();
    Plan { requests, then: None, goal, keep: Keep::Heads, reads: None, returns: true, moves: None }
}

async fn start(server: &Server, plan: &Plan, clients: usize) -> anyhow::Result<Start> {
    let before = server.quiet().await?;
    let begun = Instant::now();
    let fleet = Fleet::open(server.xds, vec![plan.clone(); clients], clients).await;
    let fleet = fleet.with_context(|| format!("after {:?}, of {:?}", begun.elapsed(), server.xds))?;
    let (cpu, rest) = server.rest().await?;
    let ready: Vec<_> = fleet.take_ready().into_iter().map(|at| at.saturating_duration_since(begun)).collect();
    let totals = fleet.totals();
    let started = Start {
        half: percentile(&ready, 0.5),
        last: percentile(&ready, 1.0),
        rest: milliseconds(rest.saturating_duration_since(begun)),
        cpu: cpu.saturating_sub(before).as_secs_f64() * 1e6 / clients as f64,
        kibibytes: totals.bytes as f64 / 1024.0 / clients as f64,
        resources: totals.resources,
        thrown_out: totals.thrown_out,
    };
    drop(fleet);
    server.quiet().await?;
    Ok(started)
}
