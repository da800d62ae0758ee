//! Transactions as etcd's: which go together, in which order, and what etcd's answer says of each. Pure.
//!
//! Transactions that touch the same keys are sent one after the other (`waves`); the others are put together, as many as
//! etcd takes in one (`groups`), and several of these are under way at a time. A group is one atomic write of etcd: all
//! its transactions get one revision. If a condition does not hold, nothing of the group is written, and the answer says
//! what each condition found, so that those it does not concern are sent again without the others.
//!
//! A transaction is never split, so that it is atomic; one that is over what etcd takes is refused.

use std::{collections::HashMap, iter};

use bytes::Bytes;

use super::{
    keys::Keys,
    rpc::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    told::{Told, revision},
};
use crate::{
    model::Revision,
    storage::{Change, Transaction, record},
};

/// etcd's own default (`--max-txn-ops`), of conditions and of changes.
pub const MAX_OPERATIONS: usize = 128;
/// A third of etcd's default (`--max-request-bytes`): groups stay well under it.
const GROUP_BYTES: usize = 512 * 1024;

/// One transaction in etcd's terms.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Which of the call's transactions it is.
    pub index: usize,
    conditions: Vec<Condition>,
    changes: Vec<Request>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// The key's last change was at this revision; 0: there is no such key.
    Unchanged { key: Bytes, since: Revision },
    /// No key from one to another was changed after this revision.
    NoneAfter { first: Bytes, end: Bytes, revision: Revision },
}

/// A key that was not as expected, and its revision in etcd; 0 when there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub key: Bytes,
    pub revision: Revision,
}

impl Write {
    pub fn new(index: usize, transaction: &Transaction, keys: &Keys, told: &Told) -> Self {
        let unchanged = transaction
            .expect
            .iter()
            .map(|(key, revision)| Condition::Unchanged { key: keys.record(key), since: told.in_etcd(key, *revision) });
        let none_after = transaction.still.iter().map(|(service, revision)| {
            let (first, end) = keys.instances(service);
            Condition::NoneAfter { first, end, revision: *revision }
        });
        let change = |Change { key, record }: &Change| {
            let key = keys.record(key);
            match record {
                // etcd knows the revision; what the value says of it is for other stores.
                Some(record) => {
                    let value = record::encode(Revision(0), record).into();
                    Request::RequestPut(PutRequest { key, value, lease: 0 })
                }
                None => Request::RequestDeleteRange(DeleteRangeRequest { key }),
            }
        };
        let changes: Vec<Request> = transaction.changes.iter().map(change).collect();
        let bytes = changes.iter().map(size).sum();
        Self { index, conditions: unchanged.chain(none_after).collect(), changes, bytes }
    }

    /// Whether etcd could take it in one.
    pub fn fits(&self) -> bool {
        self.conditions.len() <= MAX_OPERATIONS && self.changes.len() <= MAX_OPERATIONS
    }

    /// Whether its conditions exclude that it is carried out twice: each key that it changes is expected at a revision.
    pub fn is_repeatable(&self) -> bool {
        self.written().all(|key| self.expected().any(|expected| expected == key))
    }

    fn expected(&self) -> impl Iterator<Item = &Bytes> {
        self.conditions.iter().filter_map(|condition| match condition {
            Condition::Unchanged { key, .. } => Some(key),
            Condition::NoneAfter { .. } => None,
        })
    }

    /// The keys that it puts or deletes.
    pub fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.changes.iter().map(|change| match change {
            Request::RequestPut(put) => &put.key,
            Request::RequestDeleteRange(delete) => &delete.key,
            Request::RequestRange(range) => &range.key,
        })
    }
}

fn size(change: &Request) -> usize {
    match change {
        Request::RequestPut(put) => put.key.len() + put.value.len(),
        Request::RequestDeleteRange(delete) => delete.key.len(),
        Request::RequestRange(range) => range.key.len(),
    }
}

/// Puts those that touch the same keys one after the other: all of a wave may go at once, and comes before the next.
pub fn waves(writes: Vec<Write>) -> Vec<Vec<Write>> {
    #[derive(Clone, Copy, Default)]
    struct Next {
        after_writes: usize,
        after_all: usize,
    }
    let (mut waves, mut next): (Vec<Vec<Write>>, HashMap<Bytes, Next>) = Default::default();
    for write in writes {
        let of = |key: &Bytes| next.get(key).copied().unwrap_or_default();
        let reads = write.expected().map(|key| of(key).after_writes);
        let wave = reads.chain(write.written().map(|key| of(key).after_all)).max().unwrap_or_default();
        for key in write.expected() {
            let next = next.entry(key.clone()).or_default();
            next.after_all = next.after_all.max(wave + 1);
        }
        for key in write.written() {
            *next.entry(key.clone()).or_default() = Next { after_writes: wave + 1, after_all: wave + 1 };
        }
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(write);
    }
    waves
}

/// Puts those of a wave together, in their order, as many as fit.
pub fn groups(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut groups: Vec<Vec<Write>> = Vec::new();
    let (mut conditions, mut changes, mut bytes) = (0, 0, 0);
    for write in writes {
        conditions += write.conditions.len();
        changes += write.changes.len();
        bytes += write.bytes;
        let full = conditions > MAX_OPERATIONS || changes > MAX_OPERATIONS || bytes > GROUP_BYTES;
        match groups.last_mut() {
            Some(group) if !full => group.push(write),
            _ => {
                (conditions, changes, bytes) = (write.conditions.len(), write.changes.len(), write.bytes);
                groups.push(vec![write]);
            }
        }
    }
    groups
}

/// One transaction of etcd: all changes if all conditions hold, else a look at each condition.
pub fn request(group: &[Write]) -> TxnRequest {
    let conditions = || group.iter().flat_map(|write| &write.conditions);
    let changes = group.iter().flat_map(|write| write.changes.iter().cloned());
    let operation = |request| RequestOp { request: Some(request) };
    TxnRequest {
        compare: conditions().map(compare).collect(),
        success: changes.map(operation).collect(),
        failure: conditions().map(|condition| operation(Request::RequestRange(look(condition)))).collect(),
    }
}

fn compare(condition: &Condition) -> Compare {
    let of = |result: CompareResult, key: &Bytes, range_end: Bytes, revision: u64| Compare {
        result: result.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        range_end,
        target_union: Some(TargetUnion::ModRevision(revision.try_into().unwrap_or(i64::MAX))),
    };
    match condition {
        Condition::Unchanged { key, since } => of(CompareResult::Equal, key, Bytes::new(), since.0),
        Condition::NoneAfter { first, end, revision } => {
            of(CompareResult::Less, first, end.clone(), revision.0.saturating_add(1))
        }
    }
}

/// What there is of a condition, for when one does not hold.
fn look(condition: &Condition) -> RangeRequest {
    match condition {
        Condition::Unchanged { key, .. } => RangeRequest { key: key.clone(), keys_only: true, ..Default::default() },
        Condition::NoneAfter { first, end, revision } => RangeRequest {
            key: first.clone(),
            range_end: end.clone(),
            min_mod_revision: i64::try_from(revision.0).unwrap_or(i64::MAX).saturating_add(1),
            limit: 1,
            keys_only: true,
            ..Default::default()
        },
    }
}

/// Whether a transaction that succeeded changed anything: to delete what is absent makes no revision.
pub fn changed(response: &TxnResponse) -> bool {
    response.responses.iter().any(|response| match &response.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(response)) => response.deleted > 0,
        _ => false,
    })
}

/// Of a group that was not carried out: for each transaction what it did not expect. Some have found something.
pub fn found(group: &[Write], response: &TxnResponse) -> Vec<Vec<Found>> {
    let looks = response.responses.iter().map(|response| match &response.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    });
    let mut looks = looks.chain(iter::repeat(None));
    let mut of = |write: &Write| -> Vec<Found> {
        let look = |(condition, found): (&Condition, Option<&super::rpc::KeyValue>)| match condition {
            Condition::Unchanged { key, since } => {
                let revision = found.map(|found| revision(found.mod_revision)).unwrap_or_default();
                (revision != *since).then(|| Found { key: key.clone(), revision })
            }
            Condition::NoneAfter { .. } => {
                found.map(|found| Found { key: found.key.clone(), revision: revision(found.mod_revision) })
            }
        };
        write.conditions.iter().zip(&mut looks).filter_map(look).collect()
    };
    group.iter().map(&mut of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{
        Key, Record,
        conformance::{instance, lease, service},
        etcd::told::Read,
    };

    fn write(index: usize, expect: &[(Key, u64)], changes: Vec<(Key, Option<Record>)>) -> Write {
        let keys = Keys::new("/convoy/");
        let (told, _) = Told::new(keys.clone(), Read::default()).expect("readable");
        let transaction = Transaction {
            expect: expect.iter().map(|(key, revision)| (key.clone(), Revision(*revision))).collect(),
            changes: changes.into_iter().map(|(key, record)| Change { key, record }).collect(),
            ..Transaction::default()
        };
        Write::new(index, &transaction, &keys, &told)
    }

    fn put(index: usize, expect: &[(Key, u64)], (key, record): (Key, Record)) -> Write {
        write(index, expect, vec![(key, Some(record))])
    }

    fn indices(waves: &[Vec<Write>]) -> Vec<Vec<usize>> {
        waves.iter().map(|wave| wave.iter().map(|write| write.index).collect()).collect()
    }

    #[test]
    fn those_that_touch_the_same_keys_keep_their_order() {
        let (reads_a, a, b) = ([(service("a").0, 1)], service("a"), service("b"));
        let of = vec![
            put(0, &[], a.clone()),
            put(1, &[], b.clone()),
            // Readers of one key go together, between its writers.
            put(2, &reads_a, lease(1)),
            put(3, &reads_a, lease(2)),
            put(4, &[], a),
            put(5, &[], b),
        ];
        assert_eq!(indices(&waves(of)), [vec![0, 1], vec![2, 3, 5], vec![4]]);
    }

    #[test]
    fn a_group_is_no_larger_than_etcd_takes() {
        let small = (0..300).map(|index| put(index, &[(lease(index as u128).0, 0)], lease(index as u128))).collect();
        let sizes: Vec<usize> = groups(small).iter().map(Vec::len).collect();
        assert_eq!(sizes, [128, 128, 44]);
        let conditions: Vec<(Key, u64)> = (0..129).map(|id| (lease(id).0, 0)).collect();
        assert!(put(0, &conditions[..128], lease(0)).fits() && !put(0, &conditions, lease(0)).fits());
    }

    #[test]
    fn only_what_is_compared_may_be_sent_again() {
        let key = lease(1).0;
        assert!(put(0, &[(key.clone(), 0)], lease(1)).is_repeatable());
        assert!(!put(0, &[(service("a").0, 1)], lease(1)).is_repeatable());
        assert!(!write(0, &[], vec![(key, None)]).is_repeatable());
    }

    #[test]
    fn an_answer_says_whom_a_failure_concerns() {
        use super::super::rpc::{KeyValue, RangeResponse, ResponseOp};
        let instance_key = instance("a", "1", 1).0;
        let group = vec![
            put(0, &[(lease(1).0, 3)], lease(1)),
            put(1, &[(lease(2).0, 0), (instance_key, 4)], lease(2)),
            put(2, &[(lease(3).0, 0)], lease(3)),
        ];
        let look = |mod_revision: i64| {
            let kvs = Vec::from_iter((mod_revision != 0).then(|| KeyValue { mod_revision, ..Default::default() }));
            ResponseOp { response: Some(Response::ResponseRange(RangeResponse { kvs, ..Default::default() })) }
        };
        let responses = [3, 0, 9, 5].map(look).into();
        let response = TxnResponse { succeeded: false, responses, ..Default::default() };
        let found = found(&group, &response);
        let shape = |found: &Vec<Found>| found.iter().map(|at| at.revision.0).collect::<Vec<_>>();
        assert_eq!(found.iter().map(shape).collect::<Vec<_>>(), [vec![], vec![9], vec![5]]);
    }
}
