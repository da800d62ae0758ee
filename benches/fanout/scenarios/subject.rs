//! One server under test with its streams, and a round of changes on it. Subjects that are compared are all up at once,
//! and take turns.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    change::{Change, service_name},
    fleet::{self, Fleet},
    machine,
    messages::Keep,
    scenarios::registry,
    server::{self, Server, Store},
    stream::{Goal, Plan, Recorded},
    tape::Tape,
    wire::{self, CLUSTER, ENDPOINT},
};

/// How many connections are opened at once where that is not what is measured.
const OPENING: usize = 32;

#[derive(Debug)]
pub struct Subject {
    pub server: Server,
    pub fleet: Fleet,
    /// The number of the next change.
    pub next: u16,
}

/// What a round of changes gave.
#[derive(Debug)]
pub struct Round {
    /// From each change to each stream.
    pub each: Vec<Duration>,
    /// From each change to the last stream.
    pub all: Vec<Duration>,
    /// The server's CPU time for one response, in microseconds, and that of this process.
    pub cpu: f64,
    pub own_cpu: f64,
}

impl Subject {
    pub async fn new(server: Server, plans: Vec<Plan>) -> anyhow::Result<Self> {
        let fleet = Fleet::open(server.xds, plans, OPENING).await?;
        Ok(Self { server, fleet, next: 1 })
    }

    /// Changes the first service so many times, each when the one before has reached all and is done with.
    pub async fn round(&mut self, changes: usize) -> anyhow::Result<Round> {
        let (before, own_before) = (self.server.quiet().await?, machine::own_cpu()?);
        let responses = self.fleet.totals().responses;
        let (mut each, mut all) = (Vec::new(), Vec::new());
        for _ in 0..changes {
            let change = Change { service: 0, number: self.next };
            self.next = (self.next + 1).min(Change::MOST);
            let request = change.request();
            self.fleet.sending(change, Instant::now(), self.fleet.len());
            self.server.client.register(request).await?;
            self.fleet.complete().await?;
            let arrivals = self.fleet.take_arrivals();
            all.extend(arrivals.iter().max());
            each.extend(arrivals);
            self.server.quiet().await?;
        }
        let cpu = self.server.quiet().await?.saturating_sub(before);
        let own_cpu = machine::own_cpu()?.saturating_sub(own_before);
        let responses = (self.fleet.totals().responses - responses) as f64;
        let [cpu, own_cpu] = [cpu, own_cpu].map(|cpu| cpu.as_secs_f64() * 1e6 / responses);
        Ok(Round { each, all, cpu, own_cpu })
    }
}

/// A client that follows the assignments of these services.
pub fn follower(services: impl IntoIterator<Item = u16>, keep: Keep) -> Plan {
    let names: Vec<String> = services.into_iter().map(service_name).collect();
    let request = Arc::from(wire::request(ENDPOINT, &names, &[]));
    let goal = Goal { endpoints: names.len(), ..Goal::default() };
    Plan { requests: vec![request], then: None, goal, keep, reads: None, returns: false, moves: None }
}

/// A client that follows all clusters, and when it has them, all assignments.
pub fn everything(services: usize, keep: Keep) -> Plan {
    let names: Vec<String> = (0..services as u16).map(service_name).collect();
    let clusters = Arc::from(wire::request(CLUSTER, &[], &[]));
    let endpoints = Arc::from(wire::request(ENDPOINT, &names, &[]));
    let goal = Goal { clusters: services, endpoints: services, ..Goal::default() };
    Plan { requests: vec![clusters], then: Some(endpoints), goal, keep, reads: None, returns: false, moves: None }
}

/// Convoy with so many services, and a floor that has heard how it answers.
pub async fn servers(services: usize, endpoints: usize) -> anyhow::Result<[Server; 2]> {
    let convoy = Server::convoy(Store::Memory).await?;
    registry::fill(&convoy.client, services, endpoints).await?;
    let floor = floor(&convoy, services, None).await?;
    Ok([floor, convoy])
}

pub async fn floor(convoy: &Server, services: usize, commit: Option<&Path>) -> anyhow::Result<Server> {
    let recorded = record(convoy, follower(0..services as u16, Keep::Everything)).await?;
    let tape = server::directory()?.join("tape");
    Tape::save(&recorded, &tape)?;
    Server::floor(&tape, commit).await
}

/// What a client gets.
pub async fn record(server: &Server, plan: Plan) -> anyhow::Result<Vec<Recorded>> {
    fleet::record(server.xds, plan).await
}
