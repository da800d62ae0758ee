//! Agents as they are run: `convoy agent`, a process for each instance.

use std::{
    fs::File,
    net::SocketAddr,
    ops::Range,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub const SERVICE: &str = "web";

/// What is said to every agent of a fleet.
#[derive(Clone, Debug)]
pub struct Orders {
    pub ttl: Duration,
    /// How long one that is told to stop drains.
    pub drain_time: Duration,
    /// The network namespace to run in, if not that of the test.
    pub namespace: Option<String>,
}

impl Orders {
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl, drain_time: Duration::ZERO, namespace: None }
    }
}

/// Processes by number. Dropping it kills all; if the test has failed, the last words of each are printed.
#[derive(Debug)]
pub struct Fleet {
    agents: Vec<(u32, Child)>,
    server: SocketAddr,
    orders: Orders,
    logs: TempDir,
}

/// The id of the agent with this number.
pub fn id(number: u32) -> String {
    format!("{SERVICE}-{number}")
}

pub fn ids(numbers: Range<u32>) -> Vec<String> {
    let mut ids: Vec<_> = numbers.map(id).collect();
    ids.sort_unstable();
    ids
}

impl Fleet {
    /// None yet; they talk to the gRPC port of a Convoy.
    pub fn of(server: SocketAddr, orders: Orders) -> Self {
        let logs = tempfile::tempdir().expect("a directory");
        Self { agents: Vec::new(), server, orders, logs }
    }

    pub fn start(&mut self, numbers: Range<u32>) {
        for number in numbers {
            let agent = self.spawn(number);
            self.agents.push((number, agent));
        }
    }

    fn spawn(&self, number: u32) -> Child {
        let convoy = env!("CARGO_BIN_EXE_convoy");
        let mut command = match &self.orders.namespace {
            // It becomes what it is told to run, so that the process is the agent's.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, convoy]);
                command
            }
            None => Command::new(convoy),
        };
        // What the shell that runs the tests has set for its own Convoy is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CONVOY_") {
                command.env_remove(name);
            }
        }
        let [_, high, middle, low] = number.to_be_bytes();
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        let log = File::create(self.log(number)).expect("a log");
        command
            .args(["agent", "--server", &format!("http://{}", self.server), "--service", SERVICE, "--id", &id(number)])
            .args(["--port", "http:8080/http", "--address", &format!("10.{high}.{middle}.{low}")])
            .args(["--ttl", &milliseconds(self.orders.ttl), "--drain-time", &milliseconds(self.orders.drain_time)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("{error}: {command:?}"))
    }

    fn log(&self, number: u32) -> std::path::PathBuf {
        self.logs.path().join(id(number))
    }

    /// Sends a signal to some of those that have not been killed.
    pub fn signal(&self, numbers: Range<u32>, signal: Signal) {
        for (_, agent) in self.agents.iter().filter(|(number, _)| numbers.contains(number)) {
            let pid = Pid::from_raw(agent.id().try_into().expect("an id")).expect("not 0");
            kill_process(pid, signal).expect("it runs, or has not been waited for");
        }
    }

    /// The numbers of those that have ended by themselves.
    pub fn ended(&mut self) -> Vec<u32> {
        let ended = |(number, agent): &mut (u32, Child)| agent.try_wait().expect("our child").map(|_| *number);
        self.agents.iter_mut().filter_map(ended).collect()
    }

    /// `kill -9`, all of them before the first is waited for.
    pub fn kill(&mut self, numbers: Range<u32>) {
        self.signal(numbers.clone(), Signal::KILL);
        for (_, agent) in self.agents.iter_mut().filter(|(number, _)| numbers.contains(number)) {
            agent.wait().expect("our child");
        }
        self.agents.retain(|(number, _)| !numbers.contains(number));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let numbers: Vec<u32> = self.agents.iter().map(|(number, _)| *number).collect();
        for (_, agent) in &mut self.agents {
            // Only one that has ended cannot be killed.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            for number in numbers {
                let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
                eprintln!("{}: {}", id(number), log.lines().last().unwrap_or("says nothing"));
            }
        }
    }
}
