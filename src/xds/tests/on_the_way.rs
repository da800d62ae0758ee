//! What happens while responses are on their way, or have been refused.

use super::*;
use crate::xds::standing::Lag;

const NOW: Revision = Revision(u64::MAX);
const BOTH: [Dialect; 2] = [Dialect::StateOfTheWorld, Dialect::Incremental];

/// Endpoints `a` and `b` are there.
fn bench(dialect: Dialect) -> Bench {
    let mut bench = Bench::new(dialect);
    bench.shelf.put(EDS, "a", "1");
    bench.shelf.put(EDS, "b", "1");
    bench
}

fn follow(bench: &mut Bench, kind: ResourceType, names: &[&str]) {
    match bench.dialect {
        Dialect::Incremental => bench.subscribe(kind, names, &[]),
        Dialect::StateOfTheWorld => bench.ask(kind, names, &Seen::default(), None),
    }
}

fn names(bench: &Bench) -> Vec<String> {
    bench.session.holdings().iter().map(|holding| holding.name.to_string()).collect()
}

/// Many responses go out that the client does not answer; gives the last one.
fn many(bench: &mut Bench, name: &str) -> Seen {
    let mut one = |content: usize| {
        bench.pass(Duration::from_secs(1));
        bench.shelf.put(EDS, name, &format!("again {content}"));
        bench.session.mark_dirty(EDS, name.into(), Revision(9));
        bench.one()
    };
    (0..20).map(&mut one).last().expect("some")
}

#[test]
fn what_has_no_ack_is_pending_however_many_responses_follow() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        follow(&mut bench, EDS, &["a", "b"]);
        bench.take();
        bench.change(EDS, "a", "2");
        bench.one();
        let last = many(&mut bench, "b");
        assert_eq!(bench.session.lags(EDS, "a", NOW), Some(Lag::Pending), "{dialect:?}");
        assert_eq!(bench.session.pending(EDS), Some(Revision(1)), "{dialect:?}");
        bench.ack(&last);
        assert_eq!(bench.session.pending(EDS), None, "{dialect:?}");
        let holdings = bench.session.holdings();
        assert!(holdings.iter().all(|holding| holding.sent == holding.acked), "{dialect:?}: {holdings:?}");
    }
}

#[test]
fn the_first_response_is_accepted_with_a_later_one_however_many_follow() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        follow(&mut bench, EDS, &["a", "b"]);
        bench.one();
        let last = many(&mut bench, "b");
        bench.ack(&last);
        let holdings = bench.session.holdings();
        assert!(holdings.iter().all(|holding| holding.sent == holding.acked), "{dialect:?}: {holdings:?}");
    }
}

#[test]
fn an_old_response_may_be_refused_after_many() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        follow(&mut bench, EDS, &["a", "b"]);
        let first = bench.one();
        let last = many(&mut bench, "b");
        bench.nack(&first, "a: bad");
        bench.ack(&last);
        assert_eq!(bench.session.lags(EDS, "a", NOW), Some(Lag::Rejected), "{dialect:?}");
        assert_eq!(bench.session.lags(EDS, "b", NOW), None, "{dialect:?}");
    }
}

#[test]
fn what_was_dropped_before_its_ack_is_held_no_more() {
    let mut bench = bench(Dialect::Incremental);
    bench.subscribe(EDS, &["a", "b"], &[]);
    let whole = bench.one();
    bench.subscribe(EDS, &[], &["a"]);
    bench.ack(&whole);
    assert_eq!(names(&bench), ["b"]);
    bench.subscribe(EDS, &["a"], &[]);
    let listed = bench.one();
    bench.subscribe(EDS, &[], &["a"]);
    bench.ack(&listed);
    assert_eq!(names(&bench), ["b"]);
}

#[test]
fn what_was_dropped_before_it_is_refused_is_not_waited_for() {
    let mut bench = bench(Dialect::Incremental);
    bench.subscribe(EDS, &["a", "b"], &[]);
    let seen = bench.one();
    bench.subscribe(EDS, &[], &["a"]);
    bench.nack(&seen, "a: bad");
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
    assert_eq!(bench.session.pending(EDS), None);
}

#[test]
fn a_route_that_was_dropped_before_its_ack_keeps_no_cluster() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.shelf.put(CDS, "a", "1");
    bench.shelf.put_leading_to(RDS, "route", "1", &["a"]);
    bench.subscribe(CDS, &[], &[]);
    bench.take();
    bench.subscribe(RDS, &["route"], &[]);
    let route = bench.one();
    bench.subscribe(RDS, &[], &["route"]);
    bench.ack(&route);
    bench.remove(CDS, "a");
    assert_eq!(bench.take().removed, ["a"]);
}

#[test]
fn what_stands_for_a_refused_content_does_not_end_the_refusal() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.shelf.put(CDS, "a", "1");
        follow(&mut bench, CDS, &[]);
        follow(&mut bench, EDS, &["a"]);
        bench.take();
        bench.take();
        bench.change(EDS, "a", "2");
        let bad = bench.one();
        bench.nack(&bad, "a: bad");
        bench.change(CDS, "a", "2");
        bench.take();
        // The cluster warms, and waits for its endpoints.
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
        assert_eq!(bench.session.lags(EDS, "a", NOW), Some(Lag::Rejected), "{dialect:?}");
        bench.change(EDS, "a", "2");
        bench.silent();
    }
}

#[test]
fn a_refused_content_that_was_taken_back_is_waited_for_no_more() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        follow(&mut bench, EDS, &["a"]);
        bench.take();
        bench.change(EDS, "a", "2");
        let bad = bench.one();
        bench.nack(&bad, "a: bad");
        bench.change(EDS, "a", "1");
        bench.silent();
        assert_eq!((bench.session.pending(EDS), bench.session.has_rejected(EDS)), (None, false), "{dialect:?}");
        bench.change(EDS, "a", "2");
        assert_eq!(bench.take().resources, contents(&[("a", "2")]), "{dialect:?}: who knows, now it may be good");
    }
}

#[test]
fn a_refused_cluster_is_shown_until_it_is_deleted() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.shelf.put(CDS, "good", "1");
        follow(&mut bench, CDS, &[]);
        bench.take();
        bench.change(CDS, "new", "1");
        let bad = bench.one();
        bench.nack(&bad, "new: bad");
        bench.silent();
        let refused = |bench: &Bench| {
            let holdings = bench.session.holdings().into_iter();
            holdings.filter(|holding| holding.rejected).map(|holding| holding.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(refused(&bench), ["new"], "{dialect:?}");
        bench.remove(CDS, "new");
        bench.silent();
        assert_eq!(refused(&bench), [""; 0], "{dialect:?}");
        assert_eq!((bench.session.pending(CDS), bench.session.has_rejected(CDS)), (None, false), "{dialect:?}");
    }
}

#[test]
fn a_refusal_ends_with_the_wildcard_that_it_belongs_to() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.shelf.put(CDS, "new", "1");
    bench.subscribe(CDS, &["*", "other"], &[]);
    let bad = bench.one();
    bench.nack(&bad, "new: bad");
    bench.take();
    bench.subscribe(CDS, &[], &["*"]);
    assert_eq!(bench.session.pending(CDS), None);
}
