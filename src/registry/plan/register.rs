//! Registering: which incarnation, which lease, which service, whose address.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{Group, Plan, check_newer, check_protocol, tombstone};
use crate::{
    model::{
        CheckState, Incarnation, Instance, InstanceKey, InstanceSpec, Invalid, Lease, LeaseId, Limits, Port,
        RemovalCause, Service, ServiceKey, ServicePort, Share, Tombstone, UnixMillis,
    },
    registry::{
        command::{Error, Register, Versioned},
        state::{LeaseState, Members, ServiceState, State},
    },
    storage::{Change, Key, Record},
};

/// An instance of a registration, and what stands where it is to be.
struct Place<'a> {
    key: &'a InstanceKey,
    spec: &'a Arc<InstanceSpec>,
    service: Option<&'a ServiceState>,
    current: Option<&'a Versioned<Instance>>,
    gone: Option<&'a Versioned<Tombstone>>,
}

impl State {
    pub(super) fn plan_register(&self, register: &Register, now: UnixMillis, limits: &Limits) -> Result<Plan, Error> {
        check_distinct(&register.instances)?;
        let places: Vec<Place<'_>> = register.instances.iter().map(|(key, spec)| self.place(key, spec)).collect();
        let incarnations = self.incarnations(register, &places)?;
        let (lease_id, lease) = self.lease_for(register, &places, &incarnations)?;
        let held = lease.map(|state| state.lease);
        let incarnation = held.map_or(incarnations[0], |lease| lease.incarnation);
        if let Some(position) = incarnations.iter().position(|&given| given != incarnation) {
            let given = incarnations[position];
            return Err(Error::LeaseIncarnation { lease: lease_id, given, current: incarnation });
        }
        let mut plan = Plan { lease: Some(lease_id), ..Plan::default() };
        plan.expect(Key::Lease(lease_id), lease.map(|state| state.revision).unwrap_or_default());
        put_services(&places, &mut plan, limits)?;
        let ttl = register.ttl.or(held.map(|lease| lease.ttl)).unwrap_or(limits.default_ttl());
        // Whoever hears its agent has the lease.
        let next = Lease { ttl, incarnation, owner: self.me };
        if held != Some(next) {
            plan.put(Key::Lease(lease_id), Record::Lease(next));
        }
        let mut left: Vec<(InstanceKey, LeaseId)> = Vec::new();
        for place in &places {
            put_instance_plan(place, lease_id, incarnation, now, &mut plan, &mut left);
        }
        // Who is named in the call is where the call says, whoever has come to its place.
        for place in &places {
            self.replace_others(&places, place, now, &mut plan, &mut left);
        }
        check_counts(&places, lease_id, lease, limits, &mut plan)?;
        self.delete_leases_left(&left, lease_id, &mut plan);
        Ok(plan)
    }

    fn place<'a>(&'a self, key: &'a InstanceKey, spec: &'a Arc<InstanceSpec>) -> Place<'a> {
        let service = self.snapshot().services.get(&key.service).map(Arc::as_ref);
        let current = service.and_then(|service| service.instances.get(&key.id));
        Place { key, spec, service, current, gone: self.tombstone(key) }
    }

    /// The incarnation that each instance of a registration will have.
    fn incarnations(&self, register: &Register, places: &[Place<'_>]) -> Result<Vec<Incarnation>, Error> {
        let named = register.lease.and_then(|id| self.lease(id)).map(|state| state.lease.incarnation);
        let incarnation = |place: &Place<'_>| {
            let key = place.key;
            let current = place.current.map(|instance| instance.value.incarnation);
            let gone = place.gone.map(|gone| &*gone.value);
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
        let mut incarnations: Vec<_> = places.iter().map(incarnation).collect::<Result<_, _>>()?;
        if register.incarnation.is_none() {
            // One lease is of one incarnation: of several guesses the highest fits all.
            let highest = incarnations.iter().max().copied().unwrap_or_default();
            incarnations.fill(highest);
        }
        Ok(incarnations)
    }

    /// The lease named, else one that an instance has in this incarnation, else a new one.
    fn lease_for(
        &self,
        register: &Register,
        places: &[Place<'_>],
        incarnations: &[Incarnation],
    ) -> Result<(LeaseId, Option<&LeaseState>), Error> {
        if let Some(id) = register.lease {
            let state = self.lease(id).ok_or(Error::LeaseNotFound { lease: id })?;
            return Ok((id, Some(state)));
        }
        let kept = places.iter().zip(incarnations).find_map(|(place, incarnation)| {
            let instance = &place.current?.value;
            let lease = self.lease(instance.lease)?;
            (instance.incarnation == *incarnation).then_some((instance.lease, Some(lease)))
        });
        Ok(kept.unwrap_or((register.new_lease, None)))
    }

    /// An address and port is one instance's: the newest registration's. Whoever else has it leaves.
    fn replace_others(
        &self,
        places: &[Place<'_>],
        place: &Place<'_>,
        now: UnixMillis,
        plan: &mut Plan,
        left: &mut Vec<(InstanceKey, LeaseId)>,
    ) {
        let Some(service) = place.service else { return };
        for port in &*place.spec.ports {
            let Some(other) = self.at(&place.key.service, place.spec.address, port.number) else { continue };
            let Some(other) = service.instances.get(other) else { continue };
            let named = places.iter().any(|named| *named.key == other.value.key);
            let other_key = Key::Instance(other.value.key.clone());
            if named || plan.transaction.changes.iter().any(|change| change.key == other_key) {
                continue;
            }
            plan.expect(other_key.clone(), other.revision);
            left.push((other.value.key.clone(), other.value.lease));
            plan.put(other_key, tombstone(&other.value, RemovalCause::Replaced, now));
        }
    }
}

/// Makes the services that are missing, and adds the ports that are new to them.
fn put_services(places: &[Place<'_>], plan: &mut Plan, limits: &Limits) -> Result<(), Error> {
    for (key, current) in services(places) {
        let current = current.map(|state| &state.service);
        let mut service = current.map(|current| Cow::Borrowed(&*current.value));
        if current.is_some_and(|current| current.value.is_virtual()) {
            let rule = "a service with instances of its own: this one is virtual, its members are those that match";
            return Err(Invalid::new("service", &key.name, rule).into());
        }
        for place in places.iter().filter(|place| place.key.service == *key) {
            add_ports(key, &mut service, place.spec)?;
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

fn put_instance_plan(
    place: &Place<'_>,
    lease: LeaseId,
    incarnation: Incarnation,
    now: UnixMillis,
    plan: &mut Plan,
    left: &mut Vec<(InstanceKey, LeaseId)>,
) {
    let Place { key, spec, service, current, gone } = *place;
    plan.instances.push(key.clone());
    let revision = current.map(|current| current.revision).or(gone.map(|gone| gone.revision));
    plan.expect(Key::Instance(key.clone()), revision.unwrap_or_default());
    let history = gone.map(|gone| gone.value.history.clone()).unwrap_or_default();
    let service = service.map(|state| &state.service.value);
    let share = service.map_or(Share::FULL, |service| service.load.first_share());
    // What is still to be found out about a newcomer: until then it is starting.
    let pending = |service: &Arc<Service>| service.checks.iter().map(|check| CheckState::pending(check, now)).collect();
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
    let address = |port: &Port| (key.service.clone(), spec.address, port.number);
    plan.addresses.extend(spec.ports.iter().map(address));
    plan.put(Key::Instance(key.clone()), Record::Instance(Arc::new(instance)));
}

/// Whether those who come find room: in their services, and in the lease.
fn check_counts(
    places: &[Place<'_>],
    lease: LeaseId,
    held: Option<&LeaseState>,
    limits: &Limits,
    plan: &mut Plan,
) -> Result<(), Error> {
    for (service, state) in services(places) {
        let added = places.iter().filter(|place| place.key.service == *service && place.current.is_none()).count();
        // Who is replaced makes room.
        let leaves = |change: &&Change| match (&change.key, &change.record) {
            (Key::Instance(key), Some(Record::Tombstone(_))) => key.service == *service,
            _ => false,
        };
        let leaving = plan.transaction.changes.iter().filter(leaves).count();
        let present = state.map_or(0, |state| state.instances.len()) - leaving;
        plan.join(Group::Service(service.clone()), added, present, limits.instances_per_service)?;
    }
    let members = held.map(|state| &state.members);
    let added = places.iter().filter(|place| members.is_none_or(|members| !members.contains(place.key))).count();
    plan.join(Group::Lease(lease), added, members.map_or(0, Members::len), limits.instances_per_lease)
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

/// The services of a registration, each once, as they are.
fn services<'a>(places: &[Place<'a>]) -> Vec<(&'a ServiceKey, Option<&'a ServiceState>)> {
    let mut services: Vec<_> = places.iter().map(|place| (&place.key.service, place.service)).collect();
    services.sort_unstable_by_key(|(key, _)| *key);
    services.dedup_by_key(|(key, _)| *key);
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
