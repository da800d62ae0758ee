//! Bytes that are no protocol, or another port's; and connections left half-way.

use std::{net::SocketAddr, time::Duration};

use rand::{Rng, RngExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Witness;
use crate::support::{seeded, within};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\x5d\x1a\x00\x20\x13\x01\x13\x02\x00\x00";
/// The HTTP port waits for the rest of a head: what is said to be the end of one gets an answer.
const END_OF_HEAD: &[u8] = b"\r\n\r\n\r\n\r\n";

fn ports(witness: &Witness) -> [(&'static str, SocketAddr); 3] {
    let addresses = witness.child.addresses;
    [("http", addresses.http), ("grpc", addresses.grpc), ("xds", addresses.xds)]
}

async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address)).await.expect("a connection")
}

/// Says it, and reads until the server ends the connection.
async fn say(address: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).await;
    // The server may have heard enough before all of it is said.
    let _ = stream.write_all(said).await;
    let _ = stream.shutdown().await;
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = within("the connection's end", stream.read_to_end(&mut heard)).await;
    heard
}

fn random_bytes(random: &mut impl Rng, longest: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(1..longest)];
    random.fill(&mut bytes[..]);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_end_their_connection_and_nothing_else() {
    let mut random = seeded("random_bytes_end_their_connection_and_nothing_else");
    let mut witness = Witness::start().await;
    for (name, address) in ports(&witness) {
        for _ in 0..60 {
            let mut bytes = random_bytes(&mut random, 8_192);
            // Some of it as the continuation of a good beginning.
            if random.random_bool(0.5) {
                bytes = [HTTP2_PREFACE, &bytes].concat();
            }
            say(address, &bytes).await;
        }
        witness.check(&format!("random bytes to {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ports_protocol_ends_the_connection() {
    let mut random = seeded("another_ports_protocol_ends_the_connection");
    let mut witness = Witness::start().await;
    let http1: &[u8] = b"GET /v1/services HTTP/1.1\r\nhost: convoy\r\n\r\n";
    let frame = |kind: u8, length: u32, payload: &[u8]| {
        let [_, a, b, c] = length.to_be_bytes();
        [HTTP2_PREFACE, &[a, b, c, kind, 0, 0, 0, 0, 1], payload].concat()
    };
    let sayings = [
        ("a TLS hello", TLS_HELLO.to_vec()),
        ("HTTP/1", http1.to_vec()),
        ("HTTP/2 and junk", [HTTP2_PREFACE, &random_bytes(&mut random, 512)].concat()),
        ("HTTP/2 and the longest frame there is", frame(0, 0xff_ffff, b"x")),
        ("HTTP/2 and headers that are none", frame(1, 64, &[0xff; 64])),
        ("HTTP/2 and a frame of no kind", frame(0xee, 8, &[0; 8])),
        ("a head without end", [b"GET / HTTP/1.1\r\n", &b"a: b\r\n".repeat(20_000)[..]].concat()),
        (
            "HTTP/1 of lengths that contradict",
            b"POST /v1/heartbeats HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".to_vec(),
        ),
        (
            "HTTP/1 of chunks that are none",
            b"POST /v1/heartbeats HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        ),
        (
            "HTTP/1 of a negative length",
            b"POST /v1/heartbeats HTTP/1.1\r\nhost: c\r\ncontent-length: -1\r\n\r\n".to_vec(),
        ),
    ];
    for (name, address) in ports(&witness) {
        for (what, said) in &sayings {
            let heard = say(address, &[said, END_OF_HEAD].concat()).await;
            if name == "http" && *what == "HTTP/1" {
                assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
            }
        }
        witness.check(&format!("other protocols to {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_left_half_way_cost_nobody_else_anything() {
    let mut witness = Witness::start().await;
    let beginnings: [&[u8]; 5] = [
        b"",
        b"P",
        b"POST /v1/heartbeats HTTP/1.1\r\nhost: c\r\ncontent-length: 1000000\r\n\r\n{\"leases\": [",
        HTTP2_PREFACE,
        TLS_HELLO,
    ];
    for (name, address) in ports(&witness) {
        let mut left = Vec::new();
        for number in 0..300 {
            let mut stream = connect(address).await;
            stream.write_all(beginnings[number % beginnings.len()]).await.expect("written");
            left.push(stream);
        }
        // They are all there, half-way, and others are served.
        witness.check(&format!("300 connections half-way to {name}")).await;
        for (number, stream) in left.into_iter().enumerate() {
            if number % 2 == 0 {
                // Reset, not closed.
                stream.set_zero_linger().expect("a socket");
            }
        }
        witness.check(&format!("and abandoned at {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_costs_a_bounded_amount() {
    let mut witness = Witness::start().await;
    for service in 0..20 {
        let numbers = 0..50;
        let request = crate::support::sample::instances(&format!("s{service}"), numbers);
        witness.api().register(request).await.expect("registered");
    }
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(witness.child.addresses.http).await;
        stream.write_all(b"GET /v1/watch HTTP/1.1\r\nhost: c\r\n\r\n").await.expect("written");
        // Answers to these would be 20 MiB.
        let mut list = connect(witness.child.addresses.http).await;
        let asked = b"GET /v1/namespaces/default/services/s1/instances HTTP/1.1\r\nhost: c\r\n\r\n".repeat(50);
        let _ = tokio::time::timeout(Duration::from_millis(100), list.write_all(&asked)).await;
        deaf.push((stream, list));
    }
    for round in 1..=20 {
        let weight = Some(round);
        let change = |registration| convoy_client::proto::Registration { weight, ..registration };
        let request = crate::support::sample::instances("s0", 0..50);
        let instances = request.instances.into_iter().map(change);
        witness.api().register(crate::support::sample::call(instances)).await.expect("changed");
    }
    witness.check("20 watchers and 1 000 lists that nobody reads").await;
}
