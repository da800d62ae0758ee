//! One stream's task: it moves requests into the session, and the session's responses out when there is room for them.
//! It decides nothing, and keeps no queue: a response is made when it can be sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    cache::{Cache, Mailbox, ViewCatalog},
    codec::Incoming,
    node,
    protocol::{Dialect, Now, Received, Refusal, Response, Verdict},
    session::Session,
    status::{Proxies, Stream},
};
use crate::{model::UnixMillis, telemetry::Metrics, translate::ResourceType};

/// What all streams share.
#[derive(Debug)]
pub struct Shared {
    pub cache: Arc<Cache>,
    pub proxies: Arc<Proxies>,
    pub metrics: Arc<Metrics>,
    pub stopping: watch::Receiver<bool>,
}

pub type Outgoing = mpsc::Sender<Result<Response, Status>>;

/// Runs a stream until the client leaves, breaks the protocol, or Convoy stops.
pub async fn run(
    shared: Arc<Shared>,
    id: u64,
    session: Session,
    dialect: Dialect,
    address: Option<SocketAddr>,
    mut requests: Streaming<Incoming>,
    out: Outgoing,
) {
    let ended = async {
        let Some(first) = requests.message().await? else { return Ok(()) };
        let client = first.node().map(node::client).transpose();
        let client = client.and_then(|client| {
            client.ok_or_else(|| crate::model::Invalid::new("node", "", "the first request of a stream names its node"))
        });
        let client = client.map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let mut task = Task::new(&shared, id, client, session, dialect, address);
        task.receive(first)?;
        task.run(requests, &out).await
    };
    let mut stopping = shared.stopping.clone();
    let ended: Result<(), Status> = tokio::select! {
        ended = ended => ended,
        () = out.closed() => Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
    };
    if let Err(status) = ended {
        tracing::debug!(stream = id, %status, "an xDS stream has ended");
        // The client may have gone.
        let _ = out.try_send(Err(status));
    }
}

struct Task<'a> {
    shared: &'a Shared,
    mailbox: Arc<Mailbox>,
    catalog: ViewCatalog,
    stream: Arc<Stream>,
}

impl<'a> Task<'a> {
    fn new(
        shared: &'a Shared,
        id: u64,
        client: node::Client,
        session: Session,
        dialect: Dialect,
        address: Option<SocketAddr>,
    ) -> Self {
        tracing::info!(node = client.id, ?dialect, stream = id, "an xDS client has connected");
        let catalog = ViewCatalog { cache: shared.cache.clone(), view: client.view.clone() };
        let session = Mutex::new(session);
        let mailbox = Arc::new(Mailbox { id, ..Mailbox::default() });
        let (connected_at, letters) = (unix(), mailbox.clone());
        let stream = Arc::new(Stream { client, address, dialect, connected_at, session, mailbox: letters });
        shared.proxies.insert(id, stream.clone());
        Self { shared, mailbox, catalog, stream }
    }

    async fn run(&mut self, mut requests: Streaming<Incoming>, out: &Outgoing) -> Result<(), Status> {
        let mut readiness = self.shared.cache.readiness();
        let mut may_send = true;
        let mut deadline = None;
        loop {
            let may_receive = !self.session().is_behind();
            tokio::select! {
                request = requests.message(), if may_receive => match request? {
                    Some(request) => self.receive(request)?,
                    None => return Ok(()),
                },
                () = self.mailbox.dirty.wait() => {
                    // The lock goes first: a name is always seen in the one or in the other.
                    let mut session = self.session();
                    for (kind, name) in self.mailbox.dirty.take_now() {
                        session.mark_dirty(kind, name);
                    }
                }
                changed = readiness.changed() => {
                    // The cache outlives its streams.
                    changed.map_err(|_| Status::unavailable("Convoy is stopping"))?;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() && !may_send => {}
                permit = out.reserve(), if may_send => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let (response, next) = {
                        let mut session = self.session();
                        let (readiness, now) = (*readiness.borrow_and_update(), now());
                        (session.poll(now, &self.catalog, readiness), session.deadline(now))
                    };
                    deadline = next;
                    match response {
                        Some(response) => {
                            self.count(&response);
                            permit.send(Ok(response));
                        }
                        None => {
                            may_send = false;
                            self.shared.proxies.raise();
                        }
                    }
                    continue;
                }
            }
            may_send = true;
        }
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.stream.session.lock().expect("nothing panics while it holds this lock")
    }

    fn receive(&mut self, request: Incoming) -> Result<(), Status> {
        let received = {
            let mut session = self.session();
            match request {
                Incoming::StateOfTheWorld(request) => session.receive_state_of_the_world(request, now(), &self.catalog),
                Incoming::Incremental(request) => session.receive_incremental(request, now()),
            }
        };
        let Received { interest, verdict } = received.map_err(refuse)?;
        if let Some(interest) = interest {
            self.catalog.follow(&interest, &self.mailbox);
        }
        if verdict.is_some() {
            self.shared.proxies.raise();
        }
        match verdict {
            Some((kind, Verdict::Ack(took))) => {
                self.shared.metrics.ack(kind.as_str());
                if let Some(took) = took {
                    self.shared.metrics.converged(kind.as_str(), took);
                }
            }
            Some((kind, Verdict::Nack)) => self.report_nack(kind),
            None => {}
        }
        Ok(())
    }

    fn report_nack(&self, kind: ResourceType) {
        self.shared.metrics.nack(kind.as_str());
        let status = self.session().status().find(|(of, _)| *of == kind).and_then(|(_, status)| status.last_nack);
        if let Some(nack) = status {
            let node = &self.stream.client.id;
            tracing::warn!(node, kind = kind.as_str(), resources = ?nack.resources, message = nack.message, "NACK");
        }
    }

    fn count(&self, response: &Response) {
        let kind = response.kind.map_or("unknown", ResourceType::as_str);
        self.shared.metrics.response(kind);
        if response.overdue {
            self.shared.metrics.overdue(kind);
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        // While it is in the index: what is told later goes past it.
        let told = *self.shared.cache.told().borrow();
        self.shared.proxies.remove(self.mailbox.id, told, now());
        // If a panic got us here, the session is still good for this.
        let session = self.stream.session.lock().unwrap_or_else(PoisonError::into_inner);
        self.catalog.leave(&session, &self.mailbox);
        tracing::info!(node = self.stream.client.id, stream = self.mailbox.id, "an xDS client has gone");
    }
}

fn refuse(refusal: Refusal) -> Status {
    match refusal {
        Refusal::TooMuch => Status::resource_exhausted(refusal.to_string()),
        Refusal::NoType | Refusal::OtherType { .. } => Status::invalid_argument(refusal.to_string()),
    }
}

fn now() -> Now {
    Now { at: Instant::now(), unix: unix() }
}

fn unix() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis().try_into().unwrap_or(u64::MAX))
}
