//! One xDS stream's protocol state. Pure: requests and dirty names go in, responses come out; time is an argument, and
//! resources are looked up in a `Catalog`. Both dialects are this one machine: `sotw` and `delta` hold only what
//! differs in reading a request. Here is what types have to do with each other; what one
//! type is by itself is in `type_state`.
//!
//! For each type the session knows what the client has asked for, what it was sent and what it has ACKed, and which
//! names are due: `dirty` ones may have changed, `asked` ones must be answered even if they have not. It keeps no
//! messages: what is due is looked up when it can be sent, so that a slow client gets the newest state and nothing
//! grows but sets of names.
//!
//! At most one response of a type is outstanding; what changes meanwhile is merged. That is coalescing and no lock:
//! after `ACK_PATIENCE` the newest state goes anyway, and names that are newly asked for are answered at once. Types go
//! out make before break: a route waits for the ACK of its clusters, a removed cluster for the ACK of the routes; none
//! waits longer than `STEP_PATIENCE`. Endpoints wait for nothing, since a cluster's ACK may wait for them.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    full::Full,
    name_set::NameSet,
    protocol::{
        Catalog, Dialect, Features, Interest, MAX_NAME_BYTES, MAX_NAMES, MAX_NAMES_MIB, Now, Readiness, Refusal,
        Response, TypeStatus,
    },
    request::text,
    resource::{Resource, Version},
    response::Head,
    subscription::Changed,
    type_state::{Batch, TypeState},
};
use crate::model::{ResourceType, Revision, limits::quoted};

#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    /// The one type of a single-type service; none on ADS.
    only: Option<ResourceType>,
    features: Features,
    /// In the order of `ResourceType`; none of those that the client has not spoken of.
    types: [Option<Box<TypeState>>; ResourceType::ALL.len()],
    last_nonce: u64,
    /// The client has been here before: it holds what an earlier stream gave it.
    returning: bool,
    /// Clusters sent before the client had asked for any endpoints: by name, and whole sets of them.
    warming: (BTreeSet<Arc<str>>, Option<Arc<Full>>),
    immediate: VecDeque<Response>,
}

impl Session {
    pub fn new(dialect: Dialect, only: Option<ResourceType>, features: Features) -> Self {
        Self {
            dialect,
            only,
            features,
            types: Default::default(),
            last_nonce: 0,
            returning: false,
            warming: Default::default(),
            immediate: VecDeque::new(),
        }
    }

    pub fn status(&self) -> impl Iterator<Item = (ResourceType, TypeStatus)> {
        self.states().map(|state| (state.kind, state.status()))
    }

    /// Everything that is subscribed to: the type, its names, and whether all of it.
    pub fn subscriptions(&self) -> impl Iterator<Item = (ResourceType, &Arc<NameSet>, bool)> {
        self.states().map(|state| (state.kind, state.subscription.names(), state.subscription.is_wildcard()))
    }

    /// All that the client asks for, as if it asked for all of it now.
    pub fn interests(&self) -> impl Iterator<Item = Interest> {
        self.states().map(|state| {
            let names = state.subscription.names().clone();
            let wildcard_began = state.subscription.is_wildcard();
            let changed = Changed { all_new: !names.is_empty(), wildcard_began, ..Changed::default() };
            Interest { kind: state.kind, changed, names }
        })
    }

    /// Takes a name that may have changed, since a revision.
    pub fn mark_dirty(&mut self, kind: ResourceType, name: Arc<str>, revision: Revision) {
        if let Some(state) = &mut self.types[kind as usize] {
            state.mark_dirty(name, revision);
        }
    }

    /// What was refused is tried once more; gives how much that is.
    pub fn retry(&mut self) -> usize {
        self.types.iter_mut().flatten().map(|state| state.retry()).sum()
    }

    /// Whether the client has been sent a response, so that ending the stream is no failure to it.
    pub fn was_served(&self) -> bool {
        self.last_nonce > 0
    }

    /// Whether the client begins from nothing: all that it asks for is about to be sent.
    pub fn is_cold(&self) -> bool {
        !self.returning && self.states().all(|state| state.held().is_empty())
    }

    /// Whether a response has not been answered.
    pub fn is_waiting(&self) -> bool {
        self.states().any(TypeState::is_waiting)
    }

    /// An answer outside of any type's state, which waits for nothing.
    pub fn poll_immediate(&mut self) -> Option<Response> {
        self.immediate.pop_front()
    }

    /// A response that says nothing, to a client that waits for one.
    pub fn nothing(&mut self, kind: ResourceType) -> Response {
        let (nonce, dialect, features) = (self.nonce(), self.dialect, self.features);
        let head = Head { dialect, features, type_url: kind.type_url(), version: Version(0), nonce };
        Response { kind: Some(kind), chunks: head.respond([].into_iter(), &[]), overdue: false }
    }

    /// How many names the stream keeps for itself, and shares with nobody: what its memory grows with.
    pub fn own_names(&self) -> usize {
        self.states().map(TypeState::own_names).sum::<usize>() + self.warming.0.len()
    }

    /// Which type a request is about; none for one that Convoy does not know.
    pub(super) fn kind_of(&self, type_url: &str) -> Result<Option<ResourceType>, Refusal> {
        match (self.only, type_url) {
            (Some(only), "") => Ok(Some(only)),
            (Some(only), given) if given != only.type_url() => {
                Err(Refusal::OtherType { given: quoted(given, MAX_NAME_BYTES), expected: only.type_url() })
            }
            (None, "") => Err(Refusal::NoType),
            (_, given) => Ok(ResourceType::from_type_url(given)),
        }
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &TypeState> {
        self.types.iter().filter_map(|state| state.as_deref())
    }

    pub(super) fn state(&self, kind: ResourceType) -> Option<&TypeState> {
        self.types[kind as usize].as_deref()
    }

    pub(super) fn state_mut(&mut self, kind: ResourceType) -> &mut TypeState {
        self.types[kind as usize].get_or_insert_with(|| Box::new(TypeState::new(kind)))
    }

    pub(super) fn set_returning(&mut self) {
        self.returning = true;
    }

    pub(super) fn check_names<'a>(
        &self,
        kind: ResourceType,
        names: impl ExactSizeIterator<Item = &'a Bytes>,
    ) -> Result<(), Refusal> {
        let counts = |state: &&TypeState| match self.dialect {
            // The request's names replace those of before.
            Dialect::StateOfTheWorld => state.kind != kind,
            Dialect::Incremental => true,
        };
        let others = self.states().filter(counts).map(|state| state.subscription.names());
        let others = others.fold((0, 0), |(count, bytes), names| (count + names.len(), bytes + names.bytes()));
        check_lengths(others, names)
    }

    /// Whether the next request has to wait: an answer that is made at once is still to be taken, and a client that
    /// asks without reading shall wait with its questions.
    pub fn is_behind(&self) -> bool {
        !self.immediate.is_empty()
    }

    /// A response outside of any type's state.
    pub(super) fn answer_now(&mut self, response: impl FnOnce(u64) -> Response) {
        let nonce = self.nonce();
        self.immediate.push_back(response(nonce));
    }

    fn nonce(&mut self) -> u64 {
        self.last_nonce += 1;
        self.last_nonce
    }

    /// The next response that can go now. Call until there is none.
    pub fn poll(&mut self, now: Now, catalog: &dyn Catalog, readiness: Readiness) -> Option<Response> {
        if let Some(response) = self.poll_immediate() {
            return Some(response);
        }
        if readiness < Readiness::Ready && self.returning {
            return None;
        }
        (0..self.types.len()).find_map(|index| {
            // Its own state is not among the others'.
            let mut state = self.types[index].take()?;
            let response = self.poll_type(&mut state, now, catalog, readiness);
            self.types[index] = Some(state);
            response
        })
    }

    /// When to poll again if nothing happens before.
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        self.states().filter_map(|state| state.deadline(now)).min()
    }

    fn poll_type(
        &mut self,
        state: &mut TypeState,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
    ) -> Option<Response> {
        let Some(batch) = state.collect(now, catalog, readiness, self) else {
            let heartbeat = state.heartbeat(self.last_nonce + 1, now, self)?;
            self.last_nonce += 1;
            return Some(heartbeat);
        };
        self.ask_what_hangs_on(state.kind, &batch);
        let nonce = self.nonce();
        Some(state.send(nonce, now, batch, self, catalog))
    }

    /// A cluster that is new or changed warms again, and waits for its endpoints even if they have not changed; a
    /// changed route configuration forgets the hosts that it took on demand.
    fn ask_what_hangs_on(&mut self, kind: ResourceType, batch: &Batch) {
        match kind {
            ResourceType::Cluster => self.ask_endpoints(batch),
            ResourceType::Route => {
                if let Some(hosts) = &mut self.types[ResourceType::VirtualHost as usize] {
                    batch.changed.iter().for_each(|(name, _)| hosts.ask_hosts_of(name));
                }
            }
            _ => {}
        }
    }

    fn ask_endpoints(&mut self, batch: &Batch) {
        let changed = batch.changed.iter().map(|(name, _)| name);
        match &mut self.types[ResourceType::Endpoint as usize] {
            Some(endpoints) => {
                let all = batch.full.iter().flat_map(|full| full.base.iter().map(|(name, _)| name));
                changed.chain(all).for_each(|name| endpoints.ask_again(name));
            }
            // On a stream of clusters only nobody will.
            None if self.only.is_some() => {}
            // A client that has come back may ask for them in a moment, and say that it has them.
            None => {
                self.warming.0.extend(changed.cloned());
                for name in &batch.removed {
                    self.warming.0.remove(name);
                }
                self.warming.1 = batch.full.clone().or(self.warming.1.take());
            }
        }
    }

    /// The client asks for endpoints for the first time: those of clusters that have gone out before are due.
    pub(super) fn ask_warming(&mut self) {
        let (names, full) = std::mem::take(&mut self.warming);
        let Some(endpoints) = &mut self.types[ResourceType::Endpoint as usize] else { return };
        if !endpoints.asks_all() {
            let all = full.iter().flat_map(|full| full.base.iter().map(|(name, _)| name));
            names.iter().chain(all).for_each(|name| endpoints.ask_again(name));
        }
    }

    /// Whether the proxy follows all clusters on this stream, so that an unknown one is one it has not got yet.
    fn has_all_clusters(&self) -> bool {
        self.state(ResourceType::Cluster).is_some_and(|state| state.subscription.is_wildcard())
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Whether the client is told how long it may keep resources. In the state of the world it would take a wrapped
    /// resource, which no client is known to ask for.
    pub(super) fn hears_ttls(&self) -> bool {
        self.features.resource_ttl && self.dialect == Dialect::Incremental
    }

    /// Whether a resource must wait: it sends traffic to clusters that the client has not ACKed.
    pub(super) fn waits_for_clusters(&self, resource: &Resource, catalog: &dyn Catalog) -> bool {
        let Some(clusters) = self.state(ResourceType::Cluster) else { return false };
        let own = |name| resource.raw && catalog.get(ResourceType::Cluster, name).is_none();
        self.has_all_clusters() && !resource.clusters.iter().all(|name| clusters.has_acked(name) || own(name))
    }

    /// Whether something gone must stay: a route still leads to it, or the cluster whose endpoints it is.
    pub(super) fn is_in_use(&self, kind: ResourceType, name: &Arc<str>) -> bool {
        if !self.has_all_clusters() && kind == ResourceType::Endpoint {
            return false;
        }
        match kind {
            // Who came back has routes that it has not spoken of yet.
            ResourceType::Cluster
                if self.returning && self.only.is_none() && self.state(ResourceType::Route).is_none() =>
            {
                true
            }
            ResourceType::Cluster => [ResourceType::Listener, ResourceType::Route]
                .into_iter()
                .filter_map(|kind| self.state(kind))
                .any(|state| state.leads_to(name)),
            ResourceType::Endpoint => self.state(ResourceType::Cluster).is_some_and(|clusters| clusters.has_sent(name)),
            _ => false,
        }
    }
}

/// Whether so many names, and of such lengths, may be named beside those there are: their count, and their bytes.
pub(super) fn check_lengths<'a>(
    (count, mut bytes): (usize, usize),
    names: impl ExactSizeIterator<Item = &'a Bytes>,
) -> Result<(), Refusal> {
    if count + names.len() > MAX_NAMES {
        return Err(Refusal::TooMuch);
    }
    for name in names {
        let name = text(name).ok_or(Refusal::NotText)?;
        bytes += name.len();
        if name.len() > MAX_NAME_BYTES || bytes > MAX_NAMES_MIB * 1024 * 1024 {
            return Err(Refusal::TooMuch);
        }
    }
    Ok(())
}
