//! The brake counts what all replicas hear, or do not.

use std::time::Instant;

use convoy_client::proto::{ListInstancesRequest, Verdict};

use crate::{
    etcd::Cluster,
    journal::Journal,
    mesh::{Agents, Replica, TTL, has, mesh},
    support::until,
};

const BRAKE: &str = "brake: {longest: 60s}\n";

async fn suspects(replica: &Replica) -> usize {
    let request = ListInstancesRequest { service: "web".into(), ..Default::default() };
    let listed = replica.api().registry.clone().list_instances(request).await.expect("a list").into_inner();
    let verdict = |instance: &convoy_client::proto::Instance| instance.health.as_ref().map(|health| health.verdict());
    listed.instances.iter().filter(|instance| verdict(instance) == Some(Verdict::Suspect)).count()
}

/// Each replica alone would see three of its six fall silent, which are not too many for it.
#[tokio::test(flavor = "multi_thread")]
async fn those_that_fall_silent_at_all_replicas_are_too_many() {
    let cluster = Cluster::start(1, &[]);
    let replicas = mesh::<3>(&cluster, BRAKE).await;
    let (agents, journal) = (Agents::new(), Journal::begin(replicas[0].api()).await);
    for number in 0..18 {
        agents.join("web", number, &replicas[number as usize % 3]).await;
    }
    has(&replicas[0], "web", 18).await;
    (0..9).for_each(|number| agents.fall_silent(number));
    until("they are suspects", async || (suspects(&replicas[1]).await == 9).then_some(())).await;
    assert_eq!(journal.left(0), [], "nobody is let go");
    // They come back, at other replicas.
    (0..9).for_each(|number| agents.go_to(number, &replicas[(number as usize + 1) % 3]));
    until("they are healthy", async || (suspects(&replicas[1]).await == 0).then_some(())).await;
    assert_eq!(journal.left(0), []);
    assert!(agents.all_kept());
}

/// A crash of a few is no reason to brake, whoever heard them.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_that_fall_silent_go() {
    let cluster = Cluster::start(1, &[]);
    let replicas = mesh::<3>(&cluster, BRAKE).await;
    let agents = Agents::new();
    for number in 0..18 {
        agents.join("web", number, &replicas[number as usize % 3]).await;
    }
    let silent = Instant::now();
    (0..3).for_each(|number| agents.fall_silent(number));
    has(&replicas[0], "web", 15).await;
    assert!(silent.elapsed() < TTL * 3, "{:?}", silent.elapsed());
    assert_eq!(suspects(&replicas[0]).await, 0);
}
