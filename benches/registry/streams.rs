//! Heartbeats over gRPC streams: each on a connection of its own, with so many messages under way.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use convoy_client::proto::{HeartbeatRequest, HeartbeatResponse, LeaseHeartbeat, LeaseOutcome};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::http2::Connection;

const WINDOW: u32 = 16 * 1024 * 1024;

/// A gRPC message that renews these leases.
pub fn heartbeat(leases: &[String]) -> Vec<u8> {
    let beat = |lease: &String| LeaseHeartbeat { lease: lease.clone(), ..LeaseHeartbeat::default() };
    let body = HeartbeatRequest { leases: leases.iter().map(beat).collect() }.encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&(body.len() as u32).to_be_bytes());
    message.extend_from_slice(&body);
    message
}

/// Sends each stream's message again and again, `depth` under way on each; how many were answered in a second.
pub async fn rate(server: SocketAddr, messages: Vec<Vec<u8>>, depth: usize, time: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let tasks: Vec<_> =
        messages.into_iter().map(|message| tokio::spawn(one(server, message, depth, begun, time))).collect();
    let mut answers = 0;
    for task in tasks {
        answers += task.await??;
    }
    Ok(answers as f64 / begun.elapsed().as_secs_f64())
}

async fn one(
    server: SocketAddr,
    message: Vec<u8>,
    depth: usize,
    begun: Instant,
    time: Duration,
) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut call = Connection::open("/convoy.v1.Registry/StreamHeartbeats", "convoy", WINDOW);
    (0..depth).for_each(|_| call.send(&message));
    let (mut buffer, mut answers, mut counted) = (vec![0; 64 * 1024], Vec::new(), 0);
    while begun.elapsed() < time {
        stream.write_all(&call.out).await?;
        call.out.clear();
        let read = stream.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        call.receive(&buffer[..read], |data| answers.extend_from_slice(data))?;
        let mut at = 0;
        while let Some(head) = answers.get(at..at + 5) {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(answer) = answers.get(at + 5..at + 5 + length) else { break };
            if counted == 0 {
                let statuses = HeartbeatResponse::decode(answer)?.leases;
                let kept = statuses.iter().all(|status| status.outcome() == LeaseOutcome::Kept);
                anyhow::ensure!(kept && !statuses.is_empty(), "a lease is not kept: {statuses:?}");
            }
            at += 5 + length;
            counted += 1;
            call.send(&message);
        }
        answers.drain(..at);
    }
    Ok(counted)
}
