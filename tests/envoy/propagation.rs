//! A change in the registry is in Envoy, in its configuration and in its traffic, within 100 ms of the API's answer.

use std::time::Duration;

use convoy_client::{
    AgentBuilder, Client, Protocol,
    proto::{DeregisterRequest, DrainRequest, RemovalCause},
};
use tokio::time::Instant;

use crate::{
    agents::{Backend, registration},
    convoy::{Convoy, Removals},
    envoy::{DELTA, Envoy, Hosts, SOTW},
    http::Connection,
    load::{Load, Plan, Sample},
    machine,
    times::Times,
    wait::{PATIENCE, until},
};

const ROUNDS: usize = 9;
const DRAIN: Duration = Duration::from_millis(300);
/// Who is no more asked in so many requests, of two agents in turn, is not asked any more.
const SILENT: usize = 20;
const PROBE: Plan = Plan { host: "reviews", connections: 1, every: Duration::from_millis(1) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_in_envoy_within_100_ms_state_of_the_world() {
    changes_are_in_envoy_within_100_ms(SOTW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_in_envoy_within_100_ms_incremental() {
    changes_are_in_envoy_within_100_ms(DELTA).await;
}

async fn changes_are_in_envoy_within_100_ms(dialect: &'static str) {
    let _turn = machine::alone().await;
    let convoy = Convoy::start().await;
    let envoy = Envoy::start(&convoy, dialect).await;
    let (always, sometimes) = (Backend::start("always"), Backend::start("sometimes"));
    let mut round = Round { convoy: &convoy, client: convoy.client(), envoy: &envoy, times: Times::default() };
    round.registers(registration(&convoy, "reviews", &always, Protocol::Http)).await;
    let first = until("the service has a route", PATIENCE, async || {
        let answer = Connection::new(envoy.outbound).get("reviews", "/").await?;
        if answer.body == "always" { Ok(()) } else { Err(answer.body) }
    });
    first.await;
    let load = Load::start(envoy.outbound, PROBE);
    for number in 0..ROUNDS {
        round.of_changes(&load, &sometimes).await;
        // Since the one before, more time has passed than routes are held back for to go together.
        round.of_a_new_service(&format!("new-{number}"), &always).await;
    }
    load.stop().has_no_failure(dialect);
    round.times.keep_the_promise(dialect);
    envoy.has_rejected_nothing().await;
}

struct Round<'a> {
    convoy: &'a Convoy,
    client: Client,
    envoy: &'a Envoy,
    times: Times,
}

impl Round<'_> {
    /// An instance comes, changes, leaves in order, comes again and goes at once.
    async fn of_changes(&mut self, load: &Load, backend: &Backend) {
        let address = backend.address;
        let says = || registration(self.convoy, "reviews", backend, Protocol::Http);
        let (says_first, says_weight, says_unready) = (says(), says().weight(300), says().weight(300).ready(false));
        let (says_ready, says_again) = (says().weight(300), says());

        let begun = self.registers(says_first).await;
        self.hosts("registration", begun, |hosts| hosts.contains_key(&address)).await;
        self.asked("registration", begun, load, backend).await;

        let begun = self.registers(says_weight).await;
        self.hosts("weight", begun, |hosts| hosts.get(&address).is_some_and(|host| host.weight == 300)).await;
        share_is(load, backend, 0.75).await;

        let begun = self.registers(says_unready).await;
        self.hosts("not ready", begun, |hosts| !hosts.contains_key(&address)).await;
        self.silent("not ready", begun, load, backend).await;

        let begun = self.registers(says_ready).await;
        self.hosts("ready", begun, |hosts| hosts.contains_key(&address)).await;
        self.asked("ready", begun, load, backend).await;

        let mut removals = Removals::of(self.convoy, "reviews").await;
        let begun = self.drains(backend).await;
        let draining = |hosts: &Hosts| hosts.get(&address).is_some_and(|host| host.health == "DRAINING");
        self.hosts("drain", begun, draining).await;
        self.silent("drain", begun, load, backend).await;
        assert_eq!(removals.next().await.cause(), RemovalCause::Drained);
        self.hosts("drained", Instant::now(), |hosts| !hosts.contains_key(&address)).await;

        let begun = self.registers(says_again).await;
        self.asked("registration", begun, load, backend).await;
        let begun = self.deregisters(backend).await;
        self.hosts("deregistration", begun, |hosts| !hosts.contains_key(&address)).await;
        self.silent("deregistration", begun, load, backend).await;
    }

    /// The first instance of a service: a cluster, its endpoints and its route.
    async fn of_a_new_service(&mut self, service: &str, backend: &Backend) {
        let begun = self.registers(registration(self.convoy, service, backend, Protocol::Http)).await;
        let mut connection = Connection::new(self.envoy.outbound);
        until("a new service answers", PATIENCE, async || {
            let answer = connection.get(service, "/").await?;
            if answer.body == backend.id { Ok(()) } else { Err(answer.body) }
        })
        .await;
        self.times.add("new service", "traffic", begun.elapsed());
    }

    /// Answers with when the API answered.
    async fn registers(&self, builder: AgentBuilder) -> Instant {
        self.client.register(builder.into_request()).await.expect("registered");
        Instant::now()
    }

    async fn deregisters(&self, backend: &Backend) -> Instant {
        let (service, id) = ("reviews".into(), backend.id.clone());
        let request = DeregisterRequest { service, id, ..Default::default() };
        self.client.deregister(request).await.expect("deregistered");
        Instant::now()
    }

    async fn drains(&self, backend: &Backend) -> Instant {
        let (service, id, drain_time) = ("reviews".into(), backend.id.clone(), Some(convoy_client::duration(DRAIN)));
        let request = DrainRequest { service, id, drain_time, ..Default::default() };
        self.client.drain(request).await.expect("draining");
        Instant::now()
    }

    async fn hosts(&mut self, change: &'static str, begun: Instant, wanted: impl Fn(&Hosts) -> bool) {
        self.envoy.sees("reviews", change, wanted).await;
        self.times.add(change, "configuration", begun.elapsed());
    }

    /// Waits until the instance has answered a request.
    async fn asked(&mut self, change: &'static str, begun: Instant, load: &Load, backend: &Backend) {
        let first = until("the instance is asked", PATIENCE, async || {
            let samples = load.samples_after(load.count().saturating_sub(5_000));
            let by_it = |sample: &&Sample| sample.ended >= begun && sample.outcome.as_ref() == Ok(&backend.id);
            samples.iter().find(by_it).map(|sample| sample.ended).ok_or_else(|| String::from("others only"))
        });
        let took = first.await - begun;
        self.times.add(change, "traffic", took);
    }

    /// Waits until the instance is asked no more; what counts is when the last request to it began.
    async fn silent(&mut self, change: &'static str, begun: Instant, load: &Load, backend: &Backend) {
        let last = until("the instance is asked no more", PATIENCE, async || {
            let samples = load.samples_after(load.count().saturating_sub(5_000));
            let last = samples.iter().rposition(|sample| sample.outcome.as_ref() == Ok(&backend.id));
            let last = last.expect("it was asked before");
            let since = samples.len() - last;
            if since > SILENT && samples.last().is_some_and(|sample| sample.begun > begun) {
                Ok(samples[last].begun)
            } else {
                Err(format!("asked {since} requests ago"))
            }
        });
        let took = last.await.saturating_duration_since(begun);
        self.times.add(change, "traffic", took);
    }
}

/// Waits until an instance gets its share of the requests.
async fn share_is(load: &Load, backend: &Backend, share: f64) {
    until("the weight is the share of the requests", PATIENCE, async || {
        let last = load.samples_after(load.count().saturating_sub(40));
        let by_it = last.iter().filter(|sample| sample.outcome.as_ref() == Ok(&backend.id)).count();
        let measured = by_it as f64 / last.len() as f64;
        if (measured - share).abs() < 0.05 { Ok(()) } else { Err(measured.to_string()) }
    })
    .await;
}
