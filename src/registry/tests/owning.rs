//! Whose leases are, among several replicas.

use crate::{
    model::{Replica, ReplicaId, Revision, UnixMillis},
    storage::{Change, Commit, Key, Record},
};

use super::*;

const FIRST: ReplicaId = ReplicaId(1);
const SECOND: ReplicaId = ReplicaId(2);

/// What the first replica knows.
fn book() -> Book {
    let mut book = Book::default();
    book.state.me = FIRST;
    book.comes(FIRST);
    book
}

impl Book {
    fn comes(&mut self, id: ReplicaId) {
        let address = ([10, 0, 0, 1], 7071).into();
        let replica = Replica { name: "a".into(), address, since: UnixMillis(1) };
        self.told(id, Some(Record::Replica(replica.into())));
    }

    fn goes(&mut self, id: ReplicaId) {
        self.told(id, None);
    }

    fn told(&mut self, id: ReplicaId, record: Option<Record>) {
        let revision = Revision(self.snapshot().revision.0 + 1);
        let changes = vec![Change { key: Key::Replica(id), record }];
        self.effects = self.state.apply(Commit::new(revision, changes), self.now);
        assert!(self.effects.replicas_changed);
    }

    /// As another replica.
    fn by<T>(&mut self, replica: ReplicaId, act: impl FnOnce(&mut Self) -> T) -> T {
        self.state.me = replica;
        let outcome = act(self);
        self.state.me = FIRST;
        outcome
    }

    fn owner(&self, lease: LeaseId) -> Option<ReplicaId> {
        self.state.lease(lease).map(|state| state.lease.owner)
    }
}

#[test]
fn a_lease_is_whose_replica_wrote_it_and_only_that_one_ends_it() {
    let mut book = book();
    book.comes(SECOND);
    let lease = book.by(SECOND, |book| book.register(&[("web/1", spec(1))])).expect("registered");
    assert_eq!(book.owner(lease), Some(SECOND));
    book.expire(lease);
    book.run(&Command::Lapse { lease, scope: crate::model::BrakeScope::Intake }).expect("planned");
    assert!(book.get("web/1").is_some_and(|instance| instance.lapsed.is_none()), "it is not this one's to say");
    // Who registers elsewhere is heard there from then on.
    assert_eq!(book.register(&[("web/1", spec(1))]), Ok(lease));
    assert_eq!(book.owner(lease), Some(FIRST));
    let [set] = book.effects.leases_set[..] else { panic!("one lease") };
    assert_eq!((set.was, set.lease.owner), (Some(SECOND), FIRST));
    book.by(SECOND, |book| book.expire(lease));
    assert!(book.get("web/1").is_some(), "nor is it the other's now");
    book.expire(lease);
    assert_eq!(book.get("web/1"), None);
}

#[test]
fn orphans_are_shared_out_among_those_that_are_here() {
    let mut book = book();
    book.comes(SECOND);
    let third = ReplicaId(3);
    book.comes(third);
    let names: Vec<String> = (0..40).map(|number| format!("web/{number}")).collect();
    let register = |book: &mut Book| {
        let host = |at: usize| spec(u8::try_from(at).expect("few") + 1);
        let all = names.iter().enumerate().map(|(at, name)| book.register(&[(name.as_str(), host(at))]));
        all.collect::<Result<Vec<_>, _>>().expect("registered")
    };
    let mut leases = book.by(third, register);
    assert_eq!(book.state.orphans(), []);
    book.goes(third);
    let (ours, theirs) = (book.state.orphans(), book.by(SECOND, |book| book.state.orphans()));
    assert!(ours.len() > 5 && theirs.len() > 5, "{} and {}", ours.len(), theirs.len());
    let mut all = [ours.clone(), theirs].concat();
    all.sort_unstable();
    leases.sort_unstable();
    assert_eq!(all, leases, "each is one's");
    book.run(&Command::Adopt(ours.clone())).expect("adopted");
    assert!(ours.iter().all(|lease| book.owner(*lease) == Some(FIRST)));
    assert_eq!(book.state.orphans(), []);
    // The one that is left has the rest as well.
    book.goes(SECOND);
    assert_eq!(book.state.orphans().len(), 40 - ours.len());
    // One that is not here itself, as others see it, adopts nothing.
    book.goes(FIRST);
    book.comes(SECOND);
    assert!(book.state.orphans().is_empty(), "all are the other's");
}

#[test]
fn one_of_them_keeps_the_house() {
    let mut book = book();
    book.comes(SECOND);
    assert!(book.state.is_first() && !book.by(SECOND, |book| book.state.is_first()));
    book.goes(FIRST);
    assert!(book.by(SECOND, |book| book.state.is_first()));
    assert!(Book::default().state.is_first(), "where there is only one, it is that");
}
