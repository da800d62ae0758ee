//! Those who watch: thousands of streams over some connections. They read messages and count them, and do not decode
//! them: what they spend is spent on the server's cores.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

const STREAMS_OF_A_CONNECTION: usize = 100;
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// An event's first field and its value, if it is not about an instance: synced, bookmark.
const NO_NEWS: [[u8; 2]; 2] = [[0x08, 4], [0x08, 7]];

#[derive(Debug, Default)]
struct Count {
    heard: AtomicUsize,
    /// How many are waited for.
    wanted: AtomicUsize,
    enough: Notify,
    last: Mutex<Bytes>,
}

impl Count {
    fn hear(&self, message: &Bytes) {
        if message.get(..2).is_some_and(|head| NO_NEWS.iter().any(|no_news| head == no_news)) {
            return;
        }
        if self.heard.fetch_add(1, Ordering::SeqCst) + 1 == self.wanted.load(Ordering::SeqCst) {
            self.last.lock().expect("no panic").clone_from(message);
            self.enough.notify_one();
        }
    }
}

#[derive(Debug, Default)]
pub struct Clients {
    count: Arc<Count>,
}

impl Clients {
    /// Opens a stream for each request, and returns when the server has answered all.
    pub async fn open(
        &mut self,
        address: SocketAddr,
        path: &'static str,
        requests: impl Iterator<Item = Bytes>,
    ) -> anyhow::Result<()> {
        let requests: Vec<Bytes> = requests.collect();
        for requests in requests.chunks(STREAMS_OF_A_CONNECTION) {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            let opened = join_all(requests.iter().map(|request| self.stream(channel.clone(), path, request))).await;
            opened.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn stream(&self, channel: Channel, path: &'static str, request: &Bytes) -> anyhow::Result<()> {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await?;
        let request = Request::new(request.clone());
        let mut stream = grpc.server_streaming(request, PathAndQuery::from_static(path), Raw).await?.into_inner();
        stream.message().await?.context("a first message")?;
        let count = self.count.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                count.hear(&message);
            }
        });
        Ok(())
    }

    /// Waits until so many messages have come since the last time.
    pub async fn all_have(&self, wanted: usize) -> anyhow::Result<()> {
        self.count.wanted.store(wanted, Ordering::SeqCst);
        // They may all have come before it was said how many are wanted.
        while self.count.heard.load(Ordering::SeqCst) < wanted {
            let heard = tokio::time::timeout(PATIENCE, self.count.enough.notified()).await;
            heard.with_context(|| format!("{} of {wanted} have heard", self.count.heard.load(Ordering::SeqCst)))?;
        }
        anyhow::ensure!(self.count.heard.load(Ordering::SeqCst) == wanted, "more than {wanted} were told");
        self.count.heard.store(0, Ordering::SeqCst);
        self.count.wanted.store(usize::MAX, Ordering::SeqCst);
        Ok(())
    }

    pub fn last_message(&self) -> Bytes {
        self.count.last.lock().expect("no panic").clone()
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
