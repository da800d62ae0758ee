//! Resources that a client may keep for a time only.

use super::*;

const TTL: Duration = Duration::from_secs(30);

fn bench(dialect: Dialect, resource_ttl: bool) -> Bench {
    let mut bench = Bench::with_features(dialect, Features { resource_ttl, ..Features::default() });
    bench.shelf.put_with_ttl(CDS, "a", "1", TTL);
    bench.shelf.put(CDS, "b", "1");
    bench
}

#[test]
fn rule_59_a_heartbeat_without_a_body_comes_after_half_the_ttl() {
    let mut bench = bench(Dialect::Incremental, true);
    bench.start(CDS, &[]);
    let first = bench.take();
    assert_eq!(first.ttls, [("a".to_owned(), 30)].into());
    for _ in 0..3 {
        bench.silent();
        assert_eq!(bench.session.deadline(bench.now), Some(bench.now.at + TTL / 2));
        bench.pass(TTL / 2);
        let heartbeat = bench.one();
        assert_eq!(heartbeat.bare, [("a".to_owned(), String::new(), Some(30))]);
        assert_eq!((heartbeat.resources, heartbeat.removed), (contents(&[]), vec![]), "and of nothing else");
        assert!(!bench.session.is_waiting(), "it changes nothing, and is not waited for");
        bench.answer(&Seen { kind: Some(CDS), nonce: heartbeat.nonce, ..Seen::default() }, None);
    }
}

#[test]
fn rule_59_a_resend_without_a_ttl_clears_it() {
    let mut bench = bench(Dialect::Incremental, true);
    bench.start(CDS, &[]);
    bench.take();
    bench.change(CDS, "a", "1");
    let seen = bench.take();
    assert_eq!((seen.resources, seen.ttls), (contents(&[("a", "1")]), BTreeMap::new()), "the content is the same");
    bench.pass(TTL);
    bench.silent();
    assert_eq!(bench.session.deadline(bench.now), None);
}

#[test]
fn rule_59_a_ttl_and_its_heartbeats_are_for_those_who_know_them() {
    for (dialect, resource_ttl) in
        [(Dialect::Incremental, false), (Dialect::StateOfTheWorld, false), (Dialect::StateOfTheWorld, true)]
    {
        let mut bench = bench(dialect, resource_ttl);
        bench.start(CDS, &[]);
        let seen = bench.take();
        assert_eq!((seen.resources.len(), seen.ttls), (2, BTreeMap::new()), "{dialect:?}");
        bench.pass(TTL);
        bench.silent();
        assert_eq!(bench.session.deadline(bench.now), None, "{dialect:?}");
    }
}

#[test]
fn rule_59_who_comes_back_up_to_date_gets_heartbeats_too() {
    for changed in [None, Some("b")] {
        let mut bench = bench(Dialect::Incremental, true);
        let versions = ["a", "b"].map(|name| (name, bench.shelf.version(CDS, name)));
        changed.iter().for_each(|name| bench.shelf.put(CDS, name, "2"));
        bench.resume(CDS, &[], &versions);
        bench.take();
        // Since when the client has not heard of it is not known: so it hears at once.
        assert_eq!(bench.one().bare, [("a".to_owned(), String::new(), Some(30))], "{changed:?}");
        bench.silent();
        bench.pass(TTL / 2);
        assert_eq!(bench.one().bare.len(), 1, "{changed:?}");
    }
}

#[test]
fn rule_59_a_refused_change_keeps_the_one_before_alive() {
    let mut bench = bench(Dialect::Incremental, true);
    bench.start(CDS, &[]);
    bench.take();
    bench.shelf.put_with_ttl(CDS, "a", "bad", TTL);
    bench.session.mark_dirty(CDS, "a".into(), Revision(2));
    let bad = bench.one();
    bench.nack(&bad, "a: bad");
    bench.pass(TTL / 2);
    assert_eq!(bench.one().bare.len(), 1);
}
