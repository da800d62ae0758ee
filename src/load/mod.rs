//! Load becomes weight: what agents report with their heartbeats moves the weights of their instances, in steps.
//!
//! `weights` is the function, and decides; this is its shell. Heartbeats leave their report at the lease, as before, and
//! are not held up. Once a second the shell looks at the services whose turn it is, gives the machine what is reported,
//! and stores the steps: one batch a service, lazily (`Transaction::lazy`), in that service's interval at most once.
//!
//! Of several replicas each does so for its share of the services.
//!
//! What a service without reports costs: it is looked at once in its interval, and a large one more seldom; while no agent
//! at all has ever reported a load, nothing is looked at, except for slow starts and for shares that are not full.

mod weights;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use self::weights::{Seen, Weights};
use crate::{
    model::{Incarnation, Instance, InstanceId, ServiceKey, Share, Verdict},
    registry::{Registry, command::Error, lease::Report, state::ServiceState},
};

const TICK: Duration = Duration::from_secs(1);
/// What looking at one instance may cost of all time: a service of a million without reports is looked at twice a minute.
const PATIENCE_FOR_ONE: Duration = Duration::from_micros(30);
/// After so much work other tasks have their turn.
const SLICE: Duration = Duration::from_millis(2);

/// A service's machine, and when it is looked at next.
#[derive(Debug, Default)]
struct Of {
    weights: Weights,
    next_ms: u64,
}

/// Keeps the weights of all services. Never ends.
pub async fn run(registry: Registry) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut services = reduced(&registry);
    loop {
        ticks.tick().await;
        turn(&registry, &mut services).await;
    }
}

/// The services of which a share that is not full was stored before a restart.
fn reduced(registry: &Registry) -> HashMap<ServiceKey, Of> {
    let snapshot = registry.snapshot();
    let is_reduced = |state: &ServiceState| state.instances.values().any(|of| of.value.share != Share::FULL);
    let reduced = snapshot.services.iter().filter(|(_, state)| is_reduced(state));
    reduced.map(|(key, _)| (key.clone(), Of::default())).collect()
}

/// Looks at the services whose turn it is.
async fn turn(registry: &Registry, services: &mut HashMap<ServiceKey, Of>) {
    let snapshot = registry.snapshot();
    services.retain(|key, _| snapshot.services.contains_key(key));
    let mut begun = Instant::now();
    for (key, state) in &snapshot.services {
        // Shares follow from all reports together, which all replicas have.
        if !snapshot.is_share_of(key, registry.replica()) {
            services.remove(key);
            continue;
        }
        let policy = &state.service.value.load;
        let concerned = registry.load_is_reported() || !policy.slow_start.is_zero() || services.contains_key(key);
        let now_ms = registry.observed_ms();
        if concerned && services.get(key).is_none_or(|of| of.next_ms <= now_ms) {
            let of = services.entry(key.clone()).or_default();
            let batch = of.look(registry, state, now_ms);
            let moves = of.weights.hears(now_ms) || !batch.is_empty() || !policy.slow_start.is_zero();
            of.next_ms = now_ms + pause(moves, policy.interval, state.instances.len()).as_millis() as u64;
            if !batch.is_empty() {
                store(registry, key, batch).await;
            }
        }
        if begun.elapsed() > SLICE {
            tokio::task::yield_now().await;
            begun = Instant::now();
        }
    }
}

/// When a service is looked at again: often enough for its interval while it moves, and the larger the more seldom.
fn pause(moves: bool, interval: Duration, instances: usize) -> Duration {
    let large = PATIENCE_FOR_ONE * u32::try_from(instances).unwrap_or(u32::MAX);
    if moves { TICK.max(interval / 5) } else { interval }.max(large)
}

/// One batch of a service, in writes of a bounded size.
async fn store(registry: &Registry, key: &ServiceKey, batch: Vec<(InstanceId, Incarnation, Share)>) {
    tracing::debug!(service = %key, instances = batch.len(), "load moves weights");
    for some in batch.chunks(registry.limits().instances_per_call) {
        match registry.set_shares(key.clone(), some.to_vec()).await {
            Ok(_) => {}
            // What is left comes again; and where the store fails, the registry says so.
            Err(error @ Error::Unavailable { .. }) => {
                return tracing::debug!(%error, service = %key, "weights are not stored now");
            }
            Err(error) => return tracing::warn!(%error, service = %key, "weights cannot be stored"),
        }
    }
}

impl Of {
    fn look(
        &mut self,
        registry: &Registry,
        state: &ServiceState,
        now_ms: u64,
    ) -> Vec<(InstanceId, Incarnation, Share)> {
        let unix = registry.unix();
        let instances: Vec<(&Instance, Option<Arc<Report>>)> = state
            .instances
            .values()
            .map(|instance| (&*instance.value, registry.report(instance.value.lease)))
            .collect();
        let see = |(instance, report): &'_ (&Instance, Option<Arc<Report>>)| -> (bool, Duration, Option<u64>) {
            let in_traffic = matches!(instance.verdict(), Verdict::Healthy | Verdict::Degraded | Verdict::Suspect);
            let since = Duration::from_millis(unix.0.saturating_sub(instance.health_since.0));
            (in_traffic && instance.spec.weight > 0, since, report.as_ref().map(|report| report.at_ms))
        };
        let seen: Vec<Seen<'_>> = instances
            .iter()
            .map(|of| {
                let (in_traffic, since, at) = see(of);
                let report = at.zip(of.1.as_ref().map(|report| &report.load));
                let (id, incarnation, share) = (&of.0.key.id, of.0.incarnation, of.0.share);
                Seen { id, incarnation, share, in_traffic, since, report }
            })
            .collect();
        self.weights.step(now_ms, &state.service.value.load, &seen)
    }
}
