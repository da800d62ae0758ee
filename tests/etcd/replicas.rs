//! Several replicas of one mesh.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use convoy::{
    model::{Limits, Revision, parse},
    registry::{Registry, command::Outcome},
    storage::{Change, CommitError, Key, Storage, Transaction, etcd::EtcdStore},
    telemetry::Metrics,
};
use convoy_client::proto::{Port, Protocol, Registration};

use crate::{
    etcd::Cluster,
    replica::{PATIENCE, Replica, config, itself, put},
};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_write_the_same_one_wins_and_the_other_has_heard_of_it() {
    let cluster = Cluster::start(1, &[]);
    let config = config(cluster.endpoints());
    let (mut replica, mut other) = (Replica::open(&config).await, Replica::open(&config).await);
    for number in 1..50u64 {
        let (ours, theirs) = (put(1, number * 2, replica.of(1)), put(1, number * 2 + 1, other.of(1)));
        let (ours, theirs) = tokio::join!(replica.store.commit(vec![ours]), other.store.commit(vec![theirs]));
        let (winner, loser) = match (&ours[0], &theirs[0]) {
            (Ok(revision), Err(CommitError::Conflict)) => (*revision, &mut other),
            (Err(CommitError::Conflict), Ok(revision)) => (*revision, &mut replica),
            outcomes => panic!("{outcomes:?}"),
        };
        assert!(!loser.opened.commits.is_empty(), "who has lost plans on what won");
        replica.hear(winner).await;
        other.hear(winner).await;
        assert_eq!(replica.state, other.state);
    }
}

/// A service that seems to be empty is not deleted when somebody has registered by way of another replica meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_on_a_services_instances_sees_those_that_came() {
    let cluster = Cluster::start(1, &[]);
    let registries = [registry(&cluster).await, registry(&cluster).await];
    let first = register(&registries[0], 1).await;
    let service = first.instances[0].value.key.service.clone();
    registries[0].deregister(first.instances[0].value.key.clone(), None).await.expect("deregistered");
    let replica = Replica::open(&config(cluster.endpoints())).await;
    let delete = |at| {
        let changes = vec![Change { key: Key::Service(service.clone()), record: None }];
        Transaction { changes, still: vec![(service.clone(), at)], ..Transaction::default() }
    };
    let planned = delete(replica.revision);
    register(&registries[1], 2).await;
    assert_eq!(replica.store.commit(vec![planned]).await, [Err(CommitError::Conflict)]);
    let error = registries[0].delete_service(service.clone()).await.expect_err("it has an instance").to_string();
    assert!(error.contains("still has 1"), "{error}");
    assert!(matches!(replica.store.commit(vec![delete(Revision(u64::MAX >> 1))]).await[..], [Ok(_)]));
}

async fn registry(cluster: &Cluster) -> Registry {
    let (store, opened) = EtcdStore::open(&config(cluster.endpoints()), "new", &itself()).await.expect("it opens");
    Registry::start(Arc::new(store), opened, Limits::default().into(), Arc::new(Metrics::default())).0
}

async fn register(registry: &Registry, number: u16) -> Outcome {
    let registration = Registration {
        service: "web".into(),
        id: format!("i{number}"),
        address: Ipv4Addr::from(0x0a00_0000 + u32::from(number)).to_string(),
        ports: vec![Port { name: "http".into(), port: 80, protocol: Protocol::Http.into() }],
        ..Registration::default()
    };
    let (key, spec) = parse::registration(registration, None, &Limits::default()).expect("valid");
    let ttl = Some(Duration::from_secs(3_600));
    registry.register(None, ttl, None, vec![(key, spec)]).await.expect("registered").0
}

async fn reaches(registry: &Registry, revision: Revision) {
    let mut published = registry.published();
    let reached = tokio::time::timeout(PATIENCE, published.wait_for(|at| *at >= revision)).await;
    reached.expect("in time").expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_on_one_etcd_have_one_state() {
    let cluster = Cluster::start(1, &[]);
    let registries = [registry(&cluster).await, registry(&cluster).await];
    // Both make the same service at the same time, among others.
    let registering = (0..60u16).map(|number| register(&registries[usize::from(number % 2)], number));
    let outcomes = futures_util::future::join_all(registering).await;
    let last = outcomes.iter().map(|outcome| outcome.revision).max().expect("some");
    for registry in &registries {
        reaches(registry, last).await;
        assert_eq!(registry.snapshot().services.values().map(|service| service.instances.len()).sum::<usize>(), 60);
    }
    let again = registry(&cluster).await;
    assert!(again.had_state());
    assert_eq!(again.snapshot().services.values().map(|service| service.instances.len()).sum::<usize>(), 60);
}
