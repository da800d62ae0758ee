//! Active checks of instances that are really there: out of the endpoints when they fail, and back; removed if so asked.

use std::{net::SocketAddr, sync::Arc, sync::atomic::AtomicU16, sync::atomic::Ordering::Relaxed};

use convoy_client::proto::{Protocol, Registration};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    sample::{call, port},
    server::Convoy,
    until,
};

const WEB: &str = "/v1/namespaces/default/services/web";

/// An HTTP server whose status can be set, registered as an instance.
struct Instance {
    id: String,
    address: SocketAddr,
    status: Arc<AtomicU16>,
}

impl Instance {
    async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, status) = (listener.local_addr().expect("an address"), Arc::new(AtomicU16::new(200)));
        let said = status.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4096];
                // A probe that was broken off is none of ours.
                let _ = stream.read(&mut asked).await;
                let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", said.load(Relaxed));
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { id: id.into(), address, status }
    }

    fn registration(&self) -> Registration {
        Registration {
            service: "web".into(),
            id: self.id.clone(),
            address: self.address.ip().to_string(),
            ports: vec![port("http", self.address.port().into(), Protocol::Http)],
            ..Default::default()
        }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Relaxed);
    }
}

async fn three() -> [Instance; 3] {
    [Instance::start("a").await, Instance::start("b").await, Instance::start("c").await]
}

/// Makes the service with this check, and registers them.
async fn checked(convoy: &Convoy, check: Value, instances: &[Instance; 3]) {
    let ports = json!([{"name": "http", "protocol": "http", "port": 80}]);
    convoy.api.http.put(WEB, &json!({"ports": ports, "checks": {"checks": [check]}})).await.ok();
    let registered = convoy.api.register(call(instances.iter().map(Instance::registration))).await.expect("registered");
    let verdicts: Vec<_> =
        registered.instances.iter().map(|instance| instance.health.clone().expect("health").verdict).collect();
    assert_eq!(verdicts, [1; 3], "until they are found well they are starting");
}

async fn health(convoy: &Convoy, id: &str) -> Value {
    convoy.api.http.get(&format!("{WEB}/instances/{id}")).await.ok()["health"].clone()
}

async fn until_verdict(convoy: &Convoy, id: &str, verdict: &str) -> Value {
    until(&format!("{id} is {verdict}"), async || {
        Some(health(convoy, id).await).filter(|health| health["verdict"] == verdict)
    })
    .await
}

fn check() -> Value {
    json!({"name": "ready", "interval": "1s", "jitter_percent": 0, "unhealthy": {"count": 2},
        "http": {"path": "/healthz", "degraded_statuses": ["429"]}})
}

#[tokio::test]
async fn an_instance_that_fails_is_out_of_traffic_and_comes_back() {
    let (convoy, instances) = (Convoy::start().await, three().await);
    checked(&convoy, check(), &instances).await;
    for instance in &instances {
        until_verdict(&convoy, &instance.id, "healthy").await;
    }
    instances[0].says(503);
    let unhealthy = until_verdict(&convoy, "a", "unhealthy").await;
    assert_eq!(unhealthy["reason"], "check ready is failing: 503 Service Unavailable");
    let axis = unhealthy["axes"].as_array().expect("axes").iter().find(|axis| axis["axis"] == "check/ready").cloned();
    assert_eq!(axis.expect("the check's")["state"], "failing");
    assert_eq!(convoy.api.ids("web").await, ["a", "b", "c"], "it stays registered");
    instances[0].says(429);
    until_verdict(&convoy, "a", "degraded").await;
    instances[0].says(200);
    until_verdict(&convoy, "a", "healthy").await;
    for other in ["b", "c"] {
        assert_eq!(health(&convoy, other).await["verdict"], "healthy");
    }
    let metrics = convoy.api.http.get("/metrics").await.text;
    assert!(metrics.contains("convoy_check_targets 3"), "{metrics}");
    assert!(metrics.contains("convoy_check_transitions_total{status=\"failing\"} 1"), "{metrics}");

    // Without its checks a service's instances are what their agents say.
    instances[1].says(503);
    until_verdict(&convoy, "b", "unhealthy").await;
    let put = convoy.api.http.put(WEB, &json!({"checks": {"checks": []}})).await.ok();
    assert_eq!(put["service"].get("checks"), None);
    let well = until_verdict(&convoy, "b", "healthy").await;
    assert_eq!(well["axes"].as_array().map(Vec::len), Some(2), "nothing is left of it: {well}");
}

#[tokio::test]
async fn a_liveness_check_that_goes_on_failing_deregisters() {
    let (convoy, instances) = (Convoy::start().await, three().await);
    let mut liveness = check();
    (liveness["kind"], liveness["deregister_after"]) = (json!("liveness"), json!("2s"));
    checked(&convoy, liveness, &instances).await;
    for instance in &instances {
        until_verdict(&convoy, &instance.id, "healthy").await;
    }
    instances[1].says(500);
    until_verdict(&convoy, "b", "unhealthy").await;
    let failing = std::time::Instant::now();
    until("b is gone", async || (convoy.api.ids("web").await == ["a", "c"]).then_some(())).await;
    let after = failing.elapsed().as_millis();
    assert!(after > 1_500, "not before its time: after {after} ms");
    let metrics = convoy.api.http.get("/metrics").await.text;
    assert!(metrics.contains("convoy_removals_total{reason=\"evicted\"} 1"), "{metrics}");

    // It may come back, and has to be found well again.
    instances[1].says(200);
    convoy.api.register(call([instances[1].registration()])).await.expect("the same incarnation");
    until_verdict(&convoy, "b", "healthy").await;
}

#[tokio::test]
async fn a_check_that_is_added_takes_nobody_out_who_is_in_traffic() {
    let (convoy, instances) = (Convoy::start().await, three().await);
    convoy.api.register(call(instances.iter().map(Instance::registration))).await.expect("registered");
    let added = convoy.api.http.put(WEB, &json!({"checks": {"checks": [check()]}})).await.ok();
    let shown = &added["service"]["checks"]["checks"][0];
    assert_eq!(
        (&shown["name"], &shown["timeout"], &shown["kind"]),
        (&json!("ready"), &json!("1s"), &json!("readiness"))
    );
    for instance in &instances {
        until(&format!("{} is probed", instance.id), async || {
            let health = health(&convoy, &instance.id).await;
            assert_eq!(health["verdict"], "healthy");
            health["axes"].as_array()?.iter().any(|axis| axis["state"] == "passing").then_some(())
        })
        .await;
    }
    let again = convoy.api.http.put(WEB, &json!({"checks": added["service"]["checks"]})).await.ok();
    for same in ["checks", "revision"] {
        assert_eq!(again["service"][same], added["service"][same], "what is shown can be put, and changes nothing");
    }
}

#[tokio::test]
async fn addresses_that_are_closed_are_not_probed() {
    let convoy = Convoy::with(|config| config.checks.loopback = false).await;
    let instances = three().await;
    checked(&convoy, check(), &instances).await;
    until("it is said why", async || {
        let reason = health(&convoy, "a").await["reason"].as_str()?.to_owned();
        reason.contains("127.0.0.1 may not be probed: it is a loopback address").then_some(())
    })
    .await;
    assert_eq!(health(&convoy, "a").await["verdict"], "starting", "unknown is not well");
}

#[tokio::test]
async fn without_checks_nobody_waits_for_them() {
    let convoy = Convoy::with(|config| config.checks.enabled = false).await;
    let instances = three().await;
    checked(&convoy, check(), &instances).await;
    instances[0].says(503);
    until_verdict(&convoy, "a", "healthy").await;
}

/// Else half a fleet would go for what is wrong with Convoy's own network.
#[tokio::test]
async fn when_nearly_all_fail_those_that_failed_first_are_suspects_as_well() {
    let (convoy, instances) = (Convoy::start().await, three().await);
    let check = json!({"name": "alive", "interval": "1s", "jitter_percent": 0, "healthy": {"count": 1}, "unhealthy": {"count": 1}, "http": {"path": "/"}});
    checked(&convoy, check, &instances).await;
    for id in ["a", "b", "c"] {
        until_verdict(&convoy, id, "healthy").await;
    }
    instances[0].says(500);
    until_verdict(&convoy, "a", "unhealthy").await;
    instances[1].says(500);
    until_verdict(&convoy, "b", "unhealthy").await;
    instances[2].says(500);
    for id in ["a", "b", "c"] {
        until_verdict(&convoy, id, "suspect").await;
    }
    // One that is well again makes the others' failures their own.
    instances[0].says(200);
    until_verdict(&convoy, "a", "healthy").await;
    for id in ["b", "c"] {
        until_verdict(&convoy, id, "unhealthy").await;
    }
}
