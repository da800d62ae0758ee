//! What a command would write, given the state: a transaction, or a refusal. Pure.
//!
//! Fencing: an incarnation is a number that only grows. Refused are an older one than what stands or stood under the
//! key, and the same one after somebody's decision (deregistered, drained, replaced). After an expiry the same one may
//! come back by registering. A lease is of one incarnation.

mod axes;
pub mod footprints;
mod leave;
mod owner;
mod raw;
mod register;
mod service;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    command::{Command, Error},
    state::State,
};
use crate::{
    model::{
        Incarnation, Instance, InstanceKey, LeaseId, Limits, RemovalCause, Revision, ServiceKey, ServicePort,
        Tombstone, Transition, Turn, UnixMillis,
    },
    storage::{Change, Key, Record, Transaction},
};

/// What holds a limited number of things.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    Service(ServiceKey),
    Lease(LeaseId),
    RawResources,
    VirtualServices,
}

/// What a command is about to do.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Empty when there is nothing to change.
    pub transaction: Transaction,
    /// Addresses that it takes: nobody else may take them at the same time.
    pub addresses: Vec<(ServiceKey, IpAddr, u16)>,
    /// What it looks at and must not be looked at by another meanwhile, though it does not write it.
    pub exclusive: Vec<Key>,
    /// How many join something that holds a limited number, and how many it has room for.
    pub joining: Vec<(Group, usize, usize)>,
    pub lease: Option<LeaseId>,
    /// The instances that the command names.
    pub instances: Vec<InstanceKey>,
}

impl Plan {
    fn expect(&mut self, key: Key, revision: Revision) {
        if !self.transaction.expect.iter().any(|(known, _)| *known == key) {
            self.transaction.expect.push((key, revision));
        }
    }

    fn put(&mut self, key: Key, record: Record) {
        self.transaction.changes.push(Change { key, record: Some(record) });
    }

    /// Puts what became of an instance, with what follows for its verdict and history; nothing if it is the same.
    fn change(&mut self, before: &Instance, next: Instance, now: UnixMillis) {
        let next = next.settled(Some(before), now);
        if next != *before {
            self.put(Key::Instance(next.key.clone()), Record::Instance(Arc::new(next)));
        }
    }

    /// Notes that some come to a group, if it has room for them.
    fn join(&mut self, group: Group, added: usize, present: usize, limit: usize) -> Result<(), Error> {
        let room = limit.saturating_sub(present);
        if added > room {
            let what = match group {
                Group::Service(service) => format!("the number of instances of {service}"),
                Group::Lease(lease) => format!("the number of instances of lease {lease}"),
                Group::RawResources => "the number of resources".to_owned(),
                Group::VirtualServices => "the number of virtual services".to_owned(),
            };
            return Err(Error::LimitReached { what, limit });
        }
        if added > 0 {
            self.joining.push((group, added, room));
        }
        Ok(())
    }

    fn delete(&mut self, key: Key) {
        self.transaction.changes.push(Change { key, record: None });
    }
}

impl State {
    pub fn plan(&self, command: &Command, now: UnixMillis, limits: &Limits) -> Result<Plan, Error> {
        match command {
            Command::Register(register) => self.plan_register(register, now, limits),
            Command::Deregister { key, incarnation } => self.plan_deregister(key, *incarnation, now),
            Command::Drain { key, incarnation, time } => self.plan_drain(key, *incarnation, *time, now),
            Command::PutService { key, patch } => self.plan_put_service(key, patch, limits),
            Command::DeleteService { key } => self.plan_delete_service(key),
            Command::PutRaw { key, resource } => self.plan_put_raw(key, resource, limits),
            Command::DeleteRaw { key } => self.plan_delete_raw(key),
            Command::Evict { key, incarnation } => Ok(self.plan_evict(key, *incarnation, now)),
            Command::SetOverride { key, say } => self.plan_override(key, say.as_ref(), now),
            Command::ReportChecks(reports) => Ok(self.plan_checks(reports, now)),
            Command::SetShares { service, shares } => Ok(self.plan_shares(service, shares, now)),
            Command::Believe(instances) => Ok(self.plan_believe(instances, now)),
            Command::Lapse { lease, scope } => Ok(self.plan_lapse(*lease, *scope, now, limits)),
            // It writes nothing itself; see `keeping`.
            Command::ReleaseBrake(_) => Ok(Plan::default()),
            Command::Restore(lease) => Ok(self.plan_restore(*lease, now, limits)),
            Command::Expire(lease) => Ok(self.plan_expire(*lease, now, limits)),
            Command::Adopt(leases) => Ok(self.plan_adopt(leases)),
            Command::MendLease(lease) => Ok(self.plan_mend_lease(*lease)),
            Command::FinishDrain { key, incarnation } => Ok(self.plan_finish_drain(key, *incarnation, now)),
            Command::Forget(keys) => Ok(self.plan_forget(keys)),
        }
    }

    /// A lease that loses its last instance goes with it.
    fn delete_leases_left(&self, left: &[(InstanceKey, LeaseId)], kept: LeaseId, plan: &mut Plan) {
        let leases: BTreeSet<LeaseId> = left.iter().map(|(_, lease)| *lease).filter(|lease| *lease != kept).collect();
        for lease in leases {
            let Some(state) = self.lease(lease) else { continue };
            plan.expect(Key::Lease(lease), state.revision);
            // Who else leaves it has to see that these have left: the last one takes the lease along.
            plan.exclusive.push(Key::Lease(lease));
            let leaving = |key: &InstanceKey| left.iter().any(|(left, _)| left == key);
            if state.members.iter().all(leaving) {
                plan.delete(Key::Lease(lease));
            }
        }
    }
}

fn tombstone(instance: &Instance, cause: RemovalCause, now: UnixMillis) -> Record {
    let turn = Transition { at: now, turn: Turn::Removed(cause), reason: "".into() };
    let history = instance.history.with(turn);
    Record::Tombstone(Tombstone { incarnation: instance.incarnation, cause, removed_at: now, history })
}

fn check_newer(key: &InstanceKey, given: Incarnation, current: Option<Incarnation>) -> Result<(), Error> {
    match current {
        Some(current) if given < current => Err(Error::OlderIncarnation { key: key.clone(), given, current }),
        _ => Ok(()),
    }
}

fn check_protocol(
    service: &ServiceKey,
    port: &crate::model::PortName,
    fixed: Option<ServicePort>,
    given: crate::model::Protocol,
) -> Result<(), Error> {
    match fixed {
        Some(fixed) if fixed.protocol != given => {
            Err(Error::ProtocolConflict { service: service.clone(), port: port.clone(), fixed: fixed.protocol, given })
        }
        _ => Ok(()),
    }
}
