//! After a start without stored state: unknown is not empty.

use super::*;

#[test]
fn rule_23_a_returning_client_keeps_what_it_has() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.readiness = Readiness::Unknown;
    bench.resume(CDS, &[], &[("a", "0".repeat(32))]);
    bench.resume(EDS, &["a"], &[("a", "0".repeat(32))]);
    bench.silent();
    bench.readiness = Readiness::Partial;
    bench.change(CDS, "a", "1");
    bench.change(EDS, "a", "1");
    bench.silent();
    bench.readiness = Readiness::Ready;
    let clusters = bench.take();
    assert_eq!((clusters.resources, clusters.removed), (contents(&[("a", "1")]), vec![]));
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
}

#[test]
fn rule_23_a_returning_client_of_the_state_of_the_world_too() {
    let mut bench = Bench::new(Dialect::StateOfTheWorld);
    bench.readiness = Readiness::Unknown;
    bench.ask(CDS, &[], &Seen { version: "some".into(), ..Seen::default() }, None);
    bench.silent();
    bench.readiness = Readiness::Ready;
    assert_eq!(bench.take().resources, contents(&[]));
}

#[test]
fn rule_57_a_new_client_gets_the_names_that_exist_and_no_word_on_others() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Incremental] {
        let mut bench = Bench::new(dialect);
        bench.readiness = Readiness::Unknown;
        bench.shelf.put(EDS, "a", "1");
        match dialect {
            Dialect::Incremental => bench.subscribe(EDS, &["a", "b"], &[]),
            Dialect::StateOfTheWorld => bench.ask(EDS, &["a", "b"], &Seen::default(), None),
        }
        let seen = bench.take();
        assert_eq!((seen.resources, seen.removed), (contents(&[("a", "1")]), vec![]), "{dialect:?}");
        bench.silent();
        bench.change(EDS, "b", "1");
        assert_eq!(bench.take().resources, contents(&[("b", "1")]), "{dialect:?}");
    }
}

#[test]
fn a_new_client_gets_its_wildcard_when_somebody_has_registered() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Incremental] {
        let mut bench = Bench::new(dialect);
        bench.readiness = Readiness::Unknown;
        match dialect {
            Dialect::Incremental => bench.subscribe(CDS, &[], &[]),
            Dialect::StateOfTheWorld => bench.ask(CDS, &[], &Seen::default(), None),
        }
        bench.silent();
        bench.change(CDS, "a", "1");
        bench.silent();
        bench.readiness = Readiness::Partial;
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
    }
}

#[test]
fn a_named_listener_is_not_denied_before_its_service_could_register() {
    let mut bench = Bench::new(Dialect::StateOfTheWorld);
    bench.readiness = Readiness::Unknown;
    bench.ask(LDS, &["web"], &Seen::default(), None);
    bench.silent();
    bench.readiness = Readiness::Ready;
    assert_eq!(bench.take().resources, contents(&[]));
}

#[test]
fn waiting_for_the_unknown_has_no_deadline() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.readiness = Readiness::Unknown;
    bench.shelf.put(EDS, "a", "1");
    bench.subscribe(EDS, &["a", "b"], &[]);
    bench.one();
    // The ACK is overdue, and still there is nothing to send: waking up again and again would not help.
    bench.pass(Duration::from_secs(2));
    bench.silent();
    assert_eq!(bench.session.deadline(bench.now), None);
}

#[test]
fn what_goes_before_everything_is_known_is_removed_when_it_is() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.readiness = Readiness::Partial;
    bench.shelf.put(EDS, "a", "1");
    bench.subscribe(EDS, &["a"], &[]);
    bench.take();
    bench.remove(EDS, "a");
    bench.silent();
    assert!(bench.session.pending(EDS).is_some());
    bench.readiness = Readiness::Ready;
    assert_eq!(bench.take().removed, ["a"]);
}
