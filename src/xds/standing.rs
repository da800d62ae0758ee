//! How a session stands: what its client has, what it has not ACKed, and what it refused. Read by those who show it or
//! wait for it; nothing here changes anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::{envoy::service::discovery::v3::DiscoveryResponse, google::protobuf::Any};
use prost::Message;

use super::{
    protocol::TypeStatus,
    resource::{Resource, Version},
    session::Session,
    type_state::{Held, Known, TypeState},
};
use crate::{model::Revision, translate::ResourceType};

/// One name that a client asked for or was sent.
#[derive(Clone, Debug)]
pub struct Holding {
    pub kind: ResourceType,
    pub name: Arc<str>,
    pub sent: Option<Version>,
    pub acked: Option<Version>,
    /// What the client has, if its bytes are known: an earlier stream may have given it.
    pub acked_resource: Option<Arc<Resource>>,
    /// Its last content was refused.
    pub rejected: bool,
}

/// Why a client has not got a name's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It is still to be sent, or to be answered.
    Pending,
    Rejected,
}

impl Session {
    /// All names that are subscribed to or held. One that is subscribed to and does not exist was sent in no version.
    pub fn holdings(&self) -> Vec<Holding> {
        self.types.iter().flat_map(|(kind, state)| state.holdings(*kind)).collect()
    }

    /// The revision of the oldest change of a type that the client has not ACKed; none if it is up to date. What the
    /// change was is not remembered with the names yet: any may be as old as the registry.
    pub fn pending(&self, kind: ResourceType) -> Option<Revision> {
        self.types.get(&kind).filter(|state| state.is_pending()).map(|_| Revision(0))
    }

    /// Whether the client has not ACKed a name's state as of a revision. None if it has, or does not follow the name.
    pub fn lags(&self, kind: ResourceType, name: &str, _revision: Revision) -> Option<Lag> {
        let state = self.types.get(&kind).filter(|_| self.is_subscribed(kind, name))?;
        state.lag(name)
    }

    /// Whether it follows a name: has named it, or means it by the wildcard.
    pub fn is_subscribed(&self, kind: ResourceType, name: &str) -> bool {
        self.types.get(&kind).is_some_and(|state| {
            let by_wildcard = kind == ResourceType::Cluster || state.held.contains_key(name);
            state.subscription.names().contains(name) || (state.subscription.is_wildcard() && by_wildcard)
        })
    }

    /// The types that it has asked for.
    pub fn kinds(&self) -> impl Iterator<Item = ResourceType> {
        self.types.keys().copied()
    }

    /// The names that are asked for.
    pub fn names(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<str>> {
        self.types.get(&kind).into_iter().flat_map(|state| state.subscription.names())
    }

    /// The names that a client has not ACKed, or refused: as `lags`, for all that it follows.
    pub fn lagging(&self, kind: ResourceType) -> BTreeMap<Arc<str>, Lag> {
        self.types.get(&kind).map(TypeState::lagging).unwrap_or_default()
    }

    /// Whether the client has refused something, and has not accepted another content of it since.
    pub fn has_rejected(&self, kind: ResourceType) -> bool {
        self.types.get(&kind).is_some_and(|state| {
            let status = state.status();
            status.rejected || (status.nacks > 0 && state.held.values().any(|held| held.rejected.is_some()))
        })
    }

    /// The status of each type. A client that came back up to date has the versions that it brought.
    pub fn standing(&self) -> impl Iterator<Item = (ResourceType, TypeStatus)> {
        self.types.iter().map(|(kind, state)| (*kind, state.standing()))
    }
}

impl TypeState {
    fn is_pending(&self) -> bool {
        self.has_work() || !self.outstanding.is_empty()
    }

    fn lag(&self, name: &str) -> Option<Lag> {
        let mut on_its_way = self.outstanding.iter().flat_map(|outstanding| &outstanding.contents);
        if self.dirty.contains(name) || self.asked.contains(name) || on_its_way.any(|(sent, _)| **sent == *name) {
            return Some(Lag::Pending);
        }
        let rejected = |held: &&Held| held.rejected.is_some();
        self.held.get(name).filter(rejected).map(|_| Lag::Rejected)
    }

    fn lagging(&self) -> BTreeMap<Arc<str>, Lag> {
        let rejected = self.held.iter().filter(|(_, held)| held.rejected.is_some());
        let rejected = rejected.map(|(name, _)| (name.clone(), Lag::Rejected));
        let on_its_way = self.outstanding.iter().flat_map(|outstanding| &outstanding.contents).map(|(name, _)| name);
        let pending = self.dirty.iter().chain(&self.asked).chain(on_its_way);
        // What is pending goes last: a newer content of what was refused may be accepted.
        rejected.chain(pending.map(|name| (name.clone(), Lag::Pending))).collect()
    }

    fn holdings(&self, kind: ResourceType) -> impl Iterator<Item = Holding> {
        let names: BTreeSet<&Arc<str>> = self.subscription.names().iter().chain(self.held.keys()).collect();
        names.into_iter().map(move |name| {
            let held = self.held.get(name);
            let version = |known: Option<&Known>| known.map(Known::version);
            let acked = held.and_then(|held| held.acked.as_ref());
            Holding {
                kind,
                name: name.clone(),
                sent: version(held.and_then(|held| held.sent.as_ref())),
                acked: version(acked),
                acked_resource: acked.and_then(|known| match known {
                    Known::Resource(resource) => Some(resource.clone()),
                    Known::Version(_) => None,
                }),
                rejected: held.is_some_and(|held| held.rejected.is_some()),
            }
        })
    }

    fn standing(&self) -> TypeStatus {
        let mut status = self.status();
        let unsaid = |version: &str| version.is_empty() && !self.held.is_empty();
        if unsaid(&status.version_acked) {
            let acked = self.held.values().filter_map(|held| held.acked.as_ref()).map(|known| known.version().0);
            let digest = acked.reduce(u128::wrapping_add);
            status.version_acked = digest.map(|digest| Version(digest).to_string()).unwrap_or_default();
        }
        if unsaid(&status.version_sent) {
            status.version_sent = Version(self.digest).to_string();
        }
        status
    }
}

/// A resource as the message that carries it.
pub fn any(resource: &Resource) -> Option<Any> {
    // Its bytes are an element of a response.
    let response = DiscoveryResponse::decode(resource.state_of_the_world().clone()).ok()?;
    response.resources.into_iter().next()
}
