//! What Convoy tells of itself: metrics in Prometheus' text form, and logs.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry as Prometheus,
};

/// What is counted when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// By verdict; all verdicts, also those that nobody has.
    pub instances: Vec<(&'static str, usize)>,
    pub services: usize,
    pub leases: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Notice {
    notice: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Scope {
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    command: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Probe {
    probe: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeKind {
    probe: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckStatus {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    r#type: &'static str,
    variant: &'static str,
}

/// The metrics of one xDS resource type, looked up once: they are counted for every response.
#[derive(Clone, Debug)]
pub struct TypeMetrics {
    responses: Counter,
    acks: Counter,
    nacks: Counter,
    overdue: Counter,
    convergence_seconds: Histogram,
}

impl TypeMetrics {
    pub fn response(&self) {
        self.responses.inc();
    }

    pub fn ack(&self) {
        self.acks.inc();
    }

    pub fn nack(&self) {
        self.nacks.inc();
    }

    pub fn overdue(&self) {
        self.overdue.inc();
    }

    pub fn converged(&self, took: Duration) {
        self.convergence_seconds.observe(took.as_secs_f64());
    }
}

#[derive(Debug)]
pub struct Metrics {
    prometheus: Prometheus,
    heartbeats: Family<Outcome, Counter>,
    /// The counters of `heartbeats`, looked up once: the most frequent of all.
    kept: Counter,
    register_again: Counter,
    retry: Counter,
    lease_notices: Family<Notice, Counter>,
    braked_leases: Family<Scope, Gauge>,
    writes: Family<Write, Counter>,
    removals: Family<Reason, Counter>,
    commit_seconds: Histogram,
    commit_records: Histogram,
    instances: Family<State, Gauge>,
    services: Gauge,
    leases: Gauge,
    probes: Family<Probe, Counter>,
    probe_seconds: Family<ProbeKind, Histogram>,
    check_turns: Family<CheckStatus, Counter>,
    check_targets: Gauge,
    streams: Family<Stream, Gauge>,
    streams_opened: Family<Stream, Counter>,
    responses: Family<Type, Counter>,
    acks: Family<Type, Counter>,
    nacks: Family<Type, Counter>,
    overdue: Family<Type, Counter>,
    convergence_seconds: Family<Type, Histogram>,
}

/// From 100 µs to about 13 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let heartbeats = Family::<Outcome, Counter>::default();
        let outcome = |outcome| heartbeats.get_or_create(&Outcome { outcome }).clone();
        let mut metrics = Self {
            prometheus: Prometheus::with_prefix("convoy"),
            kept: outcome("kept"),
            register_again: outcome("register_again"),
            retry: outcome("retry"),
            heartbeats,
            lease_notices: Family::default(),
            braked_leases: Family::default(),
            writes: Family::default(),
            removals: Family::default(),
            commit_seconds: seconds(),
            commit_records: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            instances: Family::default(),
            services: Gauge::default(),
            leases: Gauge::default(),
            probes: Family::default(),
            probe_seconds: Family::new_with_constructor(seconds),
            check_turns: Family::default(),
            check_targets: Gauge::default(),
            streams: Family::default(),
            streams_opened: Family::default(),
            responses: Family::default(),
            acks: Family::default(),
            nacks: Family::default(),
            overdue: Family::default(),
            convergence_seconds: Family::new_with_constructor(seconds),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.prometheus;
        r.register("build", "The version that runs", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        r.register("heartbeats", "Lease renewals asked for, by outcome", self.heartbeats.clone());
        let help = "What has become of leases: two heartbeats missed, heard again, lapsed";
        r.register("lease_notices", help, self.lease_notices.clone());
        let help = "Leases that have lapsed and are kept by the brake, by what too much fell silent of";
        r.register("braked_leases", help, self.braked_leases.clone());
        r.register("writes", "Commands to the registry, by outcome", self.writes.clone());
        r.register("removals", "Instances removed, by reason", self.removals.clone());
        r.register(
            "store_commit_seconds",
            "Time from handing a round of writes to the store until its answer",
            self.commit_seconds.clone(),
        );
        r.register(
            "store_batch_records",
            "Transactions in one round; a store may write several rounds together",
            self.commit_records.clone(),
        );
        r.register("instances", "Instances registered, by verdict", self.instances.clone());
        r.register("services", "Services registered", self.services.clone());
        r.register("leases", "Leases held", self.leases.clone());
        r.register("probes", "Probes made of instances, by result", self.probes.clone());
        r.register("probe_seconds", "Time of one probe", self.probe_seconds.clone());
        r.register("check_transitions", "Checks that have turned, by what to", self.check_turns.clone());
        r.register("check_targets", "Checks of instances that are being made", self.check_targets.clone());
        r.register("xds_streams", "xDS streams open", self.streams.clone());
        let help = "xDS streams that were opened, also by clients that left before they said who they are";
        r.register("xds_streams_opened", help, self.streams_opened.clone());
        r.register("xds_responses", "xDS responses sent", self.responses.clone());
        r.register("xds_acks", "xDS responses accepted", self.acks.clone());
        r.register("xds_nacks", "xDS responses refused", self.nacks.clone());
        r.register("xds_overdue_acks", "Steps taken without waiting longer for an ACK", self.overdue.clone());
        let help = "From a resource's change to its ACK by one client";
        r.register("convergence_seconds", help, self.convergence_seconds.clone());
    }

    pub fn kept(&self) {
        self.kept.inc();
    }

    pub fn register_again(&self) {
        self.register_again.inc();
    }

    pub fn retry(&self) {
        self.retry.inc();
    }

    pub fn lease_notice(&self, notice: &'static str) {
        self.lease_notices.get_or_create(&Notice { notice }).inc();
    }

    /// How many leases the brake keeps, by scope and group.
    pub fn braking(&self, groups: impl Iterator<Item = (&'static str, usize)>) {
        let mut leases: [(&'static str, usize); 3] = [("service", 0), ("zone", 0), ("intake", 0)];
        for (scope, count) in groups {
            leases.iter_mut().filter(|(of, _)| *of == scope).for_each(|(_, sum)| *sum += count);
        }
        for (scope, count) in leases {
            self.braked_leases.get_or_create(&Scope { scope }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn write(&self, command: &'static str, done: bool) {
        let outcome = if done { "done" } else { "refused" };
        self.writes.get_or_create(&Write { command, outcome }).inc();
    }

    pub fn removal(&self, reason: &'static str) {
        self.removals.get_or_create(&Reason { reason }).inc();
    }

    pub fn store_commit(&self, took: Duration, transactions: usize) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_records.observe(transactions as f64);
    }

    pub fn probe(&self, probe: &'static str, result: &'static str, took: Duration) {
        self.probes.get_or_create(&Probe { probe, result }).inc();
        self.probe_seconds.get_or_create(&ProbeKind { probe }).observe(took.as_secs_f64());
    }

    pub fn check_turn(&self, status: &'static str) {
        self.check_turns.get_or_create(&CheckStatus { status }).inc();
    }

    pub fn check_targets(&self, targets: usize) {
        self.check_targets.set(i64::try_from(targets).unwrap_or(i64::MAX));
    }

    pub fn stream_opened(&self, service: &'static str, dialect: &'static str) {
        let of = Stream { r#type: service, variant: dialect };
        self.streams.get_or_create(&of).inc();
        self.streams_opened.get_or_create(&of).inc();
    }

    pub fn stream_closed(&self, service: &'static str, dialect: &'static str) {
        self.streams.get_or_create(&Stream { r#type: service, variant: dialect }).dec();
    }

    pub fn of_type(&self, kind: &'static str) -> TypeMetrics {
        let of = Type { r#type: kind };
        TypeMetrics {
            responses: self.responses.get_or_create(&of).clone(),
            acks: self.acks.get_or_create(&of).clone(),
            nacks: self.nacks.get_or_create(&of).clone(),
            overdue: self.overdue.get_or_create(&of).clone(),
            convergence_seconds: self.convergence_seconds.get_or_create(&of).clone(),
        }
    }

    /// All metrics as text, with the gauges of the registry as counted now.
    pub fn render(&self, census: &Census) -> String {
        for (state, count) in &census.instances {
            self.instances.get_or_create(&State { state }).set(*count as i64);
        }
        self.services.set(census.services as i64);
        self.leases.set(census.leases as i64);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.prometheus);
        text
    }
}

/// Logs to standard error; `filter` as in `info,convoy=debug`.
pub fn start_logging(filter: &str, json: bool) -> anyhow::Result<()> {
    // A word that is no level would be taken for the name of a module, and nothing be logged.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let word = filter.split(',').find(|part| !part.contains('=') && !levels.contains(&part.trim()));
    if let Some(word) = word {
        anyhow::bail!("log: {word:?} is not one of {}, nor a filter such as convoy=debug", levels.join(", "));
    }
    let filter = tracing_subscriber::EnvFilter::try_new(filter).with_context(|| format!("log: {filter:?}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let started = if json { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|error| anyhow::anyhow!("{error}"))
}
