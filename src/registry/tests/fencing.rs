//! A late message of an older incarnation changes nothing; somebody's decision is not undone by the same one.

use super::*;

/// How an instance of incarnation 5 left, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Past {
    Present,
    Draining,
    Expired,
    Deregistered,
    Drained,
    Replaced,
}

fn book(past: Past) -> Book {
    let mut book = Book::default();
    let lease = book.register_as(None, Some(5), &[("web/1", spec(1))]).expect("registered");
    match past {
        Past::Present => {}
        Past::Draining => book.drain("web/1", Some(5)).expect("draining"),
        Past::Expired => book.expire(lease),
        Past::Deregistered => book.deregister("web/1", Some(5)).expect("deregistered"),
        Past::Drained => {
            book.drain("web/1", None).expect("draining");
            book.finish_drain("web/1", 5);
        }
        Past::Replaced => drop(book.register(&[("web/2", spec(1))]).expect("registered")),
    }
    book
}

#[test]
fn who_may_register() {
    use Past::{Deregistered, Drained, Draining, Expired, Present, Replaced};
    for (past, given, expected) in [
        (Present, Some(4), "older"),
        (Present, Some(5), "ok"),
        (Present, Some(6), "ok"),
        (Present, None, "ok"),
        (Draining, Some(4), "older"),
        (Draining, Some(5), "ok"),
        (Expired, Some(4), "older"),
        (Expired, Some(5), "ok"),
        (Expired, None, "ok"),
        (Deregistered, Some(4), "older"),
        (Deregistered, Some(5), "fenced"),
        (Deregistered, Some(6), "ok"),
        (Deregistered, None, "ok"),
        (Drained, Some(5), "fenced"),
        (Drained, Some(6), "ok"),
        (Replaced, Some(5), "fenced"),
        (Replaced, Some(6), "ok"),
    ] {
        let mut book = book(past);
        let outcome = match book.register_as(None, given, &[("web/1", spec(9))]) {
            Ok(_) => "ok",
            Err(Error::OlderIncarnation { .. }) => "older",
            Err(Error::Fenced { .. }) => "fenced",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(outcome, expected, "{past:?} {given:?}");
    }
}

#[test]
fn an_older_incarnation_removes_and_drains_nothing() {
    for past in [Past::Present, Past::Draining] {
        let mut book = book(past);
        let revision = book.snapshot().revision;
        assert!(matches!(book.deregister("web/1", Some(4)), Err(Error::OlderIncarnation { .. })));
        assert!(matches!(book.drain("web/1", Some(4)), Err(Error::OlderIncarnation { .. })));
        book.finish_drain("web/1", 4);
        assert_eq!(book.snapshot().revision, revision);
    }
}

#[test]
fn deregistering_twice_is_deregistering_once() {
    let mut book = book(Past::Deregistered);
    let revision = book.snapshot().revision;
    book.deregister("web/1", None).expect("gone already");
    assert_eq!(book.snapshot().revision, revision);
    assert!(matches!(book.deregister("web/7", None), Err(Error::NotFound { .. })));
}

#[test]
fn a_drain_lasts_for_the_same_incarnation_and_ends_with_a_new_one() {
    let mut book = book(Past::Draining);
    book.register_as(None, Some(5), &[("web/1", InstanceSpec { weight: 1, ..spec(1) })]).expect("registered");
    assert!(book.get("web/1").is_some_and(|instance| instance.drain.is_some()));
    book.register_as(None, Some(6), &[("web/1", spec(1))]).expect("registered");
    assert!(book.get("web/1").is_some_and(|instance| instance.drain.is_none()));
    book.finish_drain("web/1", 5);
    assert!(book.get("web/1").is_some());
}

#[test]
fn a_new_incarnation_gets_a_new_lease_and_the_old_one_ends() {
    let mut book = Book::default();
    let first = book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    let second = book.register_as(None, Some(2), &[("web/1", spec(1))]).expect("registered");
    assert_ne!(first, second);
    assert_eq!(book.effects.leases_gone, [first]);
    let error = book.register_as(Some(second), Some(3), &[("web/2", spec(2))]).expect_err("refused");
    assert!(matches!(error, Error::LeaseIncarnation { .. }), "{error}");
    let error = book.register_as(Some(first), Some(2), &[("web/2", spec(2))]).expect_err("refused");
    assert_eq!(error, Error::LeaseNotFound { lease: first });
}

#[test]
fn tombstones_are_forgotten_by_age_and_by_number() {
    let mut book = Book::default();
    for number in 1..=3 {
        let name = format!("web/{number}");
        book.now = UnixMillis(u64::from(number) * 1_000);
        book.register(&[(&name, spec(number))]).expect("registered");
        book.deregister(&name, None).expect("deregistered");
    }
    assert_eq!(book.state.tombstones_due(UnixMillis(2_000), 10, 10), [key("web/1")]);
    assert_eq!(book.state.tombstones_due(UnixMillis(0), 1, 10), [key("web/1"), key("web/2")]);
    assert_eq!(book.state.tombstones_due(UnixMillis(9_000), 10, 2).len(), 2);
    book.run(&Command::Forget(vec![key("web/1")])).expect("forgotten");
    assert!(matches!(book.deregister("web/1", None), Err(Error::NotFound { .. })));
    assert_eq!(book.snapshot().services[&service("web")].instances.len(), 0);
}

/// A registration may be on its way, or this replica behind another one.
#[test]
fn deregistering_what_has_expired_keeps_it_from_coming_back() {
    let mut book = Book::default();
    let lease = book.register_as(None, Some(3), &[("web/1", spec(1))]).expect("registered");
    book.expire(lease);
    book.deregister("web/1", Some(3)).expect("deregistered");
    assert!(matches!(book.register_as(None, Some(3), &[("web/1", spec(1))]), Err(Error::Fenced { .. })));
    // Of a newer one nothing is known here; it is not to come either.
    book.deregister("web/1", Some(5)).expect("deregistered");
    assert!(matches!(book.register_as(None, Some(5), &[("web/1", spec(1))]), Err(Error::Fenced { .. })));
    let revision = book.snapshot().revision;
    for said in [None, Some(3), Some(5)] {
        book.deregister("web/1", said).expect("said again");
    }
    assert_eq!(book.snapshot().revision, revision, "said twice is said once");
    book.register_as(None, Some(6), &[("web/1", spec(1))]).expect("a newer one may come");
}
