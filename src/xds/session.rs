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
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    protocol::{Catalog, Dialect, MAX_NAME_BYTES, MAX_NAMES, Now, Readiness, Refusal, Response, TypeStatus},
    resource::Resource,
    type_state::{Batch, TypeState},
};
use crate::{model::limits::quoted, translate::ResourceType};

#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    /// The one type of a single-type service; none on ADS.
    only: Option<ResourceType>,
    pub(super) types: BTreeMap<ResourceType, TypeState>,
    next_nonce: u64,
    /// The client has been here before: it holds what an earlier stream gave it.
    returning: bool,
    /// Clusters sent before the client had asked for any endpoints.
    warming: BTreeSet<Arc<str>>,
    immediate: VecDeque<Response>,
}

impl Session {
    pub fn new(dialect: Dialect, only: Option<ResourceType>) -> Self {
        let types = BTreeMap::new();
        let (warming, immediate) = (BTreeSet::new(), VecDeque::new());
        Self { dialect, only, types, next_nonce: 1, returning: false, warming, immediate }
    }

    pub fn status(&self) -> impl Iterator<Item = (ResourceType, TypeStatus)> {
        self.types.iter().map(|(kind, state)| (*kind, state.status()))
    }

    /// Everything that is subscribed to: the type, its names, and whether all of it.
    pub fn subscriptions(&self) -> Vec<(ResourceType, Vec<Arc<str>>, bool)> {
        let of = |(kind, state): (&ResourceType, &TypeState)| {
            (*kind, state.subscription.names().iter().cloned().collect(), state.subscription.is_wildcard())
        };
        self.types.iter().map(of).collect()
    }

    /// Takes the names that may have changed.
    pub fn mark_dirty(&mut self, kind: ResourceType, name: Arc<str>) {
        if let Some(state) = self.types.get_mut(&kind) {
            state.mark_dirty(name);
        }
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

    pub(super) fn state(&mut self, kind: ResourceType) -> &mut TypeState {
        self.types.entry(kind).or_default()
    }

    pub(super) fn set_returning(&mut self) {
        self.returning = true;
    }

    pub(super) fn check_names<'a>(
        &self,
        kind: ResourceType,
        names: impl ExactSizeIterator<Item = &'a String>,
    ) -> Result<(), Refusal> {
        let others = self.types.iter().filter(|(other, _)| **other != kind).map(|(_, state)| state.names());
        let of_kind = match self.dialect {
            // The request's names replace those of before.
            Dialect::StateOfTheWorld => 0,
            Dialect::Incremental => self.types.get(&kind).map_or(0, TypeState::names),
        };
        check_lengths(others.sum::<usize>() + of_kind, names)
    }

    /// Whether the next request has to wait: an answer that is made at once is still to be taken, and a client that
    /// asks without reading shall wait with its questions.
    pub fn is_behind(&self) -> bool {
        !self.immediate.is_empty()
    }

    /// A response outside of any type's state.
    pub(super) fn answer_now(&mut self, response: impl FnOnce(&str) -> Response) {
        let nonce = self.nonce();
        self.immediate.push_back(response(&nonce));
    }

    fn nonce(&mut self) -> String {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        nonce.to_string()
    }

    /// The next response that can go now. Call until there is none.
    pub fn poll(&mut self, now: Now, catalog: &dyn Catalog, readiness: Readiness) -> Option<Response> {
        if let Some(response) = self.immediate.pop_front() {
            return Some(response);
        }
        if readiness < Readiness::Ready && self.returning {
            return None;
        }
        let kinds: Vec<ResourceType> = self.types.keys().copied().collect();
        kinds.into_iter().find_map(|kind| self.poll_type(kind, now, catalog, readiness))
    }

    /// When to poll again if nothing happens before.
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        self.types.values().filter_map(|state| state.deadline(now)).min()
    }

    fn poll_type(
        &mut self,
        kind: ResourceType,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
    ) -> Option<Response> {
        let mut state = self.types.remove(&kind)?;
        let batch = state.collect(kind, now, catalog, readiness, self);
        let response = batch.map(|batch| {
            self.ask_endpoints(kind, &batch);
            let nonce = self.nonce();
            state.send(kind, self.dialect, nonce, now, batch, catalog)
        });
        self.types.insert(kind, state);
        response
    }

    /// A cluster that is new or changed warms again, and waits for its endpoints even if they have not changed.
    fn ask_endpoints(&mut self, kind: ResourceType, batch: &Batch) {
        if kind != ResourceType::Cluster {
            return;
        }
        match self.types.get_mut(&ResourceType::Endpoint) {
            Some(endpoints) => batch.changed.iter().for_each(|(name, _)| endpoints.ask_again(name)),
            // A client that has come back may ask for them in a moment, and say that it has them.
            None => self.warming.extend(batch.changed.iter().map(|(name, _)| name.clone())),
        }
    }

    /// The client asks for endpoints for the first time: those of clusters that have gone out before are due.
    pub(super) fn ask_warming(&mut self) {
        let warming = std::mem::take(&mut self.warming);
        if let Some(endpoints) = self.types.get_mut(&ResourceType::Endpoint) {
            warming.iter().for_each(|name| endpoints.ask_again(name));
        }
    }

    /// Whether the proxy follows all clusters on this stream, so that an unknown one is one it has not got yet.
    fn has_all_clusters(&self) -> bool {
        self.types.get(&ResourceType::Cluster).is_some_and(|state| state.subscription.is_wildcard())
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether a resource must wait: it sends traffic to clusters that the client has not ACKed.
    pub(super) fn waits_for_clusters(&self, resource: &Resource) -> bool {
        let Some(clusters) = self.types.get(&ResourceType::Cluster) else { return false };
        self.has_all_clusters() && !resource.clusters.iter().all(|name| clusters.has_acked(name))
    }

    /// Whether something gone must stay: a route still leads to it, or the cluster whose endpoints it is.
    pub(super) fn is_in_use(&self, kind: ResourceType, name: &Arc<str>) -> bool {
        if !self.has_all_clusters() && kind == ResourceType::Endpoint {
            return false;
        }
        match kind {
            // Who came back has routes that it has not spoken of yet.
            ResourceType::Cluster
                if self.returning && self.only.is_none() && !self.types.contains_key(&ResourceType::Route) =>
            {
                true
            }
            ResourceType::Cluster => [ResourceType::Listener, ResourceType::Route]
                .iter()
                .filter_map(|kind| self.types.get(kind))
                .any(|state| state.leads_to(name)),
            ResourceType::Endpoint => {
                self.types.get(&ResourceType::Cluster).is_some_and(|clusters| clusters.has_sent(name))
            }
            _ => false,
        }
    }
}

/// Whether so many names, and of such lengths, may be named beside those there are.
pub(super) fn check_lengths<'a>(
    others: usize,
    mut names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), Refusal> {
    if others + names.len() > MAX_NAMES || names.any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(Refusal::TooMuch);
    }
    Ok(())
}
