//! What the registry has been told, and what it is to be told next. Pure.
//!
//! All changes of one revision are one commit. After a gap (the revisions that the watch should have told are compacted)
//! everything is read at one revision, and what differs is told as one commit of that revision. The registry then holds
//! records under that revision, which etcd holds under older ones; `Versions` knows both, so that what is planned on the
//! one is compared with the other.

use std::{collections::HashMap, collections::hash_map::Entry};

use super::{
    keys::Keys,
    rpc::{Event, KeyValue, event::EventType},
};
use crate::{
    model::Revision,
    storage::{
        Change, Commit, Key, Record,
        record::{self, Unreadable},
    },
};

/// A key's revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// In etcd: of its last change.
    pub etcd: Revision,
    /// As the registry was told.
    pub told: Revision,
}

#[derive(Debug)]
pub struct Told {
    keys: Keys,
    revision: Revision,
    /// By key, without the prefix.
    versions: HashMap<Box<str>, Versions>,
}

/// All that is under the prefix, at one revision.
#[derive(Debug, Default)]
pub struct Read {
    pub revision: Revision,
    pub values: Vec<KeyValue>,
}

/// With each record's revision in etcd.
pub type Records = Vec<(Key, Revision, Record)>;

/// Why a record cannot be told.
#[derive(Debug)]
pub struct Unread {
    pub key: String,
    pub reason: Unreadable,
}

impl Told {
    /// Begins with what was read, all of which has to be readable.
    pub fn new(keys: Keys, read: Read) -> Result<(Self, Records), Unread> {
        let (mut versions, mut records) = (HashMap::with_capacity(read.values.len()), Vec::new());
        for value in &read.values {
            let Some(relative) = keys.relative(&value.key) else { continue };
            let (key, record) = decode(relative, &value.value)?;
            let revision = revision(value.mod_revision);
            versions.insert(relative.into(), Versions { etcd: revision, told: revision });
            records.push((key, revision, record));
        }
        Ok((Self { keys, revision: read.revision, versions }, records))
    }

    /// Up to which revision everything has been told.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision that etcd has a key under, of which the registry knows one.
    pub fn in_etcd(&self, key: &Key, told: Revision) -> Revision {
        match self.versions.get(&*record::encode_key(key)) {
            Some(versions) if versions.told == told => versions.etcd,
            _ => told,
        }
    }

    /// The revision of a key as far as it was told; 0 for one that is absent.
    pub fn version(&self, key: &[u8]) -> Revision {
        let relative = self.keys.relative(key);
        relative.and_then(|key| self.versions.get(key)).map(|versions| versions.etcd).unwrap_or_default()
    }

    /// The commits of what a watch said, whole: one for each revision that was not told. With what the revision has moved
    /// on to, if more is not known of it.
    pub fn group(&self, events: Vec<Event>, up_to: Option<Revision>) -> Vec<(Revision, Vec<Event>)> {
        let mut groups: Vec<(Revision, Vec<Event>)> = Vec::new();
        for event in events {
            let at = revision(event.kv.as_ref().map(|kv| kv.mod_revision).unwrap_or_default());
            match groups.last_mut() {
                _ if at <= self.revision => {}
                Some((last, group)) if *last == at => group.push(event),
                _ => groups.push((at, vec![event])),
            }
        }
        let last = groups.last().map_or(self.revision, |(last, _)| *last);
        groups.extend(up_to.filter(|up_to| *up_to > last).map(|up_to| (up_to, Vec::new())));
        groups
    }

    /// Tells one revision.
    pub fn commit(&mut self, revision: Revision, events: Vec<Event>) -> Commit {
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            let put = event.r#type() == EventType::Put;
            let Some(value) = event.kv else { continue };
            changes.extend(self.change(revision, &value, put));
        }
        self.revision = revision;
        Commit::new(revision, changes)
    }

    /// Tells what differs from what was told.
    pub fn difference(&mut self, read: Read) -> Commit {
        let mut gone = self.versions.clone();
        let (mut puts, mut deletions) = (Vec::new(), Vec::new());
        for value in &read.values {
            let Some(relative) = self.keys.relative(&value.key) else { continue };
            let known = gone.remove(relative);
            if known.is_none_or(|known| known.etcd != revision(value.mod_revision)) {
                puts.extend(self.change(read.revision, value, true));
            }
        }
        for relative in gone.into_keys() {
            self.versions.remove(&relative);
            deletions.extend(record::decode_key(&relative).ok().map(|key| Change { key, record: None }));
        }
        // What others hang on comes first and goes last.
        puts.sort_by_key(|change| rank(&change.key));
        deletions.sort_by(|a, b| (rank(&b.key), &b.key).cmp(&(rank(&a.key), &a.key)));
        let merged_after = Some(std::mem::replace(&mut self.revision, read.revision));
        Commit { revision: read.revision, changes: puts.into_iter().chain(deletions).collect(), merged_after }
    }

    /// Notes a change. One that cannot be read (a newer Convoy wrote it) is passed over: nobody else waits for it.
    fn change(&mut self, told: Revision, value: &KeyValue, put: bool) -> Option<Change> {
        let relative = self.keys.relative(&value.key)?;
        let versions = Versions { etcd: revision(value.mod_revision), told };
        match (self.versions.entry(relative.into()), put) {
            (entry, true) => drop(entry.insert_entry(versions)),
            (Entry::Occupied(entry), false) => drop(entry.remove()),
            (Entry::Vacant(_), false) => {}
        }
        let change = match put {
            true => decode(relative, &value.value).map(|(key, record)| Change { key, record: Some(record) }),
            false => record::decode_key(relative)
                .map(|key| Change { key, record: None })
                .map_err(|reason| Unread { key: relative.into(), reason }),
        };
        let unread = |unread: &Unread| {
            tracing::error!(key = unread.key, reason = %unread.reason, "etcd holds a record that cannot be read");
        };
        change.inspect_err(unread).ok()
    }
}

fn rank(key: &Key) -> u8 {
    match key {
        Key::Service(_) | Key::Raw(_) | Key::Replica(_) => 0,
        Key::Lease(_) => 1,
        Key::Instance(_) => 2,
    }
}

fn decode(relative: &str, value: &[u8]) -> Result<(Key, Record), Unread> {
    let unread = |reason| Unread { key: relative.into(), reason };
    let key = record::decode_key(relative).map_err(unread)?;
    // The revision in the value is for stores that have no other.
    let (_, record) = record::decode(value).map_err(unread)?;
    Ok((key, record))
}

/// etcd's revisions are positive.
pub fn revision(of: i64) -> Revision {
    Revision(of.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::conformance::{instance, lease, service};

    fn keys() -> Keys {
        Keys::new("/convoy/")
    }

    fn value((key, record): (Key, Record), at: i64) -> KeyValue {
        let value = record::encode(Revision(0), &record).into();
        KeyValue { key: keys().record(&key), mod_revision: at, value }
    }

    fn put(of: (Key, Record), at: i64) -> Event {
        Event { r#type: EventType::Put.into(), kv: Some(value(of, at)) }
    }

    fn delete(key: &Key, at: i64) -> Event {
        let kv = KeyValue { key: keys().record(key), mod_revision: at, value: Default::default() };
        Event { r#type: EventType::Delete.into(), kv: Some(kv) }
    }

    fn read(revision: u64, values: Vec<KeyValue>) -> Read {
        Read { revision: Revision(revision), values }
    }

    #[test]
    fn a_revision_is_told_once_and_whole() {
        let (mut told, records) = Told::new(keys(), read(5, vec![value(service("a"), 3)])).expect("readable");
        assert_eq!(records, [(service("a").0, Revision(3), service("a").1)]);
        let events =
            vec![put(service("a"), 5), put(lease(1), 7), put(instance("a", "1", 1), 7), delete(&lease(1).0, 9)];
        let groups = told.group(events, Some(Revision(11)));
        let commits: Vec<Commit> = groups.into_iter().map(|(at, events)| told.commit(at, events)).collect();
        let shape = |commit: &Commit| (commit.revision.0, commit.changes.len());
        assert_eq!(commits.iter().map(shape).collect::<Vec<_>>(), [(7, 2), (9, 1), (11, 0)]);
        assert_eq!(told.group(vec![put(lease(1), 7)], Some(Revision(11))), []);
    }

    #[test]
    fn what_is_not_a_records_or_cannot_be_read_is_passed_over() {
        let (mut told, _) = Told::new(keys(), Read::default()).expect("readable");
        let other = |key: &str, at| {
            let kv = KeyValue { key: key.to_owned().into(), mod_revision: at, value: "new".into() };
            Event { r#type: EventType::Put.into(), kv: Some(kv) }
        };
        let events = vec![other("/convoy/m/format", 2), other("/convoy/s/default/a", 2), put(lease(1), 2)];
        assert_eq!(told.commit(Revision(2), events).changes.len(), 1);
        let damaged = KeyValue { key: "/convoy/l/zz".into(), mod_revision: 1, value: "new".into() };
        assert_eq!(Told::new(keys(), read(1, vec![damaged])).expect_err("damaged").key, "l/zz");
    }

    /// What is planned on a revision that was told in a difference is compared with etcd's own.
    #[test]
    fn both_revisions_of_a_key_are_known_after_a_gap() {
        let (mut told, _) = Told::new(keys(), read(3, vec![value(service("a"), 3)])).expect("readable");
        let commit = told.difference(read(9, vec![value(service("a"), 3), value(lease(1), 7)]));
        assert_eq!((commit.revision, commit.changes.len()), (Revision(9), 1));
        let key = lease(1).0;
        assert_eq!(told.in_etcd(&key, Revision(9)), Revision(7));
        assert_eq!(told.in_etcd(&key, Revision(0)), Revision(0), "an older plan is compared as it is");
        assert_eq!(told.in_etcd(&service("a").0, Revision(3)), Revision(3));
    }

    #[test]
    fn what_others_hang_on_comes_first_and_goes_last() {
        let (mut told, _) = Told::new(keys(), Read::default()).expect("readable");
        let all = || vec![value(instance("a", "1", 1), 2), value(lease(1), 3), value(service("a"), 4)];
        let order = |commit: Commit| -> Vec<Key> { commit.changes.into_iter().map(|change| change.key).collect() };
        let expected = vec![service("a").0, lease(1).0, instance("a", "1", 1).0];
        assert_eq!(order(told.difference(read(5, all()))), expected);
        let reversed: Vec<Key> = expected.into_iter().rev().collect();
        assert_eq!(order(told.difference(read(6, Vec::new()))), reversed);
    }

    proptest! {
        /// Whatever of a history is told by the watch and whatever by a difference, the end is etcd's, and nothing is told
        /// that did not change.
        #[test]
        fn a_gap_tells_what_changed_and_nothing_else(
            steps in prop::collection::vec((0u128..6, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let (mut told, _) = Told::new(keys(), Read::default()).expect("readable");
            let mut etcd: BTreeMap<u128, i64> = BTreeMap::new();
            let mut shown: BTreeMap<Key, i64> = BTreeMap::new();
            for (at, (id, is_put, gap)) in (1..).zip(steps) {
                let event = if is_put { put(lease(id), at) } else { delete(&lease(id).0, at) };
                let _ = if is_put { etcd.insert(id, at) } else { etcd.remove(&id) };
                // A step of a gap is told by no watch.
                if gap && at % 3 != 0 {
                    continue;
                }
                let commit = if gap || told.revision() != Revision(at as u64 - 1) {
                    let values = etcd.iter().map(|(id, at)| value(lease(*id), *at)).collect();
                    told.difference(read(at as u64, values))
                } else {
                    told.commit(Revision(at as u64), vec![event])
                };
                for change in commit.changes {
                    let Key::Lease(id) = change.key else { panic!("leases only") };
                    match (change.record.is_some(), etcd.get(&id.0)) {
                        (true, Some(now)) => {
                            let before = shown.insert(change.key, *now);
                            prop_assert_ne!(before, Some(*now), "told twice");
                        }
                        (false, None) => drop(shown.remove(&change.key)),
                        other => prop_assert!(false, "not so: {:?}", other),
                    }
                }
                let expected: BTreeMap<Key, i64> = etcd.iter().map(|(id, at)| (lease(*id).0, *at)).collect();
                prop_assert_eq!(&shown, &expected);
            }
        }
    }
}
