//! Registering: which incarnation, which lease, which service, whose address.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{Group, Plan, check_newer, check_protocol, tombstone};
use crate::{
    model::{
        CheckState, Incarnation, Instance, InstanceKey, InstanceSpec, Invalid, Lease, LeaseId, Limits, RemovalCause,
        Service, ServiceKey, ServicePort, Share, Tombstone, UnixMillis,
    },
    registry::{
        command::{Error, Register},
        state::{Members, State},
    },
    storage::{Change, Key, Record},
};

impl State {
    pub(super) fn plan_register(&self, register: &Register, now: UnixMillis, limits: &Limits) -> Result<Plan, Error> {
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
        // Whoever hears its agent has the lease.
        let next = Lease { ttl, incarnation, owner: self.me };
        if lease != Some(next) {
            plan.put(Key::Lease(lease_id), Record::Lease(next));
        }
        let mut left: Vec<(InstanceKey, LeaseId)> = Vec::new();
        for (key, spec) in &register.instances {
            self.put_instance_plan(key, spec, lease_id, incarnation, now, &mut plan, &mut left);
        }
        // Who is named in the call is where the call says, whoever has come to its place.
        for (key, spec) in &register.instances {
            self.replace_others(register, key, spec, now, &mut plan, &mut left);
        }
        self.check_counts(register, lease_id, limits, &mut plan)?;
        self.delete_leases_left(&left, lease_id, &mut plan);
        Ok(plan)
    }

    /// The incarnation that each instance of a registration will have.
    fn incarnations(&self, register: &Register) -> Result<Vec<Incarnation>, Error> {
        let named = register.lease.and_then(|id| self.lease(id)).map(|state| state.lease.value.incarnation);
        let incarnation = |(key, _): &(InstanceKey, Arc<InstanceSpec>)| {
            let current = self.snapshot().instance(key).map(|instance| instance.value.incarnation);
            let gone = self.tombstone(key).map(|gone| &*gone.value);
            // Whoever shares a lease is of its incarnation, and is fenced by it like one who says so.
            let Some(given) = register.incarnation.or(named) else {
                let after = |gone: &Tombstone| Incarnation(gone.incarnation.0.saturating_add(1));
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
        for key in services(register) {
            let current = self.snapshot().services.get(key).map(|state| &state.service);
            let mut service = current.map(|current| Cow::Borrowed(&*current.value));
            if current.is_some_and(|current| current.value.is_virtual()) {
                let rule = "a service with instances of its own: this one is virtual, its members are those that match";
                return Err(Invalid::new("service", &key.name, rule).into());
            }
            for (_, spec) in register.instances.iter().filter(|(instance, _)| instance.service == *key) {
                add_ports(key, &mut service, spec)?;
            }
            let Some(service) = service else { continue };
            if service.ports.len() > limits.ports {
                return Err(Error::LimitReached { what: format!("the ports of {key}"), limit: limits.ports });
            }
            plan.expect(Key::Service(key.clone()), current.map(|current| current.revision).unwrap_or_default());
            // Most registrations bring nothing new to their service.
            if let Cow::Owned(service) = service {
                plan.put(Key::Service(key.clone()), Record::Service(Arc::new(service)));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of plan_register, with what that has worked out")]
    fn put_instance_plan(
        &self,
        key: &InstanceKey,
        spec: &Arc<InstanceSpec>,
        lease: LeaseId,
        incarnation: Incarnation,
        now: UnixMillis,
        plan: &mut Plan,
        left: &mut Vec<(InstanceKey, LeaseId)>,
    ) {
        plan.instances.push(key.clone());
        let current = self.snapshot().instance(key);
        let gone = self.tombstone(key);
        let revision = current.map(|current| current.revision).or(gone.map(|gone| gone.revision));
        plan.expect(Key::Instance(key.clone()), revision.unwrap_or_default());
        let history = gone.map(|gone| gone.value.history.clone()).unwrap_or_default();
        let service = self.snapshot().services.get(&key.service).map(|state| &state.service.value);
        let share = service.map_or(Share::FULL, |service| service.load.first_share());
        // What is still to be found out about a newcomer: until then it is starting.
        let pending =
            |service: &Arc<Service>| service.checks.iter().map(|check| CheckState::pending(check, now)).collect();
        let checks = service.filter(|service| !service.checks.is_empty()).map(pending).unwrap_or_default();
        let new = Instance::new(key.clone(), incarnation, lease, spec.clone(), now);
        let instance = Instance { history, share, checks, ..new };
        let instance = match current {
            Some(current) => successor(&current.value, instance, now),
            None => instance.settled(None, now),
        };
        if let Some(current) = current {
            if *current.value == instance {
                return;
            }
            if current.value.lease != lease {
                left.push((key.clone(), current.value.lease));
            }
        }
        let address = |port: &crate::model::Port| (key.service.clone(), spec.address, port.number);
        plan.addresses.extend(spec.ports.iter().map(address));
        plan.put(Key::Instance(key.clone()), Record::Instance(Arc::new(instance)));
    }

    /// An address and port is one instance's: the newest registration's. Whoever else has it leaves.
    fn replace_others(
        &self,
        register: &Register,
        key: &InstanceKey,
        spec: &InstanceSpec,
        now: UnixMillis,
        plan: &mut Plan,
        left: &mut Vec<(InstanceKey, LeaseId)>,
    ) {
        let Some(service) = self.snapshot().services.get(&key.service) else { return };
        for port in &*spec.ports {
            let Some(other) = self.at(&key.service, spec.address, port.number) else { continue };
            let Some(other) = service.instances.get(other) else { continue };
            let named = register.instances.iter().any(|(named, _)| *named == other.value.key);
            let other_key = Key::Instance(other.value.key.clone());
            if named || plan.transaction.changes.iter().any(|change| change.key == other_key) {
                continue;
            }
            plan.expect(other_key.clone(), other.revision);
            left.push((other.value.key.clone(), other.value.lease));
            plan.put(other_key, tombstone(&other.value, RemovalCause::Replaced, now));
        }
    }

    /// Whether those who come find room: in their services, and in the lease.
    fn check_counts(&self, register: &Register, lease: LeaseId, limits: &Limits, plan: &mut Plan) -> Result<(), Error> {
        for service in services(register) {
            let of = register.instances.iter().map(|(key, _)| key).filter(|key| key.service == *service);
            let added = of.filter(|key| self.snapshot().instance(key).is_none()).count();
            // Who is replaced makes room.
            let leaves = |change: &&Change| match (&change.key, &change.record) {
                (Key::Instance(key), Some(Record::Tombstone(_))) => key.service == *service,
                _ => false,
            };
            let leaving = plan.transaction.changes.iter().filter(leaves).count();
            let present = self.snapshot().services.get(service).map_or(0, |state| state.instances.len()) - leaving;
            plan.join(Group::Service(service.clone()), added, present, limits.instances_per_service)?;
        }
        let members = self.lease(lease).map(|state| &state.members);
        let added = register.instances.iter().filter(|(key, _)| members.is_none_or(|m| !m.contains(key))).count();
        plan.join(Group::Lease(lease), added, members.map_or(0, Members::len), limits.instances_per_lease)
    }
}

/// What an instance becomes when its agent registers it again: what others say of it stays, if it is the same incarnation.
fn successor(current: &Instance, new: Instance, now: UnixMillis) -> Instance {
    let history = current.history.clone();
    if current.incarnation != new.incarnation {
        // An operator's word is about the place, whoever comes to it.
        return Instance { history, operator: current.operator.clone(), ..new }.settled(Some(current), now);
    }
    let said = current.spec.ready == new.spec.ready;
    Instance {
        lease: new.lease,
        spec: if current.spec == new.spec { current.spec.clone() } else { new.spec },
        ready_since: if said { current.ready_since } else { now },
        // Its agent has just been heard.
        lapsed: None,
        ..current.clone()
    }
    .settled(Some(current), now)
}

fn add_ports(key: &ServiceKey, service: &mut Option<Cow<'_, Service>>, spec: &InstanceSpec) -> Result<(), Error> {
    let service = service.get_or_insert_with(|| Cow::Owned(Service::new(spec.ports[0].name.clone())));
    for port in &*spec.ports {
        let fixed = service.ports.get(&port.name).copied();
        check_protocol(key, &port.name, fixed, port.protocol)?;
        if fixed.is_none() {
            let new = ServicePort { protocol: port.protocol, number: port.number };
            service.to_mut().ports.insert(port.name.clone(), new);
        }
    }
    Ok(())
}

/// The services of a registration, each once.
fn services(register: &Register) -> Vec<&ServiceKey> {
    let mut services: Vec<&ServiceKey> = register.instances.iter().map(|(key, _)| &key.service).collect();
    services.sort_unstable();
    services.dedup();
    services
}

/// In one call no instance stands twice, nor any address and port of a service.
fn check_distinct(instances: &[(InstanceKey, Arc<InstanceSpec>)]) -> Result<(), Error> {
    if instances.is_empty() {
        return Err(Invalid::new("instances", 0, "at least one instance").into());
    }
    if instances.len() == 1 {
        return Ok(());
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
