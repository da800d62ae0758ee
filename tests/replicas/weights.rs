//! What agents report at one replica counts at all, and one of them makes weights of it.

use convoy_client::proto::{HeartbeatRequest, LeaseHeartbeat, Load, RegisterRequest};
use serde_json::json;

use crate::{
    etcd::Cluster,
    mesh::{Replica, mesh},
    support::{sample::instance, until},
};

async fn joins(replica: &Replica, number: u32) -> String {
    let request = RegisterRequest { instances: vec![instance("web", number)], ..Default::default() };
    replica.api().register(request).await.expect("registered").lease.expect("a lease").id
}

async fn reports(replica: &Replica, lease: &str, cpu: f64) {
    let load = Some(Load { cpu: Some(cpu), ..Default::default() });
    let request = HeartbeatRequest { leases: vec![LeaseHeartbeat { lease: lease.into(), load, ..Default::default() }] };
    replica.api().registry.clone().heartbeat(request).await.expect("heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_weights_of_a_service_follow_from_what_all_replicas_hear() {
    let cluster = Cluster::start(1, &[]);
    let [first, second] = mesh::<2>(&cluster, "").await;
    let ports = json!([{"name": "http", "protocol": "http", "port": 80}]);
    let service = json!({"ports": ports, "load": {"interval": "1s"}});
    first.api().http.put("/v1/namespaces/default/services/web", &service).await.ok();
    let (idle, busy) = (joins(&first, 0).await, joins(&second, 1).await);
    let share = async |replica: &Replica, id: &str| {
        let path = format!("/v1/namespaces/default/services/web/instances/{id}");
        replica.api().http.get(&path).await.ok()["effective_weight"].clone()
    };
    until("the busy one gets less, as both see", async || {
        reports(&first, &idle, 0.1).await;
        reports(&second, &busy, 0.9).await;
        let shares = [share(&first, "web-1").await, share(&second, "web-1").await];
        shares.iter().all(|share| share.as_u64().is_some_and(|share| share < 80)).then_some(())
    })
    .await;
    assert_eq!(share(&second, "web-0").await, 100);
    // Its report is seen at the other one.
    let shown = first.api().http.get("/v1/namespaces/default/services/web/instances/web-1").await.ok();
    assert_eq!(shown["load"]["cpu"], 0.9, "{shown}");
}
