//! What the tests take from the machine: its processor, ports, and processes that end with the test.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many tests run at once: an Envoy and its load keep a core busy, and starved of it they measure the machine.
const SHARES: u32 = 2;
static PROCESSOR: Semaphore = Semaphore::const_new(SHARES as usize);
/// Below every system's range for outgoing connections, so that none takes a port while its server is restarted.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const LOG_LINES: usize = 60;

/// A test's turn.
pub async fn share() -> SemaphorePermit<'static> {
    PROCESSOR.acquire().await.expect("never closed")
}

/// The turn of a test that measures times: no other runs meanwhile.
pub async fn alone() -> SemaphorePermit<'static> {
    PROCESSOR.acquire_many(SHARES).await.expect("never closed")
}

/// An address that nobody listens on, and that no other call gets.
pub fn free_address() -> SocketAddr {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1_000 {
        let port = rand::random_range(PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && TAKEN.lock().expect("nobody panics with it").insert(port) {
            return address;
        }
    }
    panic!("no free port from {PORTS:?}")
}

/// A child process with its output in a file. Dropping it kills it; if the test has failed, its last lines are printed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process whose standard error, and output unless the command says otherwise, go to `NAME.log`.
    pub fn spawn(name: &str, directory: &Path, command: &mut Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let also = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(also).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Self { name: name.to_owned(), child, log }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// Stops it as a debugger would, or lets it go on.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("our child");
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        // Only one that has ended cannot be killed.
        let _ = self.child.kill();
        self.child.wait().expect("our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended();
        self.kill();
        if std::thread::panicking() {
            let text = std::fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            eprintln!("--- {} (ended before the test: {ended:?}), the last of its log:\n{last}\n---", self.name);
        }
    }
}
