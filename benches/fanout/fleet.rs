//! Thousands of streams to one server, each on its own connection, in the thread of the caller.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use crate::{
    board::Board,
    stream::{Plan, Recorded, Stream},
};

/// From one address there are ports for some 28 000 connections, and a closed one keeps its port for a minute.
const CONNECTIONS_OF_AN_ADDRESS: usize = 10_000;
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Streams that are open until it is dropped.
#[derive(Debug)]
pub struct Fleet {
    pub board: Arc<Board>,
    streams: JoinSet<()>,
}

impl Deref for Fleet {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
}

impl Fleet {
    /// Opens the streams of these plans, so many at a time, and waits until each has what it wants.
    pub async fn open(server: SocketAddr, plans: Vec<Plan>, at_once: usize) -> anyhow::Result<Self> {
        let mut fleet = Self { board: Arc::default(), streams: JoinSet::new() };
        fleet.expect(plans.len());
        let mut opened = stream::iter(plans)
            .map(|plan| Stream::connect(server, source(), plan, fleet.board.clone()))
            .buffer_unordered(at_once);
        while let Some(stream) = opened.try_next().await? {
            fleet.streams.spawn(stream.run());
        }
        drop(opened);
        fleet.complete().await?;
        Ok(fleet)
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }
}

/// What one client gets until it has what it wants.
pub async fn record(server: SocketAddr, plan: Plan) -> anyhow::Result<Vec<Recorded>> {
    Stream::connect(server, source(), plan, Arc::default()).await?.record().await
}

fn source() -> IpAddr {
    let address = CONNECTIONS.fetch_add(1, Ordering::Relaxed) / CONNECTIONS_OF_AN_ADDRESS;
    Ipv4Addr::new(127, 0, 1 + (address / 200) as u8, 1 + (address % 200) as u8).into()
}
