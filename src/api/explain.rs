//! Why an instance is, or is not, in a proxy's endpoints: the registry's part is said here, a proxy's in `xds::explain`.

use std::sync::Arc;

use convoy_client::proto::{self, ExplanationStep, StepOutcome, explain_client::ExplainClient};

use super::{Api, error::Problem, proxies::no_proxy};
use crate::{
    model::{Brake, CheckStatus, Instance, Locality, OverrideHealth, ServiceKey, UnixMillis, Verdict, parse, wire},
    registry::{
        command::Error,
        state::{ServiceState, Snapshot},
    },
};

/// How many virtual services an explanation names.
const MAX_SELECTORS: usize = 20;

impl Api {
    pub async fn explain_instance(
        &self,
        request: &proto::ExplainInstanceRequest,
    ) -> Result<proto::Explanation, Problem> {
        let there = async |channel| ExplainClient::new(channel).explain_instance(request.clone()).await;
        self.or_at_its_replica(&request.proxy, self.explain_here(request), there).await
    }

    fn explain_here(&self, request: &proto::ExplainInstanceRequest) -> Result<proto::Explanation, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let snapshot = self.registry.snapshot();
        let explanation = proto::Explanation {
            namespace: key.service.namespace.to_string(),
            service: key.service.name.to_string(),
            id: key.id.to_string(),
            revision: snapshot.revision.0,
            ..Default::default()
        };
        let Some(instance) = snapshot.instance(&key) else {
            let gone = snapshot.gone.get(&key).ok_or_else(|| Error::no_instance(&key))?;
            let history = gone.value.history.clone();
            let detail = format!("it was {}", gone.value.cause.as_str());
            let steps = vec![step("registration", StepOutcome::Blocks, detail, Some(gone.value.removed_at))];
            let summary =
                format!("{key} is in nobody's endpoints: it is not registered; it was {}", gone.value.cause.as_str());
            return Ok(proto::Explanation { summary, steps, history: wire::history(&history), ..explanation });
        };
        let mut steps = steps(&instance.value);
        steps.extend(selectors(&snapshot, &instance.value));
        let mut streams = self.survey.proxies.streams();
        streams.retain(|stream| stream.client.id == request.proxy);
        if !request.proxy.is_empty() && streams.is_empty() {
            return Err(no_proxy(&request.proxy, "is not connected", "that of a connected proxy"));
        }
        crate::xds::status::in_order(&mut streams);
        let told = self.survey.told();
        let proxies: Vec<proto::ProxyExplanation> =
            streams.iter().map(|stream| stream.explain(&instance.value, &snapshot, told)).collect();
        Ok(proto::Explanation {
            summary: summary(&instance.value, &steps, &proxies),
            steps,
            instance: Some(self.instance(instance)),
            history: wire::history(&instance.value.history),
            proxies,
            ..explanation
        })
    }
}

fn step(step: &str, outcome: StepOutcome, detail: impl Into<String>, since: Option<UnixMillis>) -> ExplanationStep {
    ExplanationStep { step: step.into(), outcome: outcome.into(), detail: detail.into(), since: since.map(wire::time) }
}

/// What decides whether an instance is in traffic, axis by axis.
fn steps(instance: &Instance) -> Vec<ExplanationStep> {
    use StepOutcome::{Blocks, Note, Passes};
    let registered = format!("incarnation {}", instance.incarnation.0);
    let mut steps = vec![step("registration", Passes, registered, Some(instance.registered_at))];
    steps.push(match instance.lapsed {
        Some(Brake { scope, since }) => {
            let scope = scope.as_str();
            let detail = format!("it lapsed, and the brake keeps it: too many fell silent ({scope})");
            step("lease", Note, detail, Some(since))
        }
        None => step("lease", Passes, "it is held", None),
    });
    steps.push(match instance.spec.ready {
        true => step("readiness", Passes, "its agent says that it is ready", Some(instance.ready_since)),
        false => step("readiness", Blocks, "its agent says that it is not ready", Some(instance.ready_since)),
    });
    for check in &*instance.checks {
        let outcome = match check.status {
            CheckStatus::Passing => Passes,
            CheckStatus::Degraded => Note,
            CheckStatus::Pending if instance.was_ready => Note,
            CheckStatus::Failing if instance.disbelieved.is_some() => Note,
            CheckStatus::Pending | CheckStatus::Failing => Blocks,
        };
        let kind = check.kind.as_str();
        let detail = format!("the {kind} check is {}: {}", check.status.as_str(), check.output);
        steps.push(step(&format!("check/{}", check.name), outcome, detail, Some(check.since)));
    }
    if let Some(operator) = &instance.operator {
        let outcome = if operator.health == OverrideHealth::Unhealthy { Blocks } else { Note };
        let detail = format!("an operator says {}: {}", operator.health.as_str(), operator.reason);
        steps.push(step("operator", outcome, detail, Some(operator.since)));
    }
    if let Some(drain) = instance.drain {
        steps.push(step("drain", Blocks, "it was asked to drain", Some(drain.since)));
    }
    if let Some(brake) = instance.brake() {
        let detail = format!("it keeps the instance, for too much went wrong at once ({})", brake.scope.as_str());
        steps.push(step("brake", Note, detail, Some(brake.since)));
    }
    let health = instance.health();
    let outcome = match health.verdict {
        Verdict::Healthy => Passes,
        Verdict::Degraded | Verdict::Suspect => Note,
        Verdict::Starting | Verdict::Unhealthy | Verdict::Draining => Blocks,
    };
    let detail = format!("{}: {}", health.verdict.as_str(), health.reason);
    steps.push(step("verdict", outcome, detail, Some(health.since)));
    let (weight, of) = (instance.weight(), instance.spec.weight);
    steps.push(match weight {
        0 => step("weight", Blocks, "its weight is 0", None),
        _ if weight == of => step("weight", Passes, weight.to_string(), None),
        _ => step("weight", Note, format!("{weight}: its load leaves so much of {of}"), None),
    });
    let Locality { region, zone, sub_zone } = &*instance.spec.locality;
    if *instance.spec.locality != Locality::default() {
        let detail = format!("region {region:?}, zone {zone:?}, sub-zone {sub_zone:?}");
        steps.push(step("locality", Note, detail, None));
    }
    steps
}

/// Which virtual services lead to it and which do not: those that do first, so many at most.
fn selectors(snapshot: &Snapshot, instance: &Instance) -> Vec<ExplanationStep> {
    let look = |(key, state): (&ServiceKey, &Arc<ServiceState>)| {
        let selector = state.service.value.selector.as_ref()?;
        let selects = state.members.contains_key(&instance.key);
        let (outcome, says) = match selects {
            true => (StepOutcome::Passes, "selects it"),
            false => (StepOutcome::Note, "does not select it"),
        };
        let detail = format!("the virtual service {key} {says}: {}", selector.as_str());
        Some((!selects, step("selector", outcome, detail, None)))
    };
    let mut selectors: Vec<(bool, ExplanationStep)> = snapshot.services.iter().filter_map(look).collect();
    selectors.sort_by_key(|(rank, _)| *rank);
    selectors.into_iter().take(MAX_SELECTORS).map(|(_, step)| step).collect()
}

/// The answer in one sentence.
fn summary(instance: &Instance, steps: &[ExplanationStep], proxies: &[proto::ProxyExplanation]) -> String {
    let (key, verdict) = (&instance.key, instance.verdict());
    let blocks = |steps: &[ExplanationStep]| {
        steps.iter().find(|step| step.outcome() == StepOutcome::Blocks).map(|step| step.detail.clone())
    };
    let Some(proxy) = proxies.first() else {
        return match blocks(steps) {
            Some(why) if !verdict.serves() || instance.weight() == 0 => format!("{key} is out of traffic: {why}"),
            _ => format!("{key} is in traffic, as {}", verdict.as_str()),
        };
    };
    let node = &proxy.node;
    let clusters = || proxies.iter().flat_map(|proxy| &proxy.clusters);
    let accepted = clusters().find_map(|of| of.accepted.as_ref().map(|endpoint| (of, endpoint)));
    if let Some((of, endpoint)) = accepted {
        let has =
            format!("{node} has {key} in {} as {}, weight {}", of.cluster, endpoint.health_status, endpoint.weight);
        return match (&of.now, of.sync()) {
            (Some(now), _) if now == endpoint => has,
            (_, proto::SyncState::Rejected) => format!("{has}; it refused what is newer"),
            _ => format!("{has}; something newer is on its way to it"),
        };
    }
    let why = match clusters().find(|of| of.now.is_some()) {
        _ if blocks(&proxy.steps).is_some() => blocks(&proxy.steps).unwrap_or_default(),
        Some(of) if !of.subscribed => format!("it has not asked for the endpoints of {}", of.cluster),
        Some(of) if of.sync() == proto::SyncState::Rejected => {
            let message = of.last_nack.as_ref().map(|nack| nack.message.as_str()).unwrap_or_default();
            format!("it refused the assignment of {}: {message}", of.cluster)
        }
        Some(of) => format!("the assignment of {} is on its way to it", of.cluster),
        None => blocks(steps).unwrap_or_else(|| "no assignment has it".into()),
    };
    format!("{node} does not have {key}: {why}")
}
