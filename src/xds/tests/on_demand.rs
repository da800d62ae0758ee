//! What is asked for on demand: single clusters beside the wildcard, virtual hosts of a route configuration; and
//! extension configurations, which go only when nobody uses them.

use super::*;

fn bench(dialect: Dialect) -> (Bench, Seen) {
    let mut bench = Bench::new(dialect);
    // The second is not in the wildcard, as one that the client does not import.
    for name in ["a", "hidden"] {
        bench.shelf.put(CDS, name, "1");
    }
    bench.start(CDS, &["*"]);
    let all = bench.take();
    assert_eq!(all.resources, contents(&[("a", "1")]), "{dialect:?}");
    (bench, all)
}

#[test]
fn rule_66_a_cluster_on_demand_is_answered_at_once_and_followed() {
    for dialect in BOTH {
        let (mut bench, all) = bench(dialect);
        // Something else is on its way: it does not matter.
        bench.change(CDS, "a", "2");
        let second = bench.one();
        bench.want(CDS, &["*", "hidden"], &second);
        let seen = bench.take();
        assert_eq!(seen.resources.get("hidden").map(String::as_str), Some("1"), "{dialect:?}");
        bench.ack(&Seen { kind: Some(CDS), ..seen });
        bench.change(CDS, "hidden", "2");
        let seen = bench.take();
        assert_eq!(seen.resources.get("hidden").map(String::as_str), Some("2"), "{dialect:?}");
        // The wildcard goes on.
        bench.change(CDS, "c", "1");
        assert!(bench.take().resources.contains_key("c"), "{dialect:?}");
        drop(all);
    }
}

#[test]
fn rule_66_an_unknown_cluster_on_demand_is_answered_at_once() {
    for dialect in BOTH {
        let (mut bench, all) = bench(dialect);
        bench.want(CDS, &["*", "unknown"], &all);
        let seen = bench.take();
        match dialect {
            Dialect::Incremental => assert_eq!((seen.resources.len(), seen.removed), (0, strings(&["unknown"]))),
            // The full set without it says so.
            Dialect::StateOfTheWorld => assert_eq!(seen.resources, contents(&[("a", "1")])),
        }
        bench.change(CDS, "unknown", "1");
        assert!(bench.take().resources.contains_key("unknown"), "{dialect:?}");
    }
}

#[test]
fn rule_38_and_66_a_cluster_that_is_not_wanted_any_more_is_removed_if_the_wildcard_has_it_not() {
    for dialect in BOTH {
        let (mut bench, all) = bench(dialect);
        bench.want(CDS, &["*", "hidden", "a"], &all);
        let seen = bench.take();
        assert_eq!(seen.resources, contents(&[("a", "1"), ("hidden", "1")]), "{dialect:?}");
        bench.want(CDS, &["*"], &seen);
        let seen = bench.take();
        assert_eq!(seen.resources, contents(&[("a", "1")]), "{dialect:?}: still in the wildcard");
        assert_eq!(seen.removed, if dialect == Dialect::Incremental { vec!["hidden"] } else { vec![] });
        bench.change(CDS, "hidden", "2");
        bench.silent();
    }
}

#[test]
fn rule_65_an_unknown_host_is_a_resource_with_a_name_an_alias_and_no_body() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.shelf.put(VHDS, "routes/a", "1");
    bench.start(VHDS, &["routes/a", "routes/unknown"]);
    let seen = bench.take();
    assert_eq!((seen.resources, seen.removed), (contents(&[("routes/a", "1")]), vec![]));
    assert_eq!(seen.bare, [("routes/unknown".to_owned(), "routes/unknown".to_owned(), None)]);
    bench.change(VHDS, "routes/unknown", "1");
    assert_eq!(bench.take().resources, contents(&[("routes/unknown", "1")]));
}

#[test]
fn rule_65_a_host_that_is_gone_is_removed() {
    // Envoy leaves a resource without a body aside: the host would stay.
    let mut bench = Bench::new(Dialect::Incremental);
    bench.shelf.put(VHDS, "routes/a", "1");
    bench.start(VHDS, &["routes/a"]);
    bench.take();
    bench.remove(VHDS, "routes/a");
    let seen = bench.take();
    assert_eq!((seen.removed, seen.bare), (strings(&["routes/a"]), vec![]));
    // Asked for again it is a host like any other unknown one.
    bench.subscribe(VHDS, &["routes/a"], &[]);
    let seen = bench.take();
    assert_eq!((seen.removed.len(), seen.bare.len()), (0, 1));
}

#[test]
fn rule_65_hosts_are_sent_again_after_their_route_configuration() {
    let mut bench = Bench::new(Dialect::Incremental);
    for route in ["routes", "other", "routes2"] {
        bench.shelf.put(RDS, route, "1");
        bench.shelf.put(VHDS, &format!("{route}/a"), "1");
    }
    bench.start(RDS, &["routes", "other", "routes2"]);
    bench.start(VHDS, &["routes/a", "other/a", "routes2/a"]);
    bench.drain();
    bench.change(RDS, "routes", "2");
    assert_eq!(bench.take().resources, contents(&[("routes", "2")]));
    let hosts = bench.take();
    assert_eq!((hosts.kind, hosts.resources), (Some(VHDS), contents(&[("routes/a", "1")])));
    bench.silent();
}

#[test]
fn rule_58_a_deleted_extension_configuration_is_left_to_its_users() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.shelf.put(ECDS, "filter", "1");
        bench.start(ECDS, &["filter", "unknown"]);
        let seen = bench.take();
        assert_eq!(seen.resources, contents(&[("filter", "1")]));
        let reported = if dialect == Dialect::Incremental { vec!["unknown"] } else { vec![] };
        assert_eq!(seen.removed, reported, "{dialect:?}: rule 40 holds");
        bench.remove(ECDS, "filter");
        bench.silent();
        assert_eq!(bench.session.pending(ECDS), None, "{dialect:?}: nobody waits for it");
        bench.change(ECDS, "filter", "2");
        assert_eq!(bench.take().resources, contents(&[("filter", "2")]), "{dialect:?}");
    }
    // Nor is it removed from who comes back.
    let mut bench = Bench::new(Dialect::Incremental);
    bench.resume(ECDS, &["filter"], &[("filter", "0".repeat(32))]);
    bench.silent();
}
