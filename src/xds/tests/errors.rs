//! What does not exist is said in words to clients that understand them (xRFC TP3).

use super::*;

fn bench(dialect: Dialect) -> Bench {
    let mut bench = Bench::with_features(dialect, Features { resource_errors: true, ..Features::default() });
    for kind in [CDS, EDS, LDS] {
        bench.shelf.put(kind, "a", "1");
    }
    bench
}

#[test]
fn rule_32_and_61_a_missing_name_is_an_error_said_once_until_it_comes() {
    for dialect in BOTH {
        for kind in [CDS, EDS, LDS] {
            let mut bench = bench(dialect);
            bench.start(kind, &["a", "later"]);
            let seen = bench.take();
            assert_eq!((seen.resources, seen.errors), (contents(&[("a", "1")]), strings(&["later"])), "{dialect:?}");
            bench.silent();
            bench.change(kind, "a", "2");
            let seen = bench.take();
            assert_eq!((seen.resources, seen.errors), (contents(&[("a", "2")]), vec![]), "{dialect:?} {kind:?}: once");
            bench.change(kind, "later", "1");
            let seen = bench.take();
            assert_eq!(seen.resources.get("later").map(String::as_str), Some("1"), "{dialect:?} {kind:?}");
            assert_eq!(seen.errors, [""; 0]);
            bench.remove(kind, "later");
            assert_eq!(bench.take().errors, ["later"], "{dialect:?} {kind:?}");
            bench.silent();
        }
    }
}

#[test]
fn rule_32_and_61_a_client_that_does_not_know_errors_gets_none() {
    for dialect in BOTH {
        for kind in [CDS, EDS, LDS] {
            let mut bench = bench(dialect);
            bench.session = Session::new(dialect, None, Features::default());
            bench.start(kind, &["a", "later"]);
            let seen = bench.take();
            assert_eq!((seen.resources, seen.errors), (contents(&[("a", "1")]), vec![]), "{dialect:?} {kind:?}");
        }
    }
}

#[test]
fn rule_61_a_wildcard_has_no_errors() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.shelf.put(CDS, "b", "1");
        bench.start(CDS, &[]);
        assert_eq!(bench.take().errors, [""; 0]);
        bench.remove(CDS, "a");
        let seen = bench.take();
        assert_eq!((seen.resources.contains_key("a"), seen.errors), (false, vec![]), "{dialect:?}");
        // But a name beside it has.
        bench.want(CDS, &["*", "later"], &Seen { nonce: seen.nonce, version: seen.version, ..Seen::default() });
        assert_eq!(bench.take().errors, ["later"], "{dialect:?}");
    }
}

#[test]
fn rule_61_a_full_set_lists_all_that_is_good_beside_the_errors() {
    let mut bench = bench(Dialect::StateOfTheWorld);
    bench.shelf.put(LDS, "b", "1");
    bench.start(LDS, &["a", "b", "later"]);
    bench.take();
    bench.remove(LDS, "b");
    let seen = bench.take();
    assert_eq!((seen.resources, seen.errors), (contents(&[("a", "1")]), strings(&["b"])));
}

#[test]
fn rule_61_an_error_that_was_asked_for_again_is_said_again() {
    let mut bench = bench(Dialect::Incremental);
    bench.start(EDS, &["later"]);
    assert_eq!(bench.take().errors, ["later"]);
    bench.subscribe(EDS, &["later"], &[]);
    let seen = bench.take();
    assert_eq!((seen.errors, seen.removed), (strings(&["later"]), strings(&["later"])));
}
