//! Checks are divided over the replicas, and shared out anew when one goes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use convoy_client::proto::{Protocol, Registration, Verdict};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    etcd::Cluster,
    mesh::{Replica, mesh},
    support::{
        sample::{call, port},
        until,
    },
};

const TARGETS: usize = 12;
const INTERVAL: Duration = Duration::from_secs(1);

/// Accepts connections, and counts them, until it is dropped.
struct Target {
    address: SocketAddr,
    probes: Arc<AtomicUsize>,
    accepting: JoinSet<()>,
}

impl Target {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, probes) = (listener.local_addr().expect("an address"), Arc::<AtomicUsize>::default());
        let (mut accepting, count) = (JoinSet::new(), probes.clone());
        accepting.spawn(async move {
            while let Ok((_probe, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
            }
        });
        Self { address, probes, accepting }
    }
}

async fn verdicts(replica: &Replica) -> Vec<Verdict> {
    let request = convoy_client::proto::ListInstancesRequest { service: "web".into(), ..Default::default() };
    let listed = replica.api().registry.clone().list_instances(request).await.expect("a list").into_inner();
    listed.instances.into_iter().map(|instance| instance.health.unwrap_or_default().verdict()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_is_probed_by_one_replica_and_by_another_when_that_is_gone() {
    let cluster = Cluster::start(1, &[]);
    let [mut first, second, third] = mesh::<3>(&cluster, "").await;
    let check = json!({"name": "open", "interval": "1s", "unhealthy": {"count": 1}, "tcp": {}});
    let ports = json!([{"name": "http", "protocol": "http", "port": 80}]);
    let service = json!({"ports": ports, "checks": {"checks": [check]}});
    first.api().http.put("/v1/namespaces/default/services/web", &service).await.ok();
    let mut targets = Vec::new();
    for _ in 0..TARGETS {
        targets.push(Target::new().await);
    }
    let registration = |(number, target): (usize, &Target)| Registration {
        service: "web".into(),
        id: format!("web-{number:02}"),
        address: target.address.ip().to_string(),
        ports: vec![port("http", target.address.port().into(), Protocol::Http)],
        ..Default::default()
    };
    first.api().register(call(targets.iter().enumerate().map(registration))).await.expect("registered");
    let well = |verdict: &Verdict| *verdict == Verdict::Healthy;
    until("all are well", async || verdicts(&third).await.iter().all(well).then_some(())).await;

    let probes = |targets: &[Target]| targets.iter().map(|target| target.probes.load(Relaxed)).collect::<Vec<_>>();
    let (before, begun) = (probes(&targets), Instant::now());
    until("some intervals have passed", async || (begun.elapsed() > INTERVAL * 10).then_some(())).await;
    let each: Vec<usize> = probes(&targets).iter().zip(&before).map(|(after, before)| after - before).collect();
    println!("probes in ten intervals: {each:?}");
    // Three replicas would make thirty of each.
    assert!(each.iter().all(|count| (5..=14).contains(count)), "{each:?}");

    first.child.kill().await;
    targets[3].accepting.shutdown().await;
    targets[7].accepting.shutdown().await;
    // Whoever probed them: when its key is gone at the latest, another one finds out.
    let failing = |verdicts: &[Verdict]| verdicts.iter().filter(|verdict| **verdict == Verdict::Unhealthy).count() == 2;
    until("they fail", async || failing(&verdicts(&second).await).then_some(())).await;
    let before = probes(&targets);
    until("all others are probed", async || {
        let after = probes(&targets);
        let probed = |at: &usize| [3, 7].contains(at) || after[*at] >= before[*at] + 2;
        (0..TARGETS).all(|at| probed(&at)).then_some(())
    })
    .await;
}
