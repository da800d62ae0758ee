//! A server under test, as a child process: Convoy or the floor. It is started on free ports, asked for its CPU time and
//! memory, and ended by its handle.

use std::{
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use convoy_client::Client;

use crate::machine;

/// Below the range of outgoing connections, so that no stream takes a port before its server does.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How long it may take to start, or to come to rest.
const START: Duration = Duration::from_secs(120);
/// A server that uses less than this of such a time has nothing left to do.
const QUIET_SPAN: Duration = Duration::from_millis(10);
const QUIET_USE: Duration = Duration::from_millis(1);

/// A file in the `target` directory.
pub fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name)
}

/// A directory for what a run needs; it goes with the run.
pub fn directory() -> anyhow::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fanout-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store<'a> {
    Memory,
    Redb(&'a Path),
    /// These members.
    Etcd(&'a [String]),
}

#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where the registry is called.
    pub registry: SocketAddr,
    pub xds: SocketAddr,
    pub client: Client,
}

impl Server {
    pub async fn convoy(store: Store<'_>) -> anyhow::Result<Self> {
        let server = Self::launch_convoy(store)?;
        server.listens().await?;
        Ok(server)
    }

    /// Starts Convoy and does not wait for it.
    pub fn launch_convoy(store: Store<'_>) -> anyhow::Result<Self> {
        let [http, registry, xds] = free_addresses()?;
        let config = directory()?.join(format!("convoy-{}.yaml", http.port()));
        let etcd = match store {
            Store::Etcd(endpoints) => format!("etcd: {{endpoints: [{}]}}\n", endpoints.join(", ")),
            Store::Memory | Store::Redb(_) => String::new(),
        };
        // All is known from the start on: there is nobody who could come back.
        std::fs::write(&config, format!("settle: 0s\nlog: warn\n{etcd}"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.arg("serve").arg("--config").arg(config);
        for (name, address) in [("http", http), ("grpc", registry), ("xds", xds)] {
            command.arg(format!("--{name}-address={address}"));
        }
        match store {
            Store::Memory => command.arg("--storage=memory"),
            Store::Redb(directory) => command.arg("--storage=redb").arg("--data-dir").arg(directory),
            Store::Etcd(_) => command.arg("--storage=etcd"),
        };
        Self::launch(command, registry, xds)
    }

    /// Starts the floor with the answers in a file; with a file to commit to, it commits before it writes.
    pub async fn floor(answers: &Path, commit: Option<&Path>) -> anyhow::Result<Self> {
        let [address] = free_addresses()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--floor").arg(address.to_string()).arg(answers);
        command.args(commit);
        let server = Self::launch(command, address, address)?;
        server.listens().await?;
        Ok(server)
    }

    fn launch(mut command: Command, registry: SocketAddr, xds: SocketAddr) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(target("fanout-servers.log"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.with_context(|| format!("{command:?} does not start"))?;
        Ok(Self { child, registry, xds, client: Client::new(&registry.to_string())? })
    }

    /// Waits until it takes connections.
    pub async fn listens(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        for address in [self.registry, self.xds] {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                anyhow::ensure!(begun.elapsed() < START, "a server does not listen on {address}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }

    /// The CPU time of all its threads, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        // A thread may have ended meanwhile.
        Ok(threads.flatten().filter_map(|thread| machine::cpu(&thread.path()).ok()).sum())
    }

    /// Waits until it has nothing left to do; answers its CPU time.
    pub async fn quiet(&self) -> anyhow::Result<Duration> {
        Ok(self.rest().await?.0)
    }

    /// The same, and since when it has nothing to do, to a `QUIET_SPAN`.
    pub async fn rest(&self) -> anyhow::Result<(Duration, Instant)> {
        let begun = Instant::now();
        let (mut before, mut since) = (self.cpu()?, begun);
        loop {
            tokio::time::sleep(QUIET_SPAN).await;
            let now = self.cpu()?;
            if now.saturating_sub(before) < QUIET_USE {
                return Ok((now, since));
            }
            anyhow::ensure!(begun.elapsed() < START, "a server does not come to rest");
            (before, since) = (now, Instant::now());
        }
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no Rss in smaps_rollup")?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }

    /// Ends it as a service manager does, and waits until it is gone.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        // Not in one wait: our connections to it end in this thread.
        while self.child.try_wait()?.is_none() {
            tokio::time::sleep(QUIET_SPAN).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    while held.len() < N {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(PORTS)));
        held.extend(TcpListener::bind(address));
    }
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("as many as were asked for"))
}
