//! The stage on which commands are planned beside each other: what one touches, no other may until it is applied. So all
//! of them can be planned on the same state, and written in any order. Pure.
//!
//! One that meets another waits, and whatever meets one that waits, waits behind it: nobody is overtaken for ever. Only
//! hashes are kept: where two meet by chance, a command waits a little longer.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    ops::SubAssign,
};

use foldhash::fast::RandomState;

use super::{Group, Plan};
use crate::{prehashed::Prehashed, storage::Key};

/// What a command touches.
#[derive(Debug, Default)]
pub struct Footprint {
    /// What it writes as well is not among these.
    reads: Vec<u64>,
    writes: Vec<u64>,
    /// How many come to what group.
    joining: Vec<(u64, usize)>,
}

#[derive(Debug, Default)]
pub struct Footprints {
    hasher: RandomState,
    /// Of those that are planned, until they are applied.
    taken: Touched,
    /// Of those that wait.
    waiting: Touched,
}

/// How many touch what.
#[derive(Debug, Default)]
struct Touched {
    read: HashMap<u64, u32, Prehashed>,
    written: HashMap<u64, u32, Prehashed>,
    joining: HashMap<u64, usize, Prehashed>,
}

impl Footprints {
    /// Those that wait are looked at anew.
    pub fn look_again(&mut self) {
        self.waiting.read.clear();
        self.waiting.written.clear();
        self.waiting.joining.clear();
    }

    /// Takes the stage for a plan, if it meets none that is there or waits; else it waits.
    pub fn enter(&mut self, plan: &Plan) -> Option<Footprint> {
        let footprint = self.footprint(plan);
        let is_full = |((group, count), room): (&(u64, usize), usize)| {
            self.taken.joining(*group) + self.waiting.joining(*group) + count > room
        };
        let rooms = plan.joining.iter().map(|(.., room)| *room);
        let is_full = footprint.joining.iter().zip(rooms).any(is_full);
        if self.taken.meets(&footprint) || self.waiting.meets(&footprint) || is_full {
            self.waiting.add(&footprint);
            return None;
        }
        self.taken.add(&footprint);
        Some(footprint)
    }

    /// It waits for something else.
    pub fn wait(&mut self, plan: &Plan) {
        self.waiting.add(&self.footprint(plan));
    }

    fn footprint(&self, plan: &Plan) -> Footprint {
        let hash = |key: &Key| self.hasher.hash_one(key);
        let writes = plan.transaction.changes.iter().map(|change| hash(&change.key));
        let writes = writes.chain(plan.exclusive.iter().map(hash));
        // Nobody reads an address.
        let writes = writes.chain(plan.addresses.iter().map(|address| self.hasher.hash_one(address)));
        let writes: Vec<u64> = writes.collect();
        let reads =
            plan.transaction.expect.iter().map(|(key, _)| hash(key)).filter(|key| !writes.contains(key)).collect();
        let group = |(group, count, _): &(Group, usize, usize)| (self.hasher.hash_one(group), *count);
        Footprint { reads, writes, joining: plan.joining.iter().map(group).collect() }
    }

    /// It is applied, or has come to nothing.
    pub fn leave(&mut self, footprint: &Footprint) {
        self.taken.remove(footprint);
    }
}

impl Touched {
    fn joining(&self, group: u64) -> usize {
        self.joining.get(&group).copied().unwrap_or_default()
    }

    fn meets(&self, footprint: &Footprint) -> bool {
        footprint.writes.iter().any(|key| self.written.contains_key(key) || self.read.contains_key(key))
            || footprint.reads.iter().any(|key| self.written.contains_key(key))
    }

    fn add(&mut self, footprint: &Footprint) {
        footprint.reads.iter().for_each(|key| *self.read.entry(*key).or_default() += 1);
        footprint.writes.iter().for_each(|key| *self.written.entry(*key).or_default() += 1);
        footprint.joining.iter().for_each(|(group, count)| *self.joining.entry(*group).or_default() += count);
    }

    fn remove(&mut self, footprint: &Footprint) {
        footprint.reads.iter().for_each(|key| fewer(&mut self.read, key, 1));
        footprint.writes.iter().for_each(|key| fewer(&mut self.written, key, 1));
        footprint.joining.iter().for_each(|(group, count)| fewer(&mut self.joining, group, *count));
    }
}

/// Takes so many away; with the last of them the key goes.
fn fewer<K: Eq + Hash, N: PartialEq + SubAssign + Copy, S: BuildHasher>(of: &mut HashMap<K, N, S>, key: &K, count: N) {
    let Some(present) = of.get_mut(key) else { return };
    if *present == count {
        of.remove(key);
    } else {
        *present -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LeaseId, Revision},
        storage::{Change, Transaction},
    };

    fn plan(reads: &[u128], writes: &[u128], joining: usize) -> Plan {
        let key = |id: &u128| Key::Lease(LeaseId(*id));
        let expect = reads.iter().map(|id| (key(id), Revision(1))).collect();
        let changes = writes.iter().map(|id| Change { key: key(id), record: None }).collect();
        let transaction = Transaction { expect, changes, ..Transaction::default() };
        let joining = if joining > 0 { vec![(Group::RawResources, joining, 3)] } else { Vec::new() };
        Plan { transaction, joining, ..Plan::default() }
    }

    #[test]
    fn readers_go_together_and_a_writer_alone() {
        let mut stage = Footprints::default();
        let first = stage.enter(&plan(&[1], &[2], 0)).expect("nobody is there");
        let second = stage.enter(&plan(&[1], &[3], 0)).expect("both read");
        for (reads, writes) in [(&[][..], &[1][..]), (&[], &[2]), (&[2], &[]), (&[3], &[9])] {
            stage.look_again();
            assert!(stage.enter(&plan(reads, writes, 0)).is_none(), "{reads:?} {writes:?}");
        }
        stage.look_again();
        stage.leave(&first);
        assert!(stage.enter(&plan(&[], &[1], 0)).is_none(), "the second still reads it");
        stage.leave(&second);
        stage.look_again();
        assert!(stage.enter(&plan(&[], &[1], 0)).is_some());
    }

    #[test]
    fn nobody_overtakes_one_that_waits_for_the_same() {
        let mut stage = Footprints::default();
        let reader = stage.enter(&plan(&[1], &[2], 0)).expect("nobody is there");
        assert!(stage.enter(&plan(&[], &[1], 0)).is_none());
        assert!(stage.enter(&plan(&[1], &[3], 0)).is_none(), "it would keep the writer waiting");
        stage.leave(&reader);
        stage.look_again();
        assert!(stage.enter(&plan(&[], &[1], 0)).is_some());
    }

    #[test]
    fn those_that_join_have_room_together() {
        let mut stage = Footprints::default();
        let two = stage.enter(&plan(&[], &[1], 2)).expect("there is room for three");
        assert!(stage.enter(&plan(&[], &[2], 2)).is_none());
        stage.leave(&two);
        stage.look_again();
        assert!(stage.enter(&plan(&[], &[2], 2)).is_some());
    }
}
