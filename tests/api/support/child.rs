//! The real binary as a child process: to be killed, and to be measured.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStderr, Command},
    sync::oneshot,
};

use super::{api::Api, server::Addresses, within};

/// Lines of log that are kept to show when a test fails.
const KEPT_LINES: usize = 50;

/// Where a child keeps its data and its configuration, over restarts.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

impl Home {
    /// `settings` are lines of YAML. Where they do not say where to listen, that is on loopback, on any port.
    pub fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = ["http_address", "grpc_address", "xds_address"].iter().filter(|port| !settings.contains(**port));
        let addresses: String = ports.map(|port| format!("{port}: 127.0.0.1:0\n")).collect();
        let log = "log: warn,convoy::server=info\nlog_json: true\n";
        // Most tests have a single instance, and would see it kept.
        let brake = if settings.contains("brake:") { "" } else { "brake: {enabled: false}\n" };
        let data = format!("data_dir: {}\n", directory.path().join("data").display());
        std::fs::write(directory.path().join("convoy.yaml"), [&addresses, log, brake, &data, settings].concat())
            .expect("written");
        Self { directory }
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("convoy.yaml")
    }

    /// Where the store is.
    #[allow(dead_code, reason = "for the tests in the field")]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts a Convoy that must not start; what it says on standard error.
    #[allow(dead_code, reason = "for the tests in the field")]
    pub async fn refuses(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.env_clear().args(["serve", "--config"]).arg(self.config()).kill_on_drop(true);
        let output = within("the end of a start", command.output()).await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    pub addresses: Addresses,
    pub api: Api,
    process: tokio::process::Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Child {
    pub async fn start(home: &Home) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_convoy")), &home.config()).await
    }

    /// With these in its environment.
    pub async fn start_with(home: &Home, environment: [(&'static str, PathBuf); 2]) -> Self {
        let mut command = Command::new("env");
        for (name, value) in environment {
            command.arg(format!("{name}={}", value.display()));
        }
        command.arg(env!("CARGO_BIN_EXE_convoy"));
        Self::run(command, &home.config()).await
    }

    /// In a network namespace.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub async fn start_in(home: &Home, namespace: &str) -> Self {
        let mut command = Command::new("env");
        // `ip` may be where only root looks.
        command.arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()));
        command.args(["ip", "netns", "exec", namespace, env!("CARGO_BIN_EXE_convoy")]);
        Self::run(command, &home.config()).await
    }

    /// With at most so many open files.
    pub async fn start_with_files(home: &Home, files: u32) -> Self {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_convoy")]);
        Self::run(command, &home.config()).await
    }

    async fn run(mut command: Command, config: &Path) -> Self {
        command.env_clear().args(["serve", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("the binary runs");
        let stderr = process.stderr.take().expect("it is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (serving, addresses) = oneshot::channel();
        tokio::spawn(read_log(stderr, log.clone(), serving));
        let Ok(addresses) = within("Convoy's start", addresses).await else {
            panic!("it has ended: {:?}", log.lock().expect("a log"));
        };
        Self { addresses, api: Api::new(addresses), process, log }
    }

    /// `kill -9`, and its end.
    pub async fn kill(&mut self) {
        within("the child's end", self.process.kill()).await.expect("killed");
    }

    /// Stops it as a debugger would, or lets it go on.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?));
        rustix::process::kill_process(id.expect("it runs"), signal).expect("signalled");
    }

    pub fn assert_running(&mut self) {
        let ended = self.process.try_wait().expect("a status");
        assert!(ended.is_none(), "Convoy has ended ({ended:?}): {:#?}", self.log.lock().expect("a log"));
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process.id().expect("it runs"));
        let stat = std::fs::read_to_string(path).expect("a process");
        let (_, fields) = stat.rsplit_once(") ").expect("a command's name");
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        // A hundred a second on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, in MiB.
    pub fn memory_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    /// The most that it has ever been, in MiB.
    #[allow(dead_code, reason = "for the tests of storms")]
    pub fn peak_memory_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().expect("it runs"));
        let status = std::fs::read_to_string(path).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024
    }
}

/// Keeps the last lines, and tells the addresses when they are logged.
async fn read_log(stderr: ChildStderr, log: Arc<Mutex<Vec<String>>>, serving: oneshot::Sender<Addresses>) {
    let mut serving = Some(serving);
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(addresses) = addresses(&line)
            && let Some(serving) = serving.take()
        {
            // The test may have given up.
            let _ = serving.send(addresses);
        }
        let mut log = log.lock().expect("nobody panics with it");
        log.push(line);
        let over = log.len().saturating_sub(KEPT_LINES);
        log.drain(..over);
    }
}

fn addresses(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    let address = |name: &str| -> Option<SocketAddr> { fields.get(name)?.as_str()?.parse().ok() };
    Some(Addresses { http: address("http")?, grpc: address("grpc")?, xds: address("xds")? })
}
