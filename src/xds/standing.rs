//! How a session stands: what its client has, what it has not ACKed, and what it refused. Read by those who show it or
//! wait for it; nothing here changes anything.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::google::protobuf::Any;

use super::{
    name_set::NameSet,
    resource::{Resource, Version},
    session::Session,
    type_state::TypeState,
};
use crate::model::{ResourceType, Revision};

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
        self.states().flat_map(TypeState::holdings).collect()
    }

    /// The revision of the oldest change of a type that the client has not ACKed; none if it is up to date.
    pub fn pending(&self, kind: ResourceType) -> Option<Revision> {
        self.state(kind)?.behind()
    }

    /// Whether the client has not ACKed a name's state as of a revision. None if it has, or does not follow the name.
    pub fn lags(&self, kind: ResourceType, name: &str, revision: Revision) -> Option<Lag> {
        let state = self.state(kind).filter(|_| self.is_subscribed(kind, name))?;
        let (_, rejected) = state.behind_on(name).filter(|(since, _)| *since <= revision)?;
        Some(if rejected { Lag::Rejected } else { Lag::Pending })
    }

    /// Whether it follows a name: has named it, or means it by the wildcard.
    pub fn is_subscribed(&self, kind: ResourceType, name: &str) -> bool {
        self.state(kind).is_some_and(|state| {
            let by_wildcard = kind == ResourceType::Cluster || state.has_sent(name);
            state.subscription.names().contains(name) || (state.subscription.is_wildcard() && by_wildcard)
        })
    }

    /// The types that it has asked for.
    pub fn kinds(&self) -> impl Iterator<Item = ResourceType> {
        self.states().map(|state| state.kind)
    }

    /// The names that are asked for.
    pub fn names(&self, kind: ResourceType) -> Option<&Arc<NameSet>> {
        self.state(kind).map(|state| state.subscription.names())
    }

    /// The names that a client has not ACKed, or refused: as `lags`, for all that it follows.
    pub fn lagging(&self, kind: ResourceType) -> BTreeMap<Arc<str>, Lag> {
        self.state(kind).map(TypeState::lagging).unwrap_or_default()
    }

    /// Whether the client has refused something, and has not accepted another content of it since.
    pub fn has_rejected(&self, kind: ResourceType) -> bool {
        self.state(kind).is_some_and(|state| state.status().rejected || state.held().rejected_since().is_some())
    }
}

impl TypeState {
    fn lagging(&self) -> BTreeMap<Arc<str>, Lag> {
        if self.behind().is_none() {
            return BTreeMap::new();
        }
        let lag = |(name, rejected)| (name, if rejected { Lag::Rejected } else { Lag::Pending });
        self.behind_on_each(self.all_names()).map(lag).collect()
    }

    fn holdings(&self) -> impl Iterator<Item = Holding> {
        self.all_names().into_iter().map(|name| {
            let version = |resource: Option<&Arc<Resource>>| resource.map(|resource| resource.version);
            let acked = self.held().acked(&name);
            Holding {
                kind: self.kind,
                sent: version(self.held().sent(&name)),
                acked: version(acked),
                acked_resource: acked.filter(|resource| resource.is_known()).cloned(),
                rejected: self.held().rejected(&name).is_some(),
                name,
            }
        })
    }

    /// Subscribed to, or held.
    fn all_names(&self) -> Vec<Arc<str>> {
        let mut names = self.held().names();
        names.extend(self.subscription.names().iter().cloned());
        names.sort();
        names.dedup();
        names
    }
}

/// A resource as the message that carries it.
pub fn any(resource: &Resource) -> Any {
    Any { type_url: resource.kind.type_url().into(), value: resource.body().to_vec() }
}
