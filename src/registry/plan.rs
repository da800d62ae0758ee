//! What a command would write, given the state: a transaction, or a refusal. Pure.
//!
//! Fencing: an incarnation is a number that only grows. Refused are an older one than what stands or stood under the
//! key, and the same one after somebody's decision (deregistered, drained, replaced). After an expiry the same one may
//! come back by registering. A lease is of one incarnation.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    command::{Command, Error, Register},
    state::{ServiceState, State},
};
use crate::{
    model::{
        Drain, Incarnation, Instance, InstanceKey, InstanceSpec, Invalid, Lease, LeaseId, Limits, RemovalCause,
        Revision, Service, ServiceKey, ServicePort, Tombstone, UnixMillis, service::DEFAULT_DRAIN_TIME, verdict,
    },
    storage::{Change, Key, Record, Transaction},
};

/// What a command is about to do.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Empty when there is nothing to change.
    pub transaction: Transaction,
    /// Addresses that it takes: nobody else may take them at the same time.
    pub addresses: Vec<(ServiceKey, IpAddr, u16)>,
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

    fn delete(&mut self, key: Key) {
        self.transaction.changes.push(Change { key, record: None });
    }
}

/// The stage on which commands are planned together: what one touches, no other may until it is applied.
#[derive(Debug, Default)]
pub struct Footprints {
    read: HashSet<Key>,
    written: HashSet<Key>,
    addresses: HashSet<(ServiceKey, IpAddr, u16)>,
}

impl Footprints {
    /// Adds a plan's footprint; false if it meets one that is there already.
    pub fn add(&mut self, plan: &Plan) -> bool {
        let writes = || plan.transaction.changes.iter().map(|change| &change.key);
        let reads = || plan.transaction.expect.iter().map(|(key, _)| key);
        let free = writes().all(|key| !self.written.contains(key) && !self.read.contains(key))
            && reads().all(|key| !self.written.contains(key))
            && plan.addresses.iter().all(|address| !self.addresses.contains(address));
        self.written.extend(writes().cloned());
        self.read.extend(reads().cloned());
        self.addresses.extend(plan.addresses.iter().cloned());
        free
    }
}

impl State {
    pub fn plan(&self, command: &Command, now: UnixMillis, limits: &Limits) -> Result<Plan, Error> {
        match command {
            Command::Register(register) => self.plan_register(register, now, limits),
            Command::Deregister { key, incarnation } => self.plan_deregister(key, *incarnation, now),
            Command::Drain { key, incarnation, time } => self.plan_drain(key, *incarnation, *time, now),
            Command::PutService { key, service } => self.plan_put_service(key, service, limits),
            Command::DeleteService { key } => self.plan_delete_service(key),
            Command::Expire(lease) => Ok(self.plan_expire(*lease, now, limits)),
            Command::FinishDrain { key, incarnation } => Ok(self.plan_finish_drain(key, *incarnation, now)),
            Command::Forget(keys) => Ok(self.plan_forget(keys)),
        }
    }

    fn plan_register(&self, register: &Register, now: UnixMillis, limits: &Limits) -> Result<Plan, Error> {
        check_distinct(&register.instances)?;
        let incarnations = self.incarnations(register)?;
        let (lease_id, lease) = self.lease_for(register, &incarnations)?;
        let incarnation = lease.map_or(incarnations[0], |lease| lease.incarnation);
        if let Some(position) = incarnations.iter().position(|&given| given != incarnation) {
            let given = incarnations[position];
            return Err(Error::LeaseIncarnation { lease: lease_id, given, current: incarnation });
        }
        let mut plan = Plan { lease: Some(lease_id), ..Plan::default() };
        let lease_revision = self.lease(lease_id).map(|state| state.lease.revision).unwrap_or_default();
        plan.expect(Key::Lease(lease_id), lease_revision);
        self.put_services(register, &mut plan, limits)?;
        let ttl = register.ttl.or(lease.map(|lease| lease.ttl)).unwrap_or(limits.default_ttl());
        if lease != Some(Lease { ttl, incarnation }) {
            plan.put(Key::Lease(lease_id), Record::Lease(Lease { ttl, incarnation }));
        }
        let mut left: Vec<(InstanceKey, LeaseId)> = Vec::new();
        for (key, spec) in &register.instances {
            self.put_instance_plan(key, spec, lease_id, incarnation, now, &mut plan, &mut left);
        }
        self.check_counts(register, lease_id, limits)?;
        self.delete_leases_left(&left, lease_id, &mut plan);
        Ok(plan)
    }

    /// The incarnation that each instance of a registration will have.
    fn incarnations(&self, register: &Register) -> Result<Vec<Incarnation>, Error> {
        let named = register.lease.and_then(|id| self.lease(id)).map(|state| state.lease.value.incarnation);
        let incarnation = |(key, _): &(InstanceKey, InstanceSpec)| {
            let current = self.snapshot().instance(key).map(|instance| instance.value.incarnation);
            let gone = self.tombstone(key).map(|(_, tombstone)| *tombstone);
            // Whoever shares a lease is of its incarnation, and is fenced by it like one who says so.
            let Some(given) = register.incarnation.or(named) else {
                let after = |gone: Tombstone| Incarnation(gone.incarnation.0.saturating_add(1));
                return Ok(current.or(gone.map(after)).unwrap_or(Incarnation(1)));
            };
            check_newer(key, given, current.or(gone.map(|gone| gone.incarnation)))?;
            match gone {
                Some(gone) if gone.incarnation == given && !gone.cause.may_return() => {
                    Err(Error::Fenced { key: key.clone(), incarnation: given, cause: gone.cause })
                }
                _ => Ok(given),
            }
        };
        let mut incarnations: Vec<_> = register.instances.iter().map(incarnation).collect::<Result<_, _>>()?;
        if register.incarnation.is_none() {
            // One lease is of one incarnation: of several guesses the highest fits all.
            let highest = incarnations.iter().max().copied().unwrap_or_default();
            incarnations.fill(highest);
        }
        Ok(incarnations)
    }

    /// The lease named, else one that an instance has in this incarnation, else a new one.
    fn lease_for(&self, register: &Register, incarnations: &[Incarnation]) -> Result<(LeaseId, Option<Lease>), Error> {
        if let Some(id) = register.lease {
            let state = self.lease(id).ok_or(Error::LeaseNotFound { lease: id })?;
            return Ok((id, Some(*state.lease.value)));
        }
        let kept = register.instances.iter().zip(incarnations).find_map(|((key, _), incarnation)| {
            let instance = &self.snapshot().instance(key)?.value;
            let lease = self.lease(instance.lease)?;
            (instance.incarnation == *incarnation).then_some((instance.lease, Some(*lease.lease.value)))
        });
        Ok(kept.unwrap_or((register.new_lease, None)))
    }

    /// Makes the services that are missing, and adds the ports that are new to them.
    fn put_services(&self, register: &Register, plan: &mut Plan, limits: &Limits) -> Result<(), Error> {
        let services: BTreeSet<&ServiceKey> = register.instances.iter().map(|(key, _)| &key.service).collect();
        for key in services {
            let current = self.snapshot().services.get(key).map(|state| &state.service);
            let mut service = current.map(|current| Service::clone(&current.value));
            for (_, spec) in register.instances.iter().filter(|(instance, _)| instance.service == *key) {
                add_ports(key, &mut service, spec)?;
            }
            let Some(service) = service else { continue };
            if service.ports.len() > limits.ports {
                return Err(Error::LimitReached { what: format!("the ports of {key}"), limit: limits.ports });
            }
            plan.expect(Key::Service(key.clone()), current.map(|current| current.revision).unwrap_or_default());
            if current.is_none_or(|current| *current.value != service) {
                plan.put(Key::Service(key.clone()), Record::Service(Arc::new(service)));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of plan_register, with what that has worked out")]
    fn put_instance_plan(
        &self,
        key: &InstanceKey,
        spec: &InstanceSpec,
        lease: LeaseId,
        incarnation: Incarnation,
        now: UnixMillis,
        plan: &mut Plan,
        left: &mut Vec<(InstanceKey, LeaseId)>,
    ) {
        plan.instances.push(key.clone());
        let current = self.snapshot().instance(key);
        let gone = self.tombstone(key).map(|(revision, _)| *revision);
        let revision = current.map(|current| current.revision).or(gone).unwrap_or_default();
        plan.expect(Key::Instance(key.clone()), revision);
        let instance = successor(key, spec, lease, incarnation, current.map(|current| &*current.value), now);
        if let Some(current) = current {
            if *current.value == instance {
                return;
            }
            if current.value.lease != lease {
                left.push((key.clone(), current.value.lease));
            }
        }
        if let Some(service) = self.snapshot().services.get(&key.service) {
            self.replace_others(service, &instance, now, plan, left);
        }
        let address = |port: &crate::model::Port| (key.service.clone(), spec.address, port.number);
        plan.addresses.extend(spec.ports.iter().map(address));
        plan.put(Key::Instance(key.clone()), Record::Instance(Arc::new(instance)));
    }

    /// An address and port is one instance's: the newest registration's.
    fn replace_others(
        &self,
        service: &ServiceState,
        instance: &Instance,
        now: UnixMillis,
        plan: &mut Plan,
        left: &mut Vec<(InstanceKey, LeaseId)>,
    ) {
        for port in &instance.spec.ports {
            let Some(other) = service.addresses.get(&(instance.spec.address, port.number)) else { continue };
            let Some(other) = service.instances.get(other) else { continue };
            let key = Key::Instance(other.value.key.clone());
            if other.value.key == instance.key || plan.transaction.changes.iter().any(|change| change.key == key) {
                continue;
            }
            plan.expect(key.clone(), other.revision);
            left.push((other.value.key.clone(), other.value.lease));
            plan.put(key, tombstone(&other.value, RemovalCause::Replaced, now));
        }
    }

    fn check_counts(&self, register: &Register, lease: LeaseId, limits: &Limits) -> Result<(), Error> {
        let services: BTreeSet<&ServiceKey> = register.instances.iter().map(|(key, _)| &key.service).collect();
        let added = |service: &ServiceKey| {
            let of = register.instances.iter().map(|(key, _)| key).filter(|key| key.service == *service);
            of.filter(|key| self.snapshot().instance(key).is_none()).count()
        };
        for service in services {
            let present = self.snapshot().services.get(service).map_or(0, |state| state.instances.len());
            let added = added(service);
            if added > 0 && present + added > limits.instances_per_service {
                let what = format!("the number of instances of {service}");
                return Err(Error::LimitReached { what, limit: limits.instances_per_service });
            }
        }
        let members = self.lease(lease).map(|state| &state.members);
        let joining = register.instances.iter().filter(|(key, _)| members.is_none_or(|m| !m.contains(key))).count();
        if joining > 0 && members.map_or(0, BTreeSet::len) + joining > limits.instances_per_lease {
            let what = format!("the number of instances of lease {lease}");
            return Err(Error::LimitReached { what, limit: limits.instances_per_lease });
        }
        Ok(())
    }

    /// A lease that loses its last instance goes with it.
    fn delete_leases_left(&self, left: &[(InstanceKey, LeaseId)], kept: LeaseId, plan: &mut Plan) {
        let leases: BTreeSet<LeaseId> = left.iter().map(|(_, lease)| *lease).filter(|lease| *lease != kept).collect();
        for lease in leases {
            let Some(state) = self.lease(lease) else { continue };
            plan.expect(Key::Lease(lease), state.lease.revision);
            let leaving = |key: &InstanceKey| left.iter().any(|(left, _)| left == key);
            if state.members.iter().all(leaving) {
                plan.delete(Key::Lease(lease));
            }
        }
    }

    fn plan_deregister(
        &self,
        key: &InstanceKey,
        incarnation: Option<Incarnation>,
        now: UnixMillis,
    ) -> Result<Plan, Error> {
        let Some(current) = self.snapshot().instance(key) else {
            // Said twice is said once: an outcome that was not heard may be asked for again.
            return self.tombstone(key).map(|_| Plan::default()).ok_or_else(|| Error::no_instance(key));
        };
        if let Some(given) = incarnation {
            check_newer(key, given, Some(current.value.incarnation))?;
        }
        Ok(self.remove([key], RemovalCause::Deregistered, now))
    }

    fn plan_drain(
        &self,
        key: &InstanceKey,
        incarnation: Option<Incarnation>,
        time: Option<Duration>,
        now: UnixMillis,
    ) -> Result<Plan, Error> {
        let current = self.snapshot().instance(key).ok_or_else(|| Error::no_instance(key))?;
        if let Some(given) = incarnation {
            check_newer(key, given, Some(current.value.incarnation))?;
        }
        let of_service = self.snapshot().services.get(&key.service).map(|state| state.service.value.drain_time);
        let time = time.or(of_service).unwrap_or(DEFAULT_DRAIN_TIME);
        let mut plan = Plan { instances: vec![key.clone()], ..Plan::default() };
        plan.expect(Key::Instance(key.clone()), current.revision);
        if current.value.drain.is_none() {
            let drain = Some(Drain { since: now, time });
            let instance = Instance { drain, health_since: now, ..Instance::clone(&current.value) };
            plan.put(Key::Instance(key.clone()), Record::Instance(Arc::new(instance)));
        }
        Ok(plan)
    }

    fn plan_put_service(&self, key: &ServiceKey, service: &Service, limits: &Limits) -> Result<Plan, Error> {
        let current = self.snapshot().services.get(key).map(|state| &state.service);
        let mut ports = current.map(|current| current.value.ports.clone()).unwrap_or_default();
        for (name, port) in &service.ports {
            let fixed = ports.insert(name.clone(), *port);
            check_protocol(key, name, fixed, port.protocol)?;
        }
        if ports.len() > limits.ports {
            return Err(Error::LimitReached { what: format!("the ports of {key}"), limit: limits.ports });
        }
        let service = Service { ports, ..service.clone() };
        let mut plan = Plan::default();
        plan.expect(Key::Service(key.clone()), current.map(|current| current.revision).unwrap_or_default());
        if current.is_none_or(|current| *current.value != service) {
            plan.put(Key::Service(key.clone()), Record::Service(Arc::new(service)));
        }
        Ok(plan)
    }

    fn plan_delete_service(&self, key: &ServiceKey) -> Result<Plan, Error> {
        let state = self.snapshot().services.get(key).ok_or_else(|| Error::no_service(key))?;
        if !state.instances.is_empty() {
            return Err(Error::NotEmpty { service: key.clone(), instances: state.instances.len() });
        }
        let mut plan = Plan::default();
        plan.expect(Key::Service(key.clone()), state.service.revision);
        plan.delete(Key::Service(key.clone()));
        Ok(plan)
    }

    /// Removes as many of the lease's instances as one write may, and the lease with the last of them.
    fn plan_expire(&self, id: LeaseId, now: UnixMillis, limits: &Limits) -> Plan {
        let Some(state) = self.lease(id) else { return Plan::default() };
        if state.members.is_empty() {
            let mut plan = Plan::default();
            plan.expect(Key::Lease(id), state.lease.revision);
            plan.delete(Key::Lease(id));
            return plan;
        }
        self.remove(state.members.iter().take(limits.instances_per_call), RemovalCause::Expired, now)
    }

    fn plan_finish_drain(&self, key: &InstanceKey, incarnation: Incarnation, now: UnixMillis) -> Plan {
        match self.snapshot().instance(key) {
            Some(current) if current.value.drain.is_some() && current.value.incarnation == incarnation => {
                self.remove([key], RemovalCause::Drained, now)
            }
            _ => Plan::default(),
        }
    }

    fn plan_forget(&self, keys: &[InstanceKey]) -> Plan {
        let mut plan = Plan::default();
        for key in keys {
            let Some((revision, _)) = self.tombstone(key) else { continue };
            plan.expect(Key::Instance(key.clone()), *revision);
            plan.delete(Key::Instance(key.clone()));
        }
        plan
    }

    fn remove<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a InstanceKey>,
        cause: RemovalCause,
        now: UnixMillis,
    ) -> Plan {
        let (mut plan, mut left) = (Plan::default(), Vec::new());
        for key in keys {
            let Some(current) = self.snapshot().instance(key) else { continue };
            plan.expect(Key::Instance(key.clone()), current.revision);
            plan.put(Key::Instance(key.clone()), tombstone(&current.value, cause, now));
            left.push((key.clone(), current.value.lease));
        }
        // No lease is kept for its own sake: the id of none is zero.
        self.delete_leases_left(&left, LeaseId(0), &mut plan);
        plan
    }
}

/// What an instance becomes when its agent says `spec`.
fn successor(
    key: &InstanceKey,
    spec: &InstanceSpec,
    lease: LeaseId,
    incarnation: Incarnation,
    current: Option<&Instance>,
    now: UnixMillis,
) -> Instance {
    let same = current.filter(|current| current.incarnation == incarnation);
    let was_ready = spec.ready || same.is_some_and(|same| same.was_ready);
    let drain = same.and_then(|same| same.drain);
    let (verdict, _) = verdict(drain.is_some(), spec.ready, was_ready);
    let health_since = same.filter(|same| same.health().verdict == verdict).map_or(now, |same| same.health_since);
    Instance {
        key: key.clone(),
        incarnation,
        lease,
        spec: spec.clone(),
        registered_at: same.map_or(now, |same| same.registered_at),
        was_ready,
        health_since,
        drain,
    }
}

fn tombstone(instance: &Instance, cause: RemovalCause, now: UnixMillis) -> Record {
    Record::Tombstone(Tombstone { incarnation: instance.incarnation, cause, removed_at: now })
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

fn add_ports(key: &ServiceKey, service: &mut Option<Service>, spec: &InstanceSpec) -> Result<(), Error> {
    let service = service.get_or_insert_with(|| Service {
        default_port: spec.ports[0].name.clone(),
        ports: Default::default(),
        drain_time: DEFAULT_DRAIN_TIME,
    });
    for port in &spec.ports {
        check_protocol(key, &port.name, service.ports.get(&port.name).copied(), port.protocol)?;
        let new = ServicePort { protocol: port.protocol, number: port.number };
        service.ports.entry(port.name.clone()).or_insert(new);
    }
    Ok(())
}

/// In one call no instance stands twice, nor any address and port of a service.
fn check_distinct(instances: &[(InstanceKey, InstanceSpec)]) -> Result<(), Error> {
    if instances.is_empty() {
        return Err(Invalid::new("instances", 0, "at least one instance").into());
    }
    let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, (key, spec)) in instances.iter().enumerate() {
        if !keys.insert(key) {
            return Err(Invalid::new(format!("instances[{index}].id"), key, "each instance once in a call").into());
        }
        let numbers: BTreeSet<u16> = spec.ports.iter().map(|port| port.number).collect();
        for number in numbers {
            if !addresses.insert((&key.service, spec.address, number)) {
                let value = format!("{}:{number}", spec.address);
                let rule = "each address and port once in a service";
                return Err(Invalid::new(format!("instances[{index}].address"), value, rule).into());
            }
        }
    }
    Ok(())
}
