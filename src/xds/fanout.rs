//! The task that leads the registry's changes to the sessions: it takes the services that changed, whatever their
//! number since the last time, and touches the resources made of them. And, after a start without stored state, the
//! settle window.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    cache::{Cache, Definitions},
    protocol::Readiness,
};
use crate::{model::Revision, registry::state::Dirty};

/// Route configurations hold all services: they are rebuilt at most this often, so that a new service can be reached
/// within 100 ms, and those of a large mesh for at most a tenth of the time.
const ROUTES_INTERVAL: Duration = Duration::from_millis(50);
const ROUTES_SHARE: u32 = 10;
/// After the first registration others follow.
const FIRST_REGISTRATION_GRACE: Duration = Duration::from_secs(1);

pub async fn run(cache: Arc<Cache>) {
    let mut definitions = Definitions::default();
    let mut routes_at = Instant::now();
    let mut routes_due = false;
    let mut published = cache.registry().published();
    // Up to here all but the routes has been told. A new revision may be published at any time: what is taken, or is
    // not there, after one was read, is of that revision at least.
    let mut passed = Revision::default();
    loop {
        let revision = *published.borrow_and_update();
        if cache.registry().is_clean() {
            passed = revision;
        }
        if !routes_due {
            cache.set_told(passed);
        }
        tokio::select! {
            dirty = cache.registry().dirty() => {
                let snapshot = cache.registry().snapshot();
                let services = dirty.iter().filter_map(|dirty| match dirty {
                    Dirty::Service(key) => Some(key),
                    Dirty::Raw(_) => None,
                });
                for service in services {
                    cache.service_changed(service);
                    let clusters = definitions.changed(service, &snapshot);
                    if !clusters.is_empty() {
                        cache.definition_changed(&clusters);
                        routes_due = true;
                    }
                }
                passed = revision;
            }
            () = sleep_until(routes_at), if routes_due => {}
            // Not every revision changes what somebody is told. The registry outlives its fan-out.
            _ = published.changed() => {}
        }
        let begun = Instant::now();
        if routes_due && begun >= routes_at {
            cache.definitions_changed();
            routes_at = Instant::now() + ROUTES_INTERVAL.max(begun.elapsed() * ROUTES_SHARE);
            routes_due = false;
        }
    }
}

/// Without stored state returning proxies know more than Convoy does, until the agents have had time to register.
pub async fn settle(cache: Arc<Cache>, window: Duration) {
    let end = Instant::now() + window;
    let mut leases = tokio::time::interval(Duration::from_millis(50));
    let first = async {
        while cache.registry().leases() == 0 {
            leases.tick().await;
        }
    };
    if tokio::time::timeout_at(end, first).await.is_ok() {
        sleep_until(end.min(Instant::now() + FIRST_REGISTRATION_GRACE)).await;
        cache.set_readiness(Readiness::Partial);
    }
    sleep_until(end).await;
    cache.set_readiness(Readiness::Ready);
    tracing::info!(leases = cache.registry().leases(), "settled: what is not registered now is gone");
}
