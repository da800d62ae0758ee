//! One ADS stream on a TCP connection of its own: it asks, takes what comes, acknowledges it at once, and tells the
//! board. The same for every server.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
    sync::watch,
};

use crate::{
    board::Board,
    change::Change,
    http2::Connection,
    messages::{Keep, Messages, Response},
    wire::{self, CLUSTER, ENDPOINT},
};

/// What is read at once.
const READ: usize = 64 * 1024;
/// As good as none, as Envoy's is.
const WIDE_WINDOW: u32 = i32::MAX as u32;
/// A slow reader's: then what it does not read is the server's matter, not the kernel's.
const NARROW_WINDOW: u32 = 65_535;
const NARROW_BUFFER: u32 = 4096;

/// When a stream has what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    pub cluster_responses: usize,
    pub clusters: usize,
    pub endpoints: usize,
}

/// What a stream does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sent at once.
    pub requests: Vec<Arc<[u8]>>,
    /// Sent when the first answer has come.
    pub then: Option<Arc<[u8]>>,
    pub goal: Goal,
    pub keep: Keep,
    /// Reads only while this says so.
    pub reads: Option<watch::Receiver<bool>>,
    /// Connects again if it is thrown out.
    pub returns: bool,
    /// Goes on elsewhere when its server ends.
    pub moves: Option<Arc<Move>>,
}

/// Where a stream goes when its server ends, and what it does there.
#[derive(Debug)]
pub struct Move {
    pub server: SocketAddr,
    pub plan: Plan,
}

/// A response as it was received: its type, and its bytes.
pub type Recorded = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
pub struct Stream {
    board: Arc<Board>,
    plan: Plan,
    server: SocketAddr,
    from: IpAddr,
    asked_on: bool,
    tcp: TcpStream,
    connection: Connection,
    messages: Messages,
    have: Goal,
    ready: bool,
    states: HashMap<u16, u16>,
    recorded: Vec<Recorded>,
}

impl Stream {
    pub async fn connect(server: SocketAddr, from: IpAddr, plan: Plan, board: Arc<Board>) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let window = if plan.reads.is_some() { NARROW_WINDOW } else { WIDE_WINDOW };
        if plan.reads.is_some() {
            socket.set_recv_buffer_size(NARROW_BUFFER)?;
        }
        let tcp = socket.connect(server).await?;
        tcp.set_nodelay(true)?;
        let mut connection = Connection::open(wire::DELTA_ADS, &server.to_string(), window);
        plan.requests.iter().for_each(|request| connection.send(request));
        let messages = Messages::new(plan.keep);
        let (states, recorded) = (HashMap::new(), Vec::new());
        let (have, ready, asked_on) = (Goal::default(), false, false);
        Ok(Self { board, plan, server, from, asked_on, tcp, connection, messages, have, ready, states, recorded })
    }

    /// Runs until the server ends it, which is an error, or it is dropped.
    pub async fn run(mut self) {
        let mut buffer = Vec::new();
        loop {
            let Err(error) = self.turn(&mut buffer).await else { continue };
            if let Some(to) = self.plan.moves.take() {
                match Self::connect(to.server, self.from, to.plan.clone(), self.board.clone()).await {
                    Ok(there) => self = there,
                    Err(error) => return self.board.fail(format!("{error:#}")),
                }
                continue;
            }
            if !self.plan.returns {
                return self.board.fail(format!("{error:#}"));
            }
            self.board.thrown_out();
            match Self::connect(self.server, self.from, self.plan, self.board.clone()).await {
                Ok(again) => self = Self { ready: self.ready, ..again },
                Err(error) => return self.board.fail(format!("{error:#}")),
            }
        }
    }

    /// Runs until the goal is reached; answers what came.
    pub async fn record(mut self) -> anyhow::Result<Vec<Recorded>> {
        let mut buffer = Vec::new();
        while !self.ready {
            self.turn(&mut buffer).await?;
        }
        Ok(self.recorded)
    }

    /// Waits for the socket, and moves what can be moved.
    async fn turn(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        self.write()?;
        if let Some(reads) = &mut self.plan.reads {
            reads.wait_for(|reads| *reads).await?;
        }
        let writable = if self.connection.out.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        let ready = self.tcp.ready(Interest::READABLE | writable).await?;
        // It may have been told to wait meanwhile.
        let reads = self.plan.reads.as_ref().is_none_or(|reads| *reads.borrow());
        if ready.is_readable() && reads {
            self.read(buffer)?;
        }
        Ok(())
    }

    fn write(&mut self) -> anyhow::Result<()> {
        while !self.connection.out.is_empty() {
            match self.tcp.try_write(&self.connection.out) {
                Ok(written) => drop(self.connection.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        buffer.clear();
        buffer.reserve(READ);
        match self.tcp.try_read_buf(buffer) {
            Ok(0) => anyhow::bail!("the server has closed the connection"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let Self { board, plan, asked_on, connection, messages, have, states, recorded, .. } = self;
        let mut answers = Vec::new();
        connection.receive(buffer, |data| {
            messages.feed(data, |response| {
                board.response(response.resources, response.bytes);
                count(have, response);
                look(board, states, response);
                answers.push(wire::acknowledge(&response.type_url, &response.nonce));
                if !std::mem::replace(asked_on, true) {
                    answers.extend(plan.then.as_deref().map(<[u8]>::to_vec));
                }
                if plan.keep == Keep::Everything {
                    recorded.push((response.type_url.clone(), response.whole.clone()));
                }
            });
        })?;
        answers.iter().for_each(|answer| connection.send(answer));
        self.write()?;
        let Goal { cluster_responses, clusters, endpoints } = self.plan.goal;
        let have = self.have;
        if !self.ready
            && have.cluster_responses >= cluster_responses
            && have.clusters >= clusters
            && have.endpoints >= endpoints
        {
            self.ready = true;
            self.board.ready();
        }
        Ok(())
    }
}

fn count(have: &mut Goal, response: &Response) {
    if response.type_url == CLUSTER.as_bytes() {
        have.cluster_responses += 1;
        have.clusters += response.resources;
    } else if response.type_url == ENDPOINT.as_bytes() {
        have.endpoints += response.resources;
    }
}

/// Finds the changes in a response.
fn look(board: &Board, states: &mut HashMap<u16, u16>, response: &Response) {
    for change in Change::find(&response.content) {
        match states.insert(change.service, change.number) {
            Some(before) if before < change.number => board.changed(before, change),
            _ => {}
        }
    }
}
