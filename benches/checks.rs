//! What ten thousand checked instances cost: the processor time of the thread that probes, from scheduling to the sockets,
//! with the targets on this machine (another thread). `cargo bench --bench checks [-- TARGETS SECONDS]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use convoy::{
    config::{Config, StorageKind},
    model::{Incarnation, Limits, ServicePatch, parse},
    server::Server,
};
use convoy_client::proto;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// The kernel's unit of processor time.
const TICKS_A_SECOND: f64 = 100.0;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo bench` says `--bench`.
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (targets, seconds) = (numbers.first().map_or(10_000, |n| *n as u32), numbers.get(1).copied().unwrap_or(30));
    let listener = listen()?;
    println!(
        "| probe | targets | interval | all known after | probes/s | in traffic | processor of the probing thread |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let http = proto::Check {
        http: Some(proto::HttpProbe { path: "/healthz".into(), ..Default::default() }),
        ..Default::default()
    };
    let tcp = proto::Check { tcp: Some(proto::TcpProbe::default()), ..Default::default() };
    for (kind, check) in [("TCP", tcp), ("HTTP", http)] {
        measure(kind, check, targets, seconds, listener).await?;
    }
    Ok(())
}

async fn measure(
    kind: &str,
    check: proto::Check,
    targets: u32,
    seconds: u64,
    listener: SocketAddr,
) -> anyhow::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        http_address: any,
        grpc_address: any,
        xds_address: any,
        storage: StorageKind::Memory,
        settle: Duration::ZERO,
        ..Config::default()
    };
    let server = Server::start(config).await?;
    let limits = Limits::default();
    let port = proto::ServicePort { name: "tcp".into(), protocol: 0, port: 80 };
    let checks = Some(proto::Checks { checks: vec![check] });
    let put = proto::PutServiceRequest { ports: vec![port], checks, ..Default::default() };
    let patch: ServicePatch = parse::service(&put, &limits)?;
    server.registry().put_service(parse::service_key("", "web")?, patch).await?;
    let begun = Instant::now();
    for first in (0..targets).step_by(50) {
        let registration = |number: u32| {
            // Each has an address of its own, all of this machine.
            let address = IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number));
            let port = proto::Port { name: "tcp".into(), port: listener.port().into(), protocol: 0 };
            let from = proto::Registration {
                service: "web".into(),
                id: format!("web-{number}"),
                address: address.to_string(),
                ports: vec![port],
                ..Default::default()
            };
            parse::registration(from, None, &limits)
        };
        let instances = (first..targets.min(first + 50)).map(registration).collect::<Result<Vec<_>, _>>()?;
        let ttl = Some(Duration::from_secs(3600));
        server.registry().register(None, ttl, Some(Incarnation(1)), instances).await?;
    }
    let healthy = || server.registry().snapshot().services.values().map(|service| service.healthy()).sum::<usize>();
    while healthy() < targets as usize && begun.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let known = begun.elapsed();
    // What is new is probed at once; the measurement is of what comes after.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (cpu, probes, begun) = (cpu_of("checks")?, probes(server.http_address()).await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = begun.elapsed().as_secs_f64();
    let rate = (self::probes(server.http_address()).await? - probes) / took;
    let share = (cpu_of("checks")? - cpu) / took * 100.0;
    println!(
        "| {kind} | {targets} | 10 s | {:.1} s | {rate:.0} | {} | {share:.1} % of a core |",
        known.as_secs_f64(),
        healthy()
    );
    server.stop().await;
    Ok(())
}

/// Accepts on a thread of its own, and answers whoever asks.
fn listen() -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _on = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        Arc::new(socket.listen(4096)?)
    };
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("targets".into()).spawn(move || {
        runtime.block_on(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    if stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                });
            }
        });
    })?;
    Ok(address)
}

/// The processor time of the threads of this name, in seconds.
fn cpu_of(name: &str) -> anyhow::Result<f64> {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let stat = std::fs::read_to_string(path.join("stat"))?;
        // The name, in brackets, may have spaces; after it come the state and twelve numbers, then user and system time.
        let Some((before, after)) = stat.rsplit_once(')') else { continue };
        if before.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = after.split_whitespace().collect();
            ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / TICKS_A_SECOND)
}

/// How many probes have been made, as the metrics say.
async fn probes(http: SocketAddr) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(http).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: convoy\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let counts = text.lines().filter(|line| line.starts_with("convoy_probes_total{"));
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}
