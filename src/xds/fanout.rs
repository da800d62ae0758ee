//! The task that leads the registry's changes to the sessions: it takes what changed, whatever it is since the last
//! time, and touches the resources made of it. And, after a start without stored state, the settle window.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

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
const SETTLE_LOOK: Duration = Duration::from_millis(50);
/// With no stream there is nobody to tell soon: changes are led through together, for less.
const REST_WITHOUT_STREAMS: Duration = Duration::from_millis(5);

pub async fn run(cache: Arc<Cache>) {
    let mut definitions = Definitions::default();
    let mut routes_at = Instant::now();
    let mut last_took = Duration::ZERO;
    // Since which revision.
    let mut routes_due: Option<Revision> = None;
    let mut published = cache.registry().published();
    // Up to here all but the routes has been told. A new revision may be published at any time: what is taken, or is
    // not there, after one was read, is of that revision at least.
    let mut passed = Revision::default();
    loop {
        let revision = *published.borrow_and_update();
        if cache.registry().is_clean() {
            passed = revision;
        }
        // Who waits for the routes has not been told of everything.
        cache.set_told(routes_due.map_or(passed, |since| Revision(since.0.saturating_sub(1))));
        tokio::select! {
            dirty = cache.registry().dirty() => {
                lead(&cache, dirty, Revision(passed.0 + 1), &mut definitions, &mut routes_due);
                passed = revision;
            }
            () = sleep_until(routes_at), if routes_due.is_some() => {}
            // Not every revision changes what somebody is told. The registry outlives its fan-out.
            _ = published.changed() => {}
        }
        let begun = Instant::now();
        if let Some(since) = routes_due.filter(|_| begun >= routes_at) {
            cache.definitions_changed(since);
            let took = begun.elapsed();
            routes_at = Instant::now() + pause(took, last_took);
            last_took = took;
            routes_due = None;
        }
        if cache.has_no_streams() {
            sleep(REST_WITHOUT_STREAMS).await;
        }
    }
}

/// How long no routes are rebuilt after a rebuild, by what it and the one before took. Many routes take their time twice
/// in a row; a thread that had to wait for a processor has not been working, and is not to be charged tenfold.
fn pause(took: Duration, before: Duration) -> Duration {
    ROUTES_INTERVAL.max(took.min(before) * ROUTES_SHARE)
}

/// Touches what is made of what has changed, which is since a revision.
fn lead(
    cache: &Cache,
    dirty: BTreeSet<Dirty>,
    since: Revision,
    definitions: &mut Definitions,
    routes_due: &mut Option<Revision>,
) {
    let snapshot = cache.registry().snapshot();
    let mut raw = BTreeSet::new();
    for dirty in dirty {
        match dirty {
            Dirty::Service(service) => {
                let mut clusters = definitions.changed(&service, &snapshot);
                if let Some(clusters) = &mut clusters {
                    // What came and went since the last look may have been seen meanwhile.
                    clusters.extend(cache.clusters_seen(&service));
                    routes_due.get_or_insert(since);
                }
                cache.service_changed(&service, &clusters.unwrap_or_default(), since);
            }
            Dirty::Raw(key) => drop(raw.insert(key)),
        }
    }
    if !raw.is_empty() {
        cache.raw_changed(&raw, since);
    }
}

/// Without stored state returning proxies know more than Convoy does, until the agents have had time to register. By
/// observed time: while Convoy is stopped nobody can. While nothing can be written nobody can either, and afterwards they
/// have the whole window again.
pub async fn settle(cache: Arc<Cache>, window: Duration) {
    let registry = cache.registry();
    let now = || Duration::from_millis(registry.handled_ms());
    let mut end = now() + window;
    let mut first = None;
    let mut looks = interval(SETTLE_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while now() < end {
        looks.tick().await;
        if !registry.is_writable() {
            end = now() + window;
        }
        if first.is_none() && registry.leases() > 0 {
            first = Some(now());
        }
        let is_unknown = *cache.readiness().borrow() == Readiness::Unknown;
        if is_unknown && first.is_some_and(|first| now() >= first + FIRST_REGISTRATION_GRACE) {
            cache.set_readiness(Readiness::Partial);
        }
    }
    cache.set_readiness(Readiness::Ready);
    tracing::info!(leases = registry.leases(), "settled: what is not registered now is gone");
}

#[cfg(test)]
mod tests {
    use convoy_client::proto;
    use tokio::time::advance;

    use super::*;
    use crate::{
        model::{Limits, Namespace, ResourceType, parse},
        registry::{Registry, Settings},
        storage::{failing::Failing, memory::MemoryStore},
        telemetry::Metrics,
        translate::View,
        xds::{protocol::Catalog, view_catalog::ViewCatalog},
    };

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_no_time_to_return() {
        let (store, opened) = MemoryStore::open("id".into());
        let (store, metrics) = (Arc::new(store), Arc::new(Metrics::default()));
        let (registry, _running) = Registry::start(store, opened, Settings::default(), metrics);
        let cache = Arc::new(Cache::new(registry, Readiness::Unknown));
        let settling = tokio::spawn(settle(cache.clone(), Duration::from_secs(2)));
        sleep(Duration::from_secs(1)).await;
        advance(Duration::from_secs(60)).await;
        let resumed = Instant::now();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(*cache.readiness().borrow(), Readiness::Unknown);
        settling.await.expect("it ends");
        assert_eq!(*cache.readiness().borrow(), Readiness::Ready);
        let rest = resumed.elapsed();
        assert!((Duration::from_millis(800)..Duration::from_millis(1_600)).contains(&rest), "{rest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_can_be_written_is_no_time_to_return() {
        let (store, opened) = MemoryStore::open("id".into());
        let disk = Arc::new(Failing::new(store, true));
        let (registry, _running) = Registry::start(disk.clone(), opened, Settings::default(), Arc::default());
        let cache = Arc::new(Cache::new(registry.clone(), Readiness::Unknown));
        let settling = tokio::spawn(settle(cache.clone(), Duration::from_secs(2)));
        for _ in 0..5 {
            assert!(!register(&registry, "http").await);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(*cache.readiness().borrow(), Readiness::Unknown);
        disk.fail(false);
        assert!(register(&registry, "http").await);
        let writable = Instant::now();
        settling.await.expect("it ends");
        let rest = writable.elapsed();
        assert!((Duration::from_millis(1_800)..Duration::from_millis(2_200)).contains(&rest), "{rest:?}");
    }

    /// An agent registers; whether it could.
    async fn register(registry: &Registry, port: &str) -> bool {
        let registration = proto::Registration {
            service: "web".into(),
            id: "1".into(),
            address: "10.0.0.1".into(),
            ports: vec![proto::Port { name: port.into(), port: 80, ..Default::default() }],
            ..Default::default()
        };
        let parsed = parse::registration(registration, None, &Limits::default()).expect("a registration");
        registry.register(None, None, None, vec![parsed]).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_came_and_went_between_two_looks_is_told() {
        let (store, opened) = MemoryStore::open("id".into());
        let (store, metrics) = (Arc::new(store), Arc::new(Metrics::default()));
        let (registry, _running) = Registry::start(store, opened, Settings::default(), metrics);
        let cache = Arc::new(Cache::new(registry.clone(), Readiness::Ready));
        let mut definitions = Definitions::default();
        let mut look = async || lead(&cache, registry.dirty().await, Revision(1), &mut definitions, &mut None);
        assert!(register(&registry, "http").await);
        look().await;
        let view = View { namespace: Namespace::default(), outbound: None, imports: None, grpc: false };
        let catalog = ViewCatalog::new(cache.clone(), &view, Arc::default(), 1);
        let _group = cache.join_wildcard(ResourceType::Cluster, &catalog.view, &catalog.mailbox);
        let admin: Arc<str> = "web:admin".into();
        assert!(register(&registry, "admin").await);
        assert!(catalog.get(ResourceType::Cluster, &admin).is_some());
        let key = parse::instance_key("default", "web", "1").expect("a key");
        registry.deregister(key.clone(), None).await.expect("deregistered");
        registry.delete_service(key.service).await.expect("deleted");
        assert!(register(&registry, "http").await);
        catalog.mailbox.take();
        look().await;
        assert!(catalog.mailbox.look(|news| news.names.contains_key(&(ResourceType::Cluster, admin))));
    }

    #[test]
    fn routes_rest_by_what_they_cost_and_not_for_one_stall() {
        let ms = Duration::from_millis;
        for (took, before, rests) in [
            (ms(0), ms(0), ROUTES_INTERVAL),
            (ms(1), ms(1), ROUTES_INTERVAL),
            (ms(90), ms(1), ROUTES_INTERVAL),
            (ms(1), ms(90), ROUTES_INTERVAL),
            (ms(20), ms(30), ms(200)),
        ] {
            assert_eq!(pause(took, before), rests, "{took:?} after {before:?}");
        }
    }
}
