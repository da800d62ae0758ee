//! Load: what agents report of it, in either form, and what a service sets for the weights that follow from it.

use std::{ops::RangeInclusive, time::Duration};

use convoy_client::proto::{self, OrcaLoadReport};

use super::{
    Invalid, Share,
    limits::at_most,
    wire::{self, duration},
};

const MAX_METRICS: usize = 64;
const MAX_METRIC_NAME_BYTES: usize = 63;
/// More often would be churn for proxies, more seldom no answer to load.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5 * 60);
const MAX_SLOW_START: Duration = Duration::from_secs(60 * 60);

/// How the load of a service's instances becomes their weights; see `crate::load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPolicy {
    pub enabled: bool,
    /// What is left of the static weight in the worst case.
    pub min_share: Share,
    /// How long a newcomer's share grows from `min_share`. Zero: it has its full share at once.
    pub slow_start: Duration,
    /// The service's weights change once in this time at most.
    pub interval: Duration,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            min_share: Share::of_percent(10),
            slow_start: Duration::ZERO,
            interval: Duration::from_secs(5),
        }
    }
}

impl LoadPolicy {
    /// What somebody puts: what is not set is the default.
    pub fn parse(from: &proto::LoadPolicy) -> Result<Self, Invalid> {
        let default = Self::default();
        let of = |name: &str, value: Option<prost_types::Duration>, default: Duration| {
            value.map_or(Ok(default), |value| super::parse::duration(&format!("load.{name}"), value))
        };
        let text = convoy_client::json::format_duration;
        let interval = of("interval", from.interval, default.interval)?;
        if !INTERVAL.contains(&interval) {
            let rule = format!("from {} to {}", text(*INTERVAL.start()), text(*INTERVAL.end()));
            return Err(Invalid::new("load.interval", text(interval), rule));
        }
        let slow_start = of("slow_start", from.slow_start, default.slow_start)?;
        if slow_start > MAX_SLOW_START {
            return Err(Invalid::new("load.slow_start", text(slow_start), format!("at most {}", text(MAX_SLOW_START))));
        }
        if from.min_share > 100 {
            return Err(Invalid::new("load.min_share", from.min_share, "from 1 to 100, in percent"));
        }
        let min_share = if from.min_share == 0 { default.min_share } else { Share::of_percent(from.min_share) };
        Ok(Self { enabled: !from.off, min_share, slow_start, interval })
    }

    /// What a newcomer begins with.
    pub fn first_share(&self) -> Share {
        if self.enabled && !self.slow_start.is_zero() { self.min_share } else { Share::FULL }
    }

    /// As `parse` reads it.
    pub fn wire(&self) -> proto::LoadPolicy {
        proto::LoadPolicy {
            off: !self.enabled,
            min_share: self.min_share.percent(),
            slow_start: Some(wire::duration(self.slow_start)),
            interval: Some(duration(self.interval)),
        }
    }
}

/// A report as it is kept: checked, with what it says in ORCA's form in Convoy's own fields.
pub fn report(mut load: proto::Load) -> Result<proto::Load, Invalid> {
    if let Some(orca) = load.orca.take() {
        take_orca(&mut load, orca);
    }
    at_most("load.metrics", load.metrics.len(), MAX_METRICS, "named metrics")?;
    if let Some(name) = load.metrics.keys().find(|name| name.len() > MAX_METRIC_NAME_BYTES) {
        return Err(Invalid::new("load.metrics", name, "names of at most 63 bytes"));
    }
    let named = [
        ("cpu", load.cpu),
        ("memory", load.memory),
        ("queue_depth", load.queue_depth),
        ("in_flight", load.in_flight),
        ("rps", load.rps),
        ("error_rate", load.error_rate),
        ("application_utilization", load.application_utilization),
    ];
    let own = named.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    let all = own.chain(load.metrics.iter().map(|(name, value)| (name.as_str(), *value)));
    for (name, value) in all {
        if !value.is_finite() || value < 0.0 {
            return Err(Invalid::new(format!("load.{name}"), value, "a finite number, 0 or more"));
        }
    }
    if let Some(rate) = load.error_rate.filter(|rate| *rate > 1.0) {
        return Err(Invalid::new("load.error_rate", rate, "from 0 to 1"));
    }
    Ok(load)
}

/// Fills in what is not said in Convoy's own fields. A number that is 0 is not reported, as ORCA has it.
#[expect(deprecated, reason = "older clients report whole requests only")]
fn take_orca(load: &mut proto::Load, orca: OrcaLoadReport) {
    let said = |value: f64| (value != 0.0).then_some(value);
    let rps = said(orca.rps_fractional).or(said(orca.rps as f64));
    load.cpu = load.cpu.or(said(orca.cpu_utilization));
    load.memory = load.memory.or(said(orca.mem_utilization));
    load.application_utilization = load.application_utilization.or(said(orca.application_utilization));
    load.rps = load.rps.or(rps);
    // Errors and requests are counted apart: a moment can have more of the former.
    let errors = rps.filter(|rps| *rps > 0.0).zip(said(orca.eps)).map(|(rps, eps)| (eps / rps).min(1.0));
    load.error_rate = load.error_rate.or(errors);
    let grouped = |group: &'static str| move |(name, value): (String, f64)| (format!("{group}.{name}"), value);
    let metrics = orca.named_metrics.into_iter();
    let metrics = metrics.chain(orca.utilization.into_iter().map(grouped("utilization")));
    for (name, value) in metrics.chain(orca.request_cost.into_iter().map(grouped("request_cost"))) {
        load.metrics.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orca_fills_in_what_is_not_said() {
        let json = r#"{"cpu": 0.1, "metrics": {"queue": 1}, "orca": {"cpu_utilization": 0.5, "mem_utilization": 0.6,
            "rps_fractional": 20, "eps": 5, "application_utilization": 0.7, "named_metrics": {"queue": 2, "gpu": 3},
            "utilization": {"disk": 0.2}, "request_cost": {"db": 4}}}"#;
        let load = report(serde_json::from_str(json).expect("valid")).expect("valid");
        let metrics = [("queue", 1.0), ("gpu", 3.0), ("utilization.disk", 0.2), ("request_cost.db", 4.0)];
        let expected = proto::Load {
            cpu: Some(0.1),
            memory: Some(0.6),
            rps: Some(20.0),
            error_rate: Some(0.25),
            application_utilization: Some(0.7),
            metrics: metrics.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Default::default()
        };
        assert_eq!(load, expected);
        assert_eq!(
            report(proto::Load { orca: Some(OrcaLoadReport::default()), ..Default::default() }),
            Ok(Default::default())
        );
    }

    #[test]
    fn a_report_that_breaks_a_rule_is_refused() {
        let orca = |cpu_utilization| Some(OrcaLoadReport { cpu_utilization, ..Default::default() });
        for (load, field) in [
            (proto::Load { error_rate: Some(1.1), ..Default::default() }, "load.error_rate"),
            (proto::Load { rps: Some(-1.0), ..Default::default() }, "load.rps"),
            (
                proto::Load { application_utilization: Some(f64::INFINITY), ..Default::default() },
                "load.application_utilization",
            ),
            (proto::Load { orca: orca(-0.5), ..Default::default() }, "load.cpu"),
            (proto::Load { orca: orca(f64::NAN), ..Default::default() }, "load.cpu"),
        ] {
            assert_eq!(report(load).expect_err(field).field, field);
        }
    }

    #[test]
    fn a_policy_survives_the_way_in_and_out() {
        let json = r#"{"off": true, "min_share": 20, "slow_start": "30s", "interval": "2s"}"#;
        let said: proto::LoadPolicy = serde_json::from_str(json).expect("valid");
        let policy = LoadPolicy::parse(&said).expect("valid");
        assert_eq!((policy.wire(), policy.enabled, policy.min_share.percent()), (said, false, 20));
        assert_eq!(LoadPolicy::parse(&proto::LoadPolicy::default()), Ok(LoadPolicy::default()));
        for (json, field) in [
            (r#"{"min_share": 101}"#, "load.min_share"),
            (r#"{"interval": "10ms"}"#, "load.interval"),
            (r#"{"interval": "1h"}"#, "load.interval"),
            (r#"{"slow_start": "2h"}"#, "load.slow_start"),
        ] {
            let said = serde_json::from_str(json).expect("valid");
            assert_eq!(LoadPolicy::parse(&said).expect_err(json).field, field);
        }
    }
}
