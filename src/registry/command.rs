//! What can be asked of the registry, and how it can refuse.

use std::{sync::Arc, time::Duration};

use super::{brake::Release, digest::Digest};
use crate::model::{
    BrakeScope, CheckState, Incarnation, Instance, InstanceId, InstanceKey, InstanceSpec, Invalid, LeaseId,
    OverrideHealth, PortName, Protocol, RawKey, RawResource, RemovalCause, Revision, ServiceKey, ServicePatch, Share,
};

/// A registration of one or more instances under one lease.
#[derive(Clone, Debug)]
pub struct Register {
    /// The lease to share; none means the lease that the instances have, else a new one.
    pub lease: Option<LeaseId>,
    /// None means the lease's present TTL, else the default.
    pub ttl: Option<Duration>,
    /// None means the instances' present incarnation.
    pub incarnation: Option<Incarnation>,
    pub instances: Vec<(InstanceKey, Arc<InstanceSpec>)>,
    /// The id to use if a lease has to be made. From a random source.
    pub new_lease: LeaseId,
}

/// What a probe found of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    pub key: InstanceKey,
    pub incarnation: Incarnation,
    pub state: CheckState,
    /// The probes are not to be believed: a failure takes nobody out of traffic.
    pub braked: bool,
    /// The service has no such check any more.
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub enum Command {
    Register(Register),
    Deregister {
        key: InstanceKey,
        incarnation: Option<Incarnation>,
    },
    Drain {
        key: InstanceKey,
        incarnation: Option<Incarnation>,
        time: Option<Duration>,
    },
    PutService {
        key: ServiceKey,
        patch: ServicePatch,
    },
    DeleteService {
        key: ServiceKey,
    },
    PutRaw {
        key: RawKey,
        resource: RawResource,
    },
    DeleteRaw {
        key: RawKey,
    },
    /// Removes an instance whose liveness check has failed for so long.
    Evict {
        key: InstanceKey,
        incarnation: Incarnation,
    },
    /// Says something over an instance's health, or takes it back.
    SetOverride {
        key: InstanceKey,
        say: Option<(OverrideHealth, Arc<str>)>,
    },
    /// What probes found; at most one report an instance.
    ReportChecks(Vec<CheckReport>),
    /// Steps of the weights of a service's instances.
    SetShares {
        service: ServiceKey,
        shares: Vec<(InstanceId, Incarnation, Share)>,
    },
    /// Failing checks that were not believed count from now on.
    Believe(Vec<(InstanceKey, Incarnation)>),
    /// A lease's deadline has passed, and the brake keeps its instances.
    Lapse {
        lease: LeaseId,
        scope: BrakeScope,
    },
    /// Ends the brake by an operator's word.
    ReleaseBrake(Release),
    /// The agent of a lease that lapsed is heard again.
    Restore(LeaseId),
    /// A lease's deadline has passed.
    Expire(LeaseId),
    /// Leases that this replica times from now on.
    Adopt(Vec<LeaseId>),
    /// A lease that was deleted though it has members is put back.
    MendLease(LeaseId),
    /// An instance's drain time is over.
    FinishDrain {
        key: InstanceKey,
        incarnation: Incarnation,
    },
    /// Tombstones that have served their time.
    Forget(Vec<InstanceKey>),
}

impl Command {
    /// As the metrics name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Deregister { .. } => "deregister",
            Self::Drain { .. } => "drain",
            Self::PutService { .. } => "put_service",
            Self::DeleteService { .. } => "delete_service",
            Self::PutRaw { .. } => "put_raw",
            Self::DeleteRaw { .. } => "delete_raw",
            Self::Evict { .. } => "evict",
            Self::SetOverride { .. } => "set_override",
            Self::ReportChecks(_) => "report_checks",
            Self::SetShares { .. } => "set_shares",
            Self::Believe(_) => "believe",
            Self::Lapse { .. } => "lapse",
            Self::ReleaseBrake(_) => "release_brake",
            Self::Restore(_) => "restore",
            Self::Expire(_) => "expire",
            Self::Adopt(_) => "adopt",
            Self::MendLease(_) => "mend_lease",
            Self::FinishDrain { .. } => "finish_drain",
            Self::Forget(_) => "forget",
        }
    }
}

/// A value with the revision of the write that made it.
#[derive(Debug, PartialEq)]
pub struct Versioned<T> {
    pub revision: Revision,
    pub value: Arc<T>,
}

impl<T> Clone for Versioned<T> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, value: self.value.clone() }
    }
}

/// What a command led to: durable and applied.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub revision: Revision,
    /// The instances that the command named, as they are now; those removed are left out.
    pub instances: Vec<Versioned<Instance>>,
    pub lease: Option<(LeaseId, Duration)>,
    /// Of what has been said under that lease.
    pub digest: Digest,
    /// How many leases the brake has let go.
    pub released: usize,
}

/// A refusal changes nothing. Variants by what the caller does next; `api::error` is the table of codes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no {kind} {name}")]
    NotFound { kind: &'static str, name: String },
    #[error("{key} is registered by incarnation {}, which is newer than {}", current.0, given.0)]
    OlderIncarnation { key: InstanceKey, given: Incarnation, current: Incarnation },
    #[error("{key} of incarnation {} was {}: register with a newer incarnation", incarnation.0, cause.as_str())]
    Fenced { key: InstanceKey, incarnation: Incarnation, cause: RemovalCause },
    #[error("lease {lease} is not known, or is over: register without it")]
    LeaseNotFound { lease: LeaseId },
    #[error("lease {lease} is of incarnation {}, not {}", current.0, given.0)]
    LeaseIncarnation { lease: LeaseId, given: Incarnation, current: Incarnation },
    #[error("port {port} of {service} speaks {}, and cannot speak {}", fixed.as_str(), given.as_str())]
    ProtocolConflict { service: ServiceKey, port: PortName, fixed: Protocol, given: Protocol },
    #[error("{service} still has {instances} instances")]
    NotEmpty { service: ServiceKey, instances: usize },
    #[error("{what} has reached its limit of {limit}")]
    LimitReached { what: String, limit: usize },
    #[error("this is more than one write may be, ask for less at once: {what}")]
    TooLarge { what: String },
    #[error("the registry cannot write now, try again: {reason}")]
    Unavailable { reason: String },
}

impl Error {
    pub fn no_instance(key: &InstanceKey) -> Self {
        Self::NotFound { kind: "instance", name: key.to_string() }
    }

    pub fn no_resource(key: &RawKey) -> Self {
        Self::NotFound { kind: "resource", name: key.to_string() }
    }

    pub fn no_service(key: &ServiceKey) -> Self {
        Self::NotFound { kind: "service", name: key.to_string() }
    }
}
