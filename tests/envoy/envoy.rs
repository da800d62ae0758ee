//! A real Envoy: started with what `convoy bootstrap` prints, looked into through its admin interface.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    convoy::Convoy,
    http::{Answer, Connection},
    machine::{Process, free_address},
    wait::{PATIENCE, until},
};

pub const SOTW: &str = "--sotw";
pub const DELTA: &str = "--delta";

/// A host of a cluster, as `/clusters` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub weight: u64,
    /// `HEALTHY` or `DRAINING`, as the assignment says.
    pub health: String,
}

pub type Hosts = BTreeMap<SocketAddr, Host>;

pub struct Envoy {
    pub node: String,
    pub outbound: SocketAddr,
    admin: Mutex<Connection>,
    _process: Process,
    // Last: its files are in use until the process has ended.
    _directory: TempDir,
}

impl Envoy {
    /// Starts one that asks in a dialect, and waits until it serves.
    pub async fn start(convoy: &Convoy, dialect: &str) -> Self {
        let envoy = Self::launch(convoy, &[dialect], free_address()).await;
        envoy.serves().await;
        envoy
    }

    /// One that follows no route's retry policy: Envoy's own switch, over the bootstrap, with everything else the same.
    pub async fn start_without_retries(convoy: &Convoy, dialect: &str) -> Self {
        let runtime = "layered_runtime: {layers: [{name: test, static_layer: {upstream: {use_retry: 0}}}]}";
        let envoy = Self::run(convoy, &[dialect], free_address(), &["--config-yaml", runtime]).await;
        envoy.serves().await;
        envoy
    }

    /// One with a word more in its node's metadata, over the bootstrap.
    pub async fn start_with_metadata(convoy: &Convoy, dialect: &str, name: &str, value: &str) -> Self {
        let node = serde_json::json!({ "node": { "metadata": { name: value } } }).to_string();
        let envoy = Self::run(convoy, &[dialect], free_address(), &["--config-yaml", &node]).await;
        envoy.serves().await;
        envoy
    }

    /// Starts one with arguments for the bootstrap, and waits until its admin interface answers.
    pub async fn launch(convoy: &Convoy, arguments: &[&str], outbound: SocketAddr) -> Self {
        Self::run(convoy, arguments, outbound, &[]).await
    }

    async fn run(convoy: &Convoy, arguments: &[&str], outbound: SocketAddr, options: &[&str]) -> Self {
        let binary = binary();
        let directory = tempfile::tempdir().expect("a directory");
        let admin = free_address();
        let node = format!("envoy-{}", admin.port());
        let (xds, listens, administered) = (convoy.xds.to_string(), outbound.to_string(), admin.to_string());
        let bootstrap = ["bootstrap", "--node", &node, "--xds-address", &xds, "--outbound-address", &listens];
        let bootstrap = [&bootstrap[..], &["--admin-address", &administered], arguments].concat();
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, convoy.run(&bootstrap).await).expect("a bootstrap");
        let mut command = Command::new(binary);
        // Several Envoys on one machine must not take each other for their predecessor.
        command.arg("--config-path").arg(file).args(["--disable-hot-restart", "--concurrency", "2"]);
        command.args(["--log-level", "warning", "--component-log-level", "upstream:info,config:info"]).args(options);
        let mut process = Process::spawn(&node, directory.path(), &mut command);
        let mut connection = Connection::new(admin);
        until("Envoy's admin interface answers", PATIENCE, async || {
            if let Some(status) = process.ended() {
                panic!("Envoy has ended: {status}");
            }
            connection.get("admin", "/ready").await.map(drop)
        })
        .await;
        Self { node, outbound, admin: Mutex::new(connection), _process: process, _directory: directory }
    }

    /// Waits until Envoy is initialized and the outbound listener takes connections.
    pub async fn serves(&self) {
        until("Envoy is live", PATIENCE, async || {
            let answer = self.admin("/ready").await;
            if answer.status.is_success() { Ok(()) } else { Err(answer.body) }
        })
        .await;
        let mut connection = Connection::new(self.outbound);
        until("the outbound listener answers", PATIENCE, async || {
            connection.get("nobody.nowhere", "/").await.map(drop)
        })
        .await;
    }

    pub async fn admin(&self, path: &str) -> Answer {
        self.admin.lock().await.get("admin", path).await.expect("the admin interface answers")
    }

    /// The hosts of a cluster; none if there is no such cluster.
    pub async fn hosts(&self, cluster: &str) -> Option<Hosts> {
        let answer = self.admin("/clusters?format=json").await.json();
        let clusters = answer["cluster_statuses"].as_array()?;
        let cluster = clusters.iter().find(|status| status["name"] == cluster)?;
        let hosts = cluster["host_statuses"].as_array().cloned().unwrap_or_default();
        Some(hosts.iter().map(host).collect())
    }

    /// Waits until a cluster's hosts are as wanted, and answers with them.
    pub async fn sees(&self, cluster: &str, what: &str, wanted: impl Fn(&Hosts) -> bool) -> Hosts {
        until(what, PATIENCE, async || {
            let hosts = self.hosts(cluster).await.unwrap_or_default();
            if wanted(&hosts) { Ok(hosts) } else { Err(format!("{hosts:?}")) }
        })
        .await
    }

    /// The counters and gauges whose name matches a regular expression.
    pub async fn stats(&self, filter: &str) -> BTreeMap<String, u64> {
        let answer = self.admin(&format!("/stats?filter={filter}")).await;
        let stat = |line: &str| line.rsplit_once(": ").and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
        answer.body.lines().filter_map(stat).collect()
    }

    /// One counter or gauge; 0 before it exists.
    pub async fn stat(&self, name: &str) -> u64 {
        self.stats(&name.replace('.', "[.]")).await.get(name).copied().unwrap_or_default()
    }

    /// Envoy has accepted everything that it was sent.
    pub async fn has_rejected_nothing(&self) {
        let rejected = self.stats("update_rejected").await;
        for of in ["cluster_manager.cds", "listener_manager.lds", "http.outbound.rds", "cluster."] {
            assert!(rejected.keys().any(|name| name.starts_with(of)), "no counter of {of} in {rejected:?}");
        }
        let rejected: Vec<_> = rejected.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(rejected, [], "{}", self.node);
    }
}

fn host(status: &Value) -> (SocketAddr, Host) {
    let address = &status["address"]["socket_address"];
    let ip = address["address"].as_str().and_then(|ip| ip.parse().ok()).expect("an IP address");
    let port = address["port_value"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    let health = status["health_status"]["eds_health_status"].as_str().unwrap_or_default().to_owned();
    (SocketAddr::new(ip, port), Host { weight: status["weight"].as_u64().unwrap_or_default(), health })
}

/// The Envoy of this machine, found or installed once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/envoy/get-envoy.sh");
        let output = Command::new("bash").arg(script).output().map_err(|error| format!("bash: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout).into()) } else { Err(text(&output.stderr)) }
    };
    match BINARY.get_or_init(find) {
        Ok(path) => path,
        Err(error) => panic!("these tests need a real Envoy, and there is none:\n{error}"),
    }
}
