//! More connections than the process may have files.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    child::{Child, Home},
    sample::instances,
    until, within,
};

const FILES: u32 = 96;
/// How long processor time is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Whoever comes then has to wait; when room is made, everybody is served again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_files_is_no_end() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start_with_files(&home, FILES).await;
    child.api.register(instances("web", 1..2)).await.expect("registered");
    for address in [child.addresses.xds, child.addresses.grpc, child.addresses.http] {
        let mut held = Vec::new();
        for _ in 0..2 * FILES {
            held.push(within("a connection", TcpStream::connect(address)).await.expect("it waits to be accepted"));
        }
        // Known connections are served: the channel of this client.
        let before = child.processor_time();
        for _ in 0..20 {
            child.api.register(instances("web", 1..2)).await.expect("said again");
            tokio::time::sleep(MEASURED / 20).await;
        }
        let used = child.processor_time() - before;
        println!("out of files for {MEASURED:?}: {used:?} of processor time");
        assert!(used < MEASURED / 2, "it spins: {used:?} of processor time in {MEASURED:?}");
        drop(held);
        until("service", async || {
            child.assert_running();
            TcpStream::connect(address).await.ok()
        })
        .await;
        child.api.http.get("/v1/services").await.ok();
        let health = tonic_health::pb::HealthCheckRequest::default();
        for address in [child.addresses.xds, child.addresses.grpc] {
            let channel = crate::support::ads::connect(address).await;
            let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
            within("health", client.check(health.clone())).await.expect("serving");
        }
    }
}
