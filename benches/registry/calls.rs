//! Single gRPC calls, by tonic's client: what it spends is the same for both servers, and more than they do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use convoy_client::proto::{RegisterRequest, registry_client::RegistryClient};
use tonic::transport::{Channel, Endpoint};

pub type Clients = Vec<RegistryClient<Channel>>;

pub async fn connect(server: SocketAddr, connections: usize) -> anyhow::Result<Clients> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let channel = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true).connect().await?;
        clients.push(RegistryClient::new(channel));
    }
    Ok(clients)
}

/// Calls for a while, `depth` under way on each connection; how many were answered in a second.
pub async fn rate(
    clients: &Clients,
    depth: usize,
    time: Duration,
    next: impl Fn() -> RegisterRequest + Clone + Send + 'static,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for client in clients {
        for _ in 0..depth {
            let (mut client, next) = (client.clone(), next.clone());
            tasks.push(tokio::spawn(async move {
                let mut calls = 0u64;
                while begun.elapsed() < time {
                    client.register(next()).await?;
                    calls += 1;
                }
                anyhow::Ok(calls)
            }));
        }
    }
    let mut calls = 0;
    for task in tasks {
        calls += task.await??;
    }
    Ok(calls as f64 / begun.elapsed().as_secs_f64())
}

/// Calls at a rate; how long each took since it was due.
pub async fn latencies(
    clients: &Clients,
    depth: usize,
    time: Duration,
    rate: f64,
    next: impl Fn() -> RegisterRequest + Clone + Send + 'static,
) -> anyhow::Result<Vec<Duration>> {
    let begun = tokio::time::Instant::now();
    let count = clients.len() * depth;
    let mut tasks = Vec::new();
    for number in 0..count {
        let (mut client, next) = (clients[number % clients.len()].clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            for call in 0.. {
                let due = begun + Duration::from_secs_f64((call * count + number) as f64 / rate);
                if due > begun + time {
                    break;
                }
                tokio::time::sleep_until(due).await;
                client.register(next()).await?;
                latencies.push(due.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(latencies)
}
