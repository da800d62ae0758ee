//! The pure registry: commands on a state, as tables; then random histories; then the task on paused time.

mod axes;
mod braking;
mod copying;
mod fencing;
mod histories;
mod owning;
mod raw;
mod registering;
mod running;
mod selecting;

use std::{sync::Arc, time::Duration};

use super::{
    command::{Command, Error, Register, Versioned},
    state::{Effects, Event, EventKind, Snapshot, State},
};
use crate::{
    model::{
        Incarnation, Instance, InstanceKey, InstanceSpec, LeaseId, Limits, Locality, Port, PortName, Protocol,
        RemovalCause, Revision, ServiceKey, UnixMillis, Verdict, parse,
    },
    storage::Commit,
};

/// A state with a store that never fails: every command is planned, committed and applied at once.
struct Book {
    state: State,
    limits: Limits,
    now: UnixMillis,
    next_lease: u128,
    /// The effects of the last command.
    effects: Effects,
}

impl Default for Book {
    fn default() -> Self {
        let limits = Limits::default();
        Self { state: State::default(), limits, now: UnixMillis(1_000), next_lease: 1, effects: Effects::default() }
    }
}

impl Book {
    fn run(&mut self, command: &Command) -> Result<Option<LeaseId>, Error> {
        let plan = self.state.plan(command, self.now, &self.limits)?;
        for (key, revision) in &plan.transaction.expect {
            assert_eq!(self.revision_of(key), *revision, "{key:?} is expected as it is");
        }
        self.effects = Effects::default();
        if !plan.transaction.changes.is_empty() {
            let revision = Revision(self.state.snapshot().revision.0 + 1);
            self.effects = self.state.apply(Commit::new(revision, plan.transaction.changes), self.now);
        }
        Ok(plan.lease)
    }

    fn revision_of(&self, key: &crate::storage::Key) -> Revision {
        use crate::storage::Key;
        let snapshot = self.state.snapshot();
        let revision = match key {
            Key::Service(key) => snapshot.services.get(key).map(|state| state.service.revision),
            Key::Raw(key) => snapshot.raw.get(key).map(|raw| raw.revision),
            Key::Replica(_) => None,
            Key::Lease(id) => self.state.lease(*id).map(|state| state.revision),
            Key::Instance(key) => snapshot
                .instance(key)
                .map(|instance| instance.revision)
                .or(self.state.tombstone(key).map(|gone| gone.revision)),
        };
        revision.unwrap_or_default()
    }

    fn register(&mut self, instances: &[(&str, InstanceSpec)]) -> Result<LeaseId, Error> {
        self.register_as(None, None, instances)
    }

    fn register_as(
        &mut self,
        lease: Option<LeaseId>,
        incarnation: Option<u64>,
        instances: &[(&str, InstanceSpec)],
    ) -> Result<LeaseId, Error> {
        let new_lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        let instances = instances.iter().map(|(name, spec)| (key(name), Arc::new(spec.clone()))).collect();
        let incarnation = incarnation.map(Incarnation);
        let register = Register { lease, ttl: None, incarnation, instances, new_lease };
        Ok(self.run(&Command::Register(register))?.expect("a registration has a lease"))
    }

    fn deregister(&mut self, name: &str, incarnation: Option<u64>) -> Result<(), Error> {
        let incarnation = incarnation.map(Incarnation);
        self.run(&Command::Deregister { key: key(name), incarnation }).map(drop)
    }

    fn drain(&mut self, name: &str, incarnation: Option<u64>) -> Result<(), Error> {
        let incarnation = incarnation.map(Incarnation);
        self.run(&Command::Drain { key: key(name), incarnation, time: None }).map(drop)
    }

    fn finish_drain(&mut self, name: &str, incarnation: u64) {
        let command = Command::FinishDrain { key: key(name), incarnation: Incarnation(incarnation) };
        self.run(&command).expect("planned");
    }

    fn expire(&mut self, lease: LeaseId) {
        self.run(&Command::Expire(lease)).expect("planned");
    }

    fn snapshot(&self) -> &Snapshot {
        self.state.snapshot()
    }

    fn get(&self, name: &str) -> Option<&Instance> {
        self.snapshot().instance(&key(name)).map(|instance| &*instance.value)
    }

    /// The last command's events: what happened to whom.
    fn events(&self) -> Vec<(String, EventKind)> {
        let describe = |event: &Event| (event.instance.value.key.id.to_string(), event.kind.clone());
        self.effects.events.iter().map(describe).collect()
    }
}

/// `web/1` is instance 1 of the service web.
fn key(name: &str) -> InstanceKey {
    let (service, id) = name.split_once('/').expect("service/id");
    parse::instance_key("", service, id).expect("a key")
}

fn service(name: &str) -> ServiceKey {
    parse::service_key("", name).expect("a key")
}

/// An instance at 10.0.0.`host`:8080 that speaks HTTP.
fn spec(host: u8) -> InstanceSpec {
    InstanceSpec {
        address: [10, 0, 0, host].into(),
        ports: [port("http", 8080, Protocol::Http)].into(),
        weight: 100,
        ready: true,
        labels: Default::default(),
        capabilities: Arc::default(),
        locality: Arc::new(Locality::default()),
        sla: Arc::default(),
        description: "".into(),
        card: None,
    }
}

fn port(name: &str, number: u16, protocol: Protocol) -> Port {
    Port { name: PortName::parse("", name).expect("a label"), number, protocol }
}
