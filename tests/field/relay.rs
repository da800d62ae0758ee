//! A relay between a client and Convoy, which breaks each connection after some bytes, wherever in a message that is.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rand::{RngExt, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Relays until it is dropped.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    broken: Arc<AtomicUsize>,
    _listener: JoinSet<()>,
}

impl Relay {
    /// Breaks each connection when so many bytes have come back.
    pub async fn to(server: SocketAddr, bytes: Range<u64>, mut random: StdRng) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let broken = Arc::<AtomicUsize>::default();
        let (mut tasks, counted) = (JoinSet::new(), broken.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (limit, counted) = (random.random_range(bytes.clone()), counted.clone());
                connections.spawn(async move {
                    if relay(client, server, limit).await == Some(limit) {
                        counted.fetch_add(1, Relaxed);
                    }
                });
                // Those that have ended are not kept.
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, broken, _listener: tasks }
    }

    /// How many connections it has broken.
    pub fn broken(&self) -> usize {
        self.broken.load(Relaxed)
    }
}

/// How many bytes came back before one side, or the limit, ended it.
async fn relay(client: TcpStream, server: SocketAddr, limit: u64) -> Option<u64> {
    let server = TcpStream::connect(server).await.ok()?;
    let (mut said, mut answered) = client.into_split();
    let (mut answers, mut asked) = server.into_split();
    let ask = async {
        // The client may close its half and still listen. How it ended, the answers' end tells.
        let _ = copy(&mut said, &mut asked).await;
        let _ = asked.shutdown().await;
        std::future::pending::<Option<u64>>().await
    };
    let answer = async {
        let mut until_the_limit = (&mut answers).take(limit);
        copy(&mut until_the_limit, &mut answered).await.ok()
    };
    tokio::select! {
        bytes = answer => bytes,
        never = ask => never,
    }
}
