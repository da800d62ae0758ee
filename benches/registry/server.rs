//! A server under test, as a child process: Convoy or the empty handlers. It ends with its handle.

use std::{
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::machine;

/// Below the range of outgoing connections, so that no client takes a port before its server does.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Server {
    child: Child,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

impl Server {
    pub async fn convoy() -> anyhow::Result<Self> {
        let [http, grpc, xds] = free_addresses()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.args(["serve", "--storage=memory", "--log=warn"]);
        for (name, address) in [("http", http), ("grpc", grpc), ("xds", xds)] {
            command.arg(format!("--{name}-address={address}"));
        }
        Self::launch(command, http, grpc).await
    }

    pub async fn floor(threads: Option<usize>) -> anyhow::Result<Self> {
        let [http, grpc] = free_addresses()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--floor").arg(http.to_string()).arg(grpc.to_string());
        command.args(threads.map(|threads| format!("--floor-threads={threads}")));
        Self::launch(command, http, grpc).await
    }

    async fn launch(mut command: Command, http: SocketAddr, grpc: SocketAddr) -> anyhow::Result<Self> {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("registry-servers.log");
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let server = Self { child: child.with_context(|| format!("{command:?} does not start"))?, http, grpc };
        let begun = Instant::now();
        for address in [http, grpc] {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                anyhow::ensure!(begun.elapsed() < START, "a server does not listen on {address}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(server)
    }

    /// The CPU time of all its threads, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        // A thread may have ended meanwhile.
        Ok(threads.flatten().filter_map(|thread| machine::cpu(&thread.path()).ok()).sum())
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
