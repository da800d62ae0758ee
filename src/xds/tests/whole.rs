//! A client that has nothing is sent everything in one response that is laid out once (`full`): what may happen while
//! that has no ACK.

use super::*;

/// What the client has been sent, with what names, when it has not answered.
fn sent(dialect: Dialect, kind: ResourceType) -> (Bench, Seen) {
    let mut bench = Bench::new(dialect);
    for name in ["a", "b", "c"] {
        bench.shelf.put(kind, name, "1");
    }
    bench.start(kind, if kind == CDS { &[] } else { &["a", "b", "c"] });
    let whole = bench.one();
    assert_eq!(whole.resources.len(), 3);
    (bench, whole)
}

fn cases() -> impl Iterator<Item = (Dialect, ResourceType)> {
    BOTH.into_iter().flat_map(|dialect| [(dialect, CDS), (dialect, EDS)])
}

fn holds(bench: &Bench, name: &str) -> bool {
    bench.session.holdings().iter().any(|holding| *holding.name == *name && holding.acked.is_some())
}

#[test]
fn rule_16_what_is_not_at_fault_in_a_refused_whole_goes_again() {
    for (dialect, kind) in cases() {
        let (mut bench, whole) = sent(dialect, kind);
        bench.nack(&whole, "b: bad");
        assert_eq!(bench.take().resources, contents(&[("a", "1"), ("c", "1")]), "{dialect:?} {kind:?}");
        bench.silent();
        assert!(holds(&bench, "a") && !holds(&bench, "b"));
        bench.change(kind, "b", "2");
        let next = bench.take();
        assert_eq!(next.resources.get("b").map(String::as_str), Some("2"), "{dialect:?} {kind:?}");
        assert_eq!(bench.session.pending(kind), None, "{dialect:?} {kind:?}");
    }
}

#[test]
fn rule_14_a_whole_that_is_refused_without_names_waits_for_another_content() {
    for (dialect, kind) in cases() {
        let (mut bench, whole) = sent(dialect, kind);
        bench.nack(&whole, "no");
        bench.silent();
        assert!(["a", "b", "c"].iter().all(|name| !holds(&bench, name)));
        bench.change(kind, "b", "2");
        assert_eq!(bench.take().resources, contents(&[("b", "2")]), "{dialect:?} {kind:?}");
        bench.silent();
    }
}

#[test]
fn rule_8_a_change_while_the_whole_has_no_ack_comes_after_it() {
    for (dialect, kind) in cases() {
        let (mut bench, whole) = sent(dialect, kind);
        bench.change(kind, "a", "2");
        bench.remove(kind, "c");
        bench.silent();
        bench.ack(&whole);
        let next = bench.take();
        let is_set = dialect == Dialect::StateOfTheWorld && kind == CDS;
        let expected = if is_set { contents(&[("a", "2"), ("b", "1")]) } else { contents(&[("a", "2")]) };
        assert_eq!(next.resources, expected, "{dialect:?} {kind:?}");
        assert_eq!(next.removed, if dialect == Dialect::Incremental { vec!["c"] } else { vec![] });
        bench.silent();
    }
}

#[test]
fn rule_16_a_refused_whole_does_not_take_back_what_went_after_it() {
    for (dialect, kind) in cases() {
        let (mut bench, whole) = sent(dialect, kind);
        bench.change(kind, "a", "2");
        bench.pass(Duration::from_secs(1));
        let second = bench.one();
        assert_eq!(second.resources.get("a").map(String::as_str), Some("2"));
        bench.nack(&whole, "c: bad");
        bench.ack(&second);
        bench.drain();
        assert!(holds(&bench, "a") && holds(&bench, "b") && !holds(&bench, "c"), "{dialect:?} {kind:?}");
        assert_eq!(bench.session.lagging(kind).len(), 1, "{dialect:?} {kind:?}: the one at fault");
    }
}

#[test]
fn rule_33_what_is_dropped_while_the_whole_has_no_ack_is_forgotten() {
    for dialect in BOTH {
        for error in [None, Some("no"), Some("a: bad")] {
            let (mut bench, whole) = sent(dialect, EDS);
            if dialect == Dialect::Incremental {
                bench.subscribe(EDS, &[], &["b"]);
                bench.answer(&whole, error);
            } else {
                // The answer to the response and the change of the names are one request.
                bench.ask(EDS, &["a", "c"], &whole, error);
            }
            for seen in bench.drain() {
                let named = seen.resources.keys().chain(&seen.removed);
                assert!(!named.clone().any(|name| name == "b"), "{dialect:?} {error:?}: {seen:?}");
            }
            let holdings = bench.session.holdings();
            assert!(holdings.iter().all(|holding| *holding.name != *"b"), "{dialect:?} {error:?}: {holdings:?}");
            bench.change(EDS, "b", "2");
            bench.silent();
        }
    }
}

#[test]
fn rule_33_what_is_dropped_while_its_response_has_no_ack_is_forgotten() {
    for error in [None, Some("b: bad")] {
        let mut bench = Bench::new(Dialect::Incremental);
        bench.shelf.put_leading_to(RDS, "b", "1", &["cluster"]);
        bench.shelf.put(CDS, "cluster", "1");
        bench.start(CDS, &[]);
        bench.take();
        bench.start(RDS, &["b"]);
        let routes = bench.one();
        bench.subscribe(RDS, &[], &["b"]);
        bench.answer(&routes, error);
        bench.silent();
        assert!(bench.session.holdings().iter().all(|holding| holding.kind != RDS), "{error:?}");
        // No route leads to the cluster: nothing waits.
        bench.remove(CDS, "cluster");
        assert_eq!(bench.take().removed, ["cluster"], "{error:?}");
    }
}

#[test]
fn rule_29_dropped_and_named_again_while_the_whole_has_no_ack() {
    for dialect in BOTH {
        let (mut bench, whole) = sent(dialect, EDS);
        let again = match dialect {
            Dialect::Incremental => {
                bench.subscribe(EDS, &[], &["b"]);
                bench.subscribe(EDS, &["b"], &[]);
                let again = bench.one();
                bench.ack(&whole);
                bench.ack(&again);
                again
            }
            Dialect::StateOfTheWorld => {
                bench.ask(EDS, &["a", "c"], &whole, None);
                bench.ask(EDS, &["a", "b", "c"], &whole, None);
                bench.take()
            }
        };
        assert_eq!(again.resources, contents(&[("b", "1")]), "{dialect:?}");
        bench.silent();
        assert!(holds(&bench, "b"), "{dialect:?}");
    }
}

#[test]
fn rule_33_a_wildcard_that_ends_before_its_answer_is_not_answered() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        for name in ["a", "b"] {
            bench.shelf.put(CDS, name, "1");
        }
        bench.start(CDS, &[]);
        match dialect {
            Dialect::Incremental => bench.subscribe(CDS, &["a"], &["*"]),
            Dialect::StateOfTheWorld => bench.start(CDS, &["a"]),
        }
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
        let mut bench = Bench::new(dialect);
        bench.shelf.put(CDS, "a", "1");
        bench.start(CDS, &["*"]);
        match dialect {
            Dialect::Incremental => bench.subscribe(CDS, &[], &["*"]),
            Dialect::StateOfTheWorld => bench.start(CDS, &[]),
        }
        assert!(bench.drain().iter().all(|seen| seen.resources.is_empty()), "{dialect:?}");
    }
}

#[test]
fn rule_20_who_comes_back_before_it_has_answered_the_whole_is_sent_it_again() {
    for (dialect, kind) in cases() {
        let (mut bench, _) = sent(dialect, kind);
        bench.reconnect();
        bench.start(kind, if kind == CDS { &[] } else { &["a", "b", "c"] });
        assert_eq!(bench.take().resources.len(), 3, "{dialect:?} {kind:?}");
    }
}
