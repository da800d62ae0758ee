//! Random histories: what must hold after every command, and that a state loaded from what was stored is the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    model::Tombstone,
    storage::{Key, Record},
};

#[derive(Clone, Debug)]
enum Step {
    Register { id: u8, host: u8, incarnation: Option<u64>, weight: u16, ready: bool },
    Deregister { id: u8, incarnation: Option<u64> },
    Drain { id: u8 },
    FinishDrain { id: u8, incarnation: u64 },
    Expire { id: u8 },
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    let incarnation = prop_oneof![Just(None), (1u64..4).prop_map(Some)];
    let register = (0u8..5, 0u8..6, incarnation.clone(), 0u16..3, any::<bool>());
    prop_oneof![
        5 => register.prop_map(|(id, host, incarnation, weight, ready)| {
            Step::Register { id, host, incarnation, weight, ready }
        }),
        1 => (0u8..5, incarnation).prop_map(|(id, incarnation)| Step::Deregister { id, incarnation }),
        1 => (0u8..5).prop_map(|id| Step::Drain { id }),
        1 => (0u8..5, 1u64..4).prop_map(|(id, incarnation)| Step::FinishDrain { id, incarnation }),
        1 => (0u8..5).prop_map(|id| Step::Expire { id }),
        1 => Just(Step::Delete),
    ]
}

impl Book {
    fn step(&mut self, step: &Step) {
        let name = |id: &u8| format!("web/{id}");
        let before = self.snapshot().clone();
        let outcome = match step {
            Step::Register { id, host, incarnation, weight, ready } => {
                let spec = InstanceSpec { weight: *weight, ready: *ready, ..spec(*host) };
                self.register_as(None, *incarnation, &[(&name(id), spec)]).map(drop)
            }
            Step::Deregister { id, incarnation } => self.deregister(&name(id), *incarnation),
            Step::Drain { id } => self.drain(&name(id), None),
            Step::FinishDrain { id, incarnation } => {
                self.finish_drain(&name(id), *incarnation);
                Ok(())
            }
            Step::Expire { id } => {
                if let Some(lease) = self.get(&name(id)).map(|instance| instance.lease) {
                    self.expire(lease);
                }
                Ok(())
            }
            Step::Delete => self.run(&Command::DeleteService { key: service("web") }).map(drop),
        };
        if outcome.is_err() {
            assert_eq!(before.revision, self.snapshot().revision, "a refusal changes nothing");
        }
        self.check(&before);
    }

    fn check(&self, before: &Snapshot) {
        for (key, state) in &self.snapshot().services {
            let mut addresses = BTreeMap::new();
            for instance in state.instances.values() {
                let instance = &instance.value;
                let place = (instance.spec.address, instance.spec.ports[0].number);
                assert_eq!(addresses.insert(place, instance.key.id.clone()), None, "an address is one instance's");
                let lease = self.state.lease(instance.lease).expect("an instance's lease holds");
                assert!(lease.members.contains(&instance.key), "a lease knows its instances");
                assert_eq!(lease.lease.incarnation, instance.incarnation, "a lease is of one incarnation");
                assert!(self.state.tombstone(&instance.key).is_none(), "nobody is here and gone");
                let earlier = before.instance(&instance.key).map(|instance| instance.value.incarnation);
                assert!(earlier.is_none_or(|earlier| earlier <= instance.incarnation), "incarnations only grow");
            }
            let known: BTreeMap<_, _> =
                self.state.addresses(key).iter().map(|(place, id)| (*place, id.clone())).collect();
            assert_eq!(addresses, known, "{key}: the index of addresses is right");
        }
    }

    /// What a store would hold.
    fn records(&self) -> Vec<(Key, Revision, Record)> {
        let mut records = Vec::new();
        for (key, state) in &self.snapshot().services {
            let service = Record::Service(state.service.value.clone());
            records.push((Key::Service(key.clone()), state.service.revision, service));
            for Versioned { revision, value } in state.instances.values() {
                records.push((Key::Instance(value.key.clone()), *revision, Record::Instance(value.clone())));
                let lease = self.state.lease(value.lease).expect("an instance's lease holds");
                records.push((Key::Lease(value.lease), lease.revision, Record::Lease(lease.lease)));
            }
        }
        for id in 0..5 {
            let key = key(&format!("web/{id}"));
            if let Some(gone) = self.state.tombstone(&key) {
                records.push((Key::Instance(key), gone.revision, Record::Tombstone(Tombstone::clone(&gone.value))));
            }
        }
        records
    }
}

proptest! {
    #[test]
    fn invariants_hold_over_random_histories(steps in prop::collection::vec(step(), 1..80)) {
        let mut book = Book::default();
        for (at, step) in steps.iter().enumerate() {
            book.now = UnixMillis(1_000 + at as u64);
            book.step(step);
        }
        let (loaded, _) = State::load(book.snapshot().revision, book.records(), book.now);
        let loaded = Book { state: loaded, ..Book::default() };
        loaded.check(&Snapshot::default());
        let loaded = loaded.state;
        let instances = |state: &State| -> Vec<_> {
            let services = state.snapshot().services.values();
            services.flat_map(|service| service.instances.values().cloned().collect::<Vec<_>>()).collect()
        };
        prop_assert_eq!(instances(&loaded), instances(&book.state));
        for id in 0..5 {
            let key = key(&format!("web/{id}"));
            prop_assert_eq!(loaded.tombstone(&key), book.state.tombstone(&key));
        }
    }
}
