//! Convergence and the drain barrier count the proxies of all replicas.

use std::time::Duration;

use convoy_client::proto::{BarrierOutcome, DrainRequest};

use crate::{
    etcd::Cluster,
    mesh::{Agents, Replica, has, mesh},
    support::ads::{Dialect, ENDPOINT, Incremental, Stream},
};

async fn proxy(replica: &Replica) -> Stream<Incremental> {
    let mut stream = Stream::<Incremental>::open(replica.child.addresses.xds, Incremental::AGGREGATED).await;
    let first = stream.ask(Stream::<Incremental>::subscribe(ENDPOINT, &["web"])).await;
    stream.ack(&first).await;
    stream
}

async fn drain(replica: &Replica, wait: Duration) -> convoy_client::proto::Barrier {
    let wait = Some(convoy_client::duration(wait));
    let request = DrainRequest { service: "web".into(), id: "web-1".into(), wait, ..Default::default() };
    let answer = replica.api().registry.clone().drain(request).await.expect("draining").into_inner();
    answer.barrier.expect("a barrier")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_barrier_waits_for_the_proxies_of_all_replicas() {
    let cluster = Cluster::start(1, &[]);
    let [first, second] = mesh::<2>(&cluster, "").await;
    let agents = Agents::new();
    agents.join("web", 1, &first).await;
    has(&second, "web", 1).await;
    let mut proxy = proxy(&second).await;
    // It has yet to accept it.
    let barrier = drain(&first, Duration::from_millis(500)).await;
    assert_eq!((barrier.outcome(), barrier.proxies, barrier.acked), (BarrierOutcome::Incomplete, 1, 0));
    assert_eq!(barrier.unknown_replicas, Vec::<String>::new());
    let pushed = proxy.next().await;
    proxy.ack(&pushed).await;
    let barrier = drain(&first, Duration::from_secs(30)).await;
    assert_eq!((barrier.outcome(), barrier.proxies, barrier.acked), (BarrierOutcome::Complete, 1, 1));
    // Of one that does not answer, nobody knows what its proxies have.
    second.child.signal(rustix::process::Signal::STOP);
    let barrier = drain(&first, Duration::from_millis(100)).await;
    second.child.signal(rustix::process::Signal::CONT);
    assert_eq!((barrier.outcome(), barrier.unknown_replicas.len()), (BarrierOutcome::Incomplete, 1), "{barrier:?}");
}
