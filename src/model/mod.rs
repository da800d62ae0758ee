//! The nouns: plain values without behaviour of their own, valid by construction. What comes from outside is parsed
//! once, in `parse`, into these types; inside nobody checks again.

use std::time::{SystemTime, UNIX_EPOCH};

pub mod agent_card;
pub mod check;
pub mod health;
pub mod ids;
pub mod instance;
pub mod labels;
pub mod limits;
pub mod load;
pub mod node;
pub mod parse;
pub mod raw;
pub mod replica;
pub mod resource_type;
pub mod selector;
pub mod service;
pub mod shared;
pub mod wire;

pub use check::{Check, HttpProbe, Probe, Statuses, Threshold, Tls, TlsTrust};
pub use health::{
    Brake, BrakeScope, CheckKind, CheckState, CheckStatus, Health, History, Override, OverrideHealth, Transition, Turn,
    Verdict,
};
pub use ids::{Incarnation, InstanceId, InstanceKey, LeaseId, Namespace, PortName, Revision, ServiceKey, ServiceName};
pub use instance::{
    Capability, Drain, Instance, InstanceSpec, Lease, Locality, Port, Protocol, RemovalCause, Share, Sla, Tombstone,
};
pub use labels::Labels;
pub use limits::{Invalid, Limits};
pub use load::LoadPolicy;
pub use node::{Node, NodeSelector};
pub use raw::{RawKey, RawResource};
pub use replica::{Replica, ReplicaId};
pub use resource_type::ResourceType;
pub use selector::InstanceSelector;
pub use service::{Exports, Failover, Service, ServicePatch, ServicePort};

/// A moment in Unix milliseconds: for people and for records, never to time anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_millis().try_into().unwrap_or(u64::MAX))
    }
}
