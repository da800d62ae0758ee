//! Calls over HTTP/1.1 keep-alive connections, one under way on each. As little of HTTP as that needs: what the load
//! generator spends on a call would hide what the server spends.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends a request and reads the answer; its body.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            anyhow::ensure!(filled < self.buffer.len(), "an answer that is too long");
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            anyhow::ensure!(read > 0, "the server closed the connection");
            filled += read;
            if let Some(body) = body(&self.buffer[..filled])? {
                return Ok(&self.buffer[body..filled]);
            }
        }
    }
}

/// Where the body begins, if the answer is whole.
fn body(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("an answer without a length")?.parse()?;
    Ok((answer.len() >= end + 4 + length).then_some(end + 4))
}

/// A request with a JSON body.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: convoy\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Calls for a while on each connection, one after the other; how many were answered in a second.
pub async fn rate(
    connections: Vec<Connection>,
    time: Duration,
    next: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static,
) -> anyhow::Result<(Vec<Connection>, f64)> {
    let begun = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, mut connection)| {
            let next = next.clone();
            tokio::spawn(async move {
                let mut calls = 0u64;
                while begun.elapsed() < time {
                    connection.call(&next(number)).await?;
                    calls += 1;
                }
                anyhow::Ok((connection, calls))
            })
        })
        .collect();
    let (mut connections, mut calls) = (Vec::new(), 0);
    for task in tasks {
        let (connection, of_task) = task.await??;
        connections.push(connection);
        calls += of_task;
    }
    Ok((connections, calls as f64 / begun.elapsed().as_secs_f64()))
}

/// Calls at a rate, spread over the connections; how long each took since it was due.
pub async fn latencies(
    connections: Vec<Connection>,
    time: Duration,
    rate: f64,
    next: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static,
) -> anyhow::Result<Vec<Duration>> {
    let (begun, count) = (tokio::time::Instant::now(), connections.len());
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, mut connection)| {
            let next = next.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for call in 0.. {
                    let due = begun + Duration::from_secs_f64((call * count + number) as f64 / rate);
                    if due > begun + time {
                        break;
                    }
                    tokio::time::sleep_until(due).await;
                    connection.call(&next(number)).await?;
                    latencies.push(due.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(latencies)
}
