//! One stream: requests go into the session, and the session's responses out. It is the body of the answer to the
//! client's call: whoever writes the connection asks for the next response when there is room for it, and no queue and
//! no task lies between. It decides nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream as Sequence, stream::unfold};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    admission::{Admission, PATIENCE, Place},
    cache::Cache,
    codec::Incoming,
    node,
    protocol::{Dialect, Now, Readiness, Received, Refusal, Response, Verdict},
    session::Session,
    status::{Proxies, Stream},
    view_catalog::ViewCatalog,
};
use crate::{
    model::{Invalid, ResourceType, UnixMillis},
    telemetry::{Metrics, TypeMetrics},
};

/// What all streams share.
#[derive(Debug)]
pub struct Shared {
    pub cache: Arc<Cache>,
    pub proxies: Arc<Proxies>,
    pub metrics: Arc<Metrics>,
    pub admission: Admission,
    /// Whoever sets it wakes all streams.
    pub stopping: watch::Receiver<bool>,
    /// By type; those of types that Convoy does not know come last.
    metrics_by_type: [TypeMetrics; ResourceType::ALL.len() + 1],
}

impl Shared {
    pub fn new(
        cache: Arc<Cache>,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
        admission: Admission,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let of_type =
            |index: usize| metrics.of_type(ResourceType::ALL.get(index).map_or("unknown", |kind| kind.as_str()));
        let metrics_by_type = std::array::from_fn(of_type);
        Self { cache, proxies, metrics, admission, stopping, metrics_by_type }
    }

    fn metrics_of(&self, kind: Option<ResourceType>) -> &TypeMetrics {
        &self.metrics_by_type[kind.map_or(ResourceType::ALL.len(), |kind| kind as usize)]
    }
}

/// A call as it comes in.
#[derive(Debug)]
pub struct Call {
    pub id: u64,
    /// The one type of a single-type service; none on ADS.
    pub only: Option<ResourceType>,
    pub dialect: Dialect,
    pub address: Option<SocketAddr>,
    pub requests: Streaming<Incoming>,
}

/// The responses of a call. It ends when the client leaves or breaks the protocol, when Convoy stops, or when the
/// stream has reached its age.
pub fn responses(shared: Arc<Shared>, call: Call) -> impl Sequence<Item = Result<Response, Status>> + Send {
    let opened = Opened::new(&shared, &call);
    unfold(Some(Progress::Opening(Box::new((shared, call, opened)))), |progress| async {
        let mut live = match progress? {
            Progress::Live(live) => live,
            Progress::Opening(opening) => {
                let (shared, call, opened) = *opening;
                match Live::open(shared, call, opened).await {
                    Ok(live) => Box::new(live?),
                    Err(status) => return Some((Err(status), None)),
                }
            }
        };
        match live.next().await {
            Ok(response) => Some((Ok(response?), Some(Progress::Live(live)))),
            Err(status) => {
                tracing::debug!(stream = live.catalog.mailbox.id, %status, "an xDS stream has ended");
                Some((Err(status), None))
            }
        }
    })
}

enum Progress {
    Opening(Box<(Arc<Shared>, Call, Opened)>),
    Live(Box<Live>),
}

/// Counts the stream while it is open.
struct Opened {
    metrics: Arc<Metrics>,
    service: &'static str,
    dialect: Dialect,
}

impl Opened {
    fn new(shared: &Shared, call: &Call) -> Self {
        let service = call.only.map_or("ads", ResourceType::as_str);
        shared.metrics.stream_opened(service, call.dialect.as_str());
        Self { metrics: shared.metrics.clone(), service, dialect: call.dialect }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.metrics.stream_closed(self.service, self.dialect.as_str());
    }
}

/// A stream whose client has said who it is.
struct Live {
    shared: Arc<Shared>,
    requests: Streaming<Incoming>,
    catalog: ViewCatalog,
    stream: Arc<Stream>,
    readiness: watch::Receiver<Readiness>,
    admission: Admitted,
    /// When it has lived long enough.
    ends_at: Option<Instant>,
    _opened: Opened,
}

/// Whether a client that begins from nothing may be sent everything.
enum Admitted {
    NotYet,
    /// Until then, or until it has taken everything.
    Now {
        _place: Place,
        until: Instant,
    },
    Done,
}

impl Live {
    /// Waits for the first request; none if the client leaves before.
    async fn open(shared: Arc<Shared>, mut call: Call, opened: Opened) -> Result<Option<Self>, Status> {
        let mut stopping = shared.stopping.clone();
        let first = tokio::select! {
            first = call.requests.message() => first?,
            // Nobody has been served: that Convoy goes shall be no failure of this stream, but of the next.
            () = stopped(&mut stopping) => return Err(Status::unavailable("Convoy is stopping")),
        };
        let Some(first) = first else { return Ok(None) };
        let client = first.node().map(node::client).transpose();
        let missing = || Invalid::new("node", "", "the first request of a stream names its node");
        let client = client.and_then(|client| client.ok_or_else(missing));
        let client = client.map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let Call { id, only, dialect, address, requests } = call;
        tracing::info!(node = client.id, ?dialect, stream = id, "an xDS client has connected");
        let catalog = ViewCatalog::new(shared.cache.clone(), &client.view, client.node.clone(), id);
        let session = Mutex::new(Session::new(dialect, only, client.features));
        let mailbox = catalog.mailbox.clone();
        let stream = Arc::new(Stream { client, address, dialect, connected_at: unix(), session, mailbox });
        shared.proxies.insert(id, stream.clone());
        let mut live = Self {
            requests,
            catalog,
            stream,
            readiness: shared.cache.readiness(),
            admission: Admitted::NotYet,
            ends_at: shared.admission.end_of_a_stream(),
            _opened: opened,
            shared,
        };
        live.receive(first)?;
        Ok(Some(live))
    }

    /// The next response; none when the stream ends well.
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        loop {
            let (response, deadline, may_receive, waits, served) = self.poll();
            if let Some(response) = response {
                self.count(&response);
                return Ok(Some(response));
            }
            self.shared.proxies.raise();
            // A stream ends without harm only if its client was served. Who is in the index is woken for this.
            if *self.shared.stopping.borrow() {
                return if served { Ok(None) } else { Err(Status::unavailable("Convoy is stopping")) };
            }
            let ends_at = self.ends_at.filter(|_| served);
            let wake_at = deadline.into_iter().chain(ends_at).min();
            tokio::select! {
                request = self.requests.message(), if may_receive => {
                    let Some(request) = request? else { return Ok(None) };
                    self.receive(request)?;
                }
                () = self.catalog.mailbox.wait() => {
                    // The lock goes first: a name is always seen in the one or in the other.
                    let mut session = lock(&self.stream.session);
                    let news = self.catalog.mailbox.take();
                    for ((kind, name), revision) in news.names {
                        session.mark_dirty(kind, name, revision);
                    }
                    if let Some(since) = news.selection {
                        self.catalog.reselect(&mut session, since);
                    }
                }
                place = self.shared.admission.admit(), if waits => {
                    self.admission = Admitted::Now { _place: place, until: Instant::now() + PATIENCE };
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
            if ends_at.is_some_and(|at| at <= Instant::now()) {
                return Ok(None);
            }
        }
    }

    /// What can go now; when to look again; whether requests are read; whether it waits to be admitted; whether it was
    /// served.
    fn poll(&mut self) -> (Option<Response>, Option<Instant>, bool, bool, bool) {
        let (readiness, now) = (*self.readiness.borrow(), now());
        let mut session = lock(&self.stream.session);
        let served = session.was_served();
        match &self.admission {
            Admitted::Now { until, .. } if *until <= now.at || (served && !session.is_waiting()) => {
                self.admission = Admitted::Done;
            }
            Admitted::NotYet if !session.is_cold() => self.admission = Admitted::Done,
            _ => {}
        }
        let waits = matches!(self.admission, Admitted::NotYet);
        if waits {
            return (session.poll_immediate(), None, !session.is_behind(), true, served);
        }
        let response = session.poll(now, &self.catalog, readiness);
        let until = match &self.admission {
            Admitted::Now { until, .. } => Some(*until),
            _ => None,
        };
        let deadline = session.deadline(now).into_iter().chain(until).min();
        (response, deadline, !session.is_behind(), false, served)
    }

    fn receive(&mut self, request: Incoming) -> Result<(), Status> {
        let received = {
            let mut session = lock(&self.stream.session);
            match request {
                Incoming::StateOfTheWorld(request) => session.receive_state_of_the_world(request, now(), &self.catalog),
                Incoming::Incremental(request) => session.receive_incremental(request, now(), &self.catalog),
            }
        };
        let Received { interest, verdict } = received.map_err(refuse)?;
        if let Some(interest) = interest {
            self.catalog.follow(&interest);
        }
        if verdict.is_some() {
            self.shared.proxies.raise();
        }
        match verdict {
            Some((kind, Verdict::Ack(took))) => {
                let metrics = self.shared.metrics_of(Some(kind));
                metrics.ack();
                if let Some(took) = took {
                    metrics.converged(took);
                }
            }
            Some((kind, Verdict::Nack)) => self.report_nack(kind),
            None => {}
        }
        Ok(())
    }

    fn report_nack(&self, kind: ResourceType) {
        self.shared.metrics_of(Some(kind)).nack();
        let status = lock(&self.stream.session).status().find(|(of, _)| *of == kind);
        if let Some(nack) = status.and_then(|(_, status)| status.last_nack) {
            let node = &self.stream.client.id;
            tracing::warn!(node, kind = kind.as_str(), resources = ?nack.resources, message = nack.message, "NACK");
        }
    }

    fn count(&self, response: &Response) {
        let metrics = self.shared.metrics_of(response.kind);
        metrics.response();
        if response.overdue {
            metrics.overdue();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // While it is in the index: what is told later goes past it.
        let stream = self.catalog.mailbox.id;
        let told = *self.shared.cache.told().borrow();
        self.shared.proxies.remove(stream, told, now());
        tracing::info!(node = self.stream.client.id, stream, "an xDS client has gone");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error is the sender's end, which is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// If something panicked meanwhile, it was with this stream only, which is about to end.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn refuse(refusal: Refusal) -> Status {
    match refusal {
        Refusal::TooMuch => Status::resource_exhausted(refusal.to_string()),
        Refusal::NoType | Refusal::OtherType { .. } | Refusal::NotText => Status::invalid_argument(refusal.to_string()),
    }
}

pub(super) fn now() -> Now {
    Now { at: Instant::now(), unix: unix() }
}

fn unix() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis().try_into().unwrap_or(u64::MAX))
}
