//! Make before break, in both dialects.

use super::*;
use crate::xds::protocol::STEP_PATIENCE;

/// A proxy that follows everything: all clusters, its listener, one route.
fn proxy(dialect: Dialect) -> Bench {
    let mut bench = Bench::new(dialect);
    for name in ["a", "b"] {
        bench.shelf.put(CDS, name, "1");
        bench.shelf.put(EDS, name, "1");
    }
    bench.shelf.put(LDS, "all", "1");
    bench.shelf.put_leading_to(RDS, "route", "1", &["a", "b"]);
    for (kind, names) in [(CDS, &[][..]), (EDS, &["a", "b"]), (LDS, &[]), (RDS, &["route"])] {
        bench.start(kind, names);
    }
    bench
}

fn settled(dialect: Dialect) -> Bench {
    let mut bench = proxy(dialect);
    while let Some(seen) = bench.poll() {
        bench.ack(&seen);
    }
    bench
}

fn kinds(bench: &mut Bench) -> Vec<ResourceType> {
    std::iter::from_fn(|| bench.poll()).filter_map(|seen| seen.kind).collect()
}

#[test]
fn rule_49_and_50_clusters_endpoints_listeners_then_routes_after_the_ack() {
    for dialect in BOTH {
        let mut bench = proxy(dialect);
        let clusters = bench.one();
        assert_eq!(clusters.kind, Some(CDS));
        // Endpoints wait for no ACK, since that of the clusters may wait for them; routes do.
        assert_eq!(kinds(&mut bench), [EDS, LDS], "{dialect:?}");
        bench.ack(&clusters);
        assert_eq!(kinds(&mut bench), [RDS], "{dialect:?}");
    }
}

#[test]
fn a_step_without_an_ack_goes_on_after_a_while() {
    for dialect in BOTH {
        let mut bench = proxy(dialect);
        kinds(&mut bench);
        assert_eq!(bench.session.deadline(bench.now), Some(bench.now.at + STEP_PATIENCE), "{dialect:?}");
        bench.pass(STEP_PATIENCE);
        let response = bench.session.poll(bench.now, &bench.shelf, bench.readiness).expect("a response");
        assert_eq!((response.kind, response.overdue), (Some(RDS), true), "{dialect:?}");
        // There is nothing to wake up for: a deadline that has passed would be one for ever.
        assert_eq!(bench.session.deadline(bench.now), None, "{dialect:?}");
    }
}

#[test]
fn a_route_waits_for_its_new_cluster() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.shelf.put_leading_to(RDS, "route", "2", &["a", "b", "c"]);
        bench.session.mark_dirty(RDS, "route".into(), Revision(1));
        bench.change(CDS, "c", "1");
        let clusters = bench.one();
        assert_eq!(clusters.kind, Some(CDS), "{dialect:?}");
        bench.silent();
        bench.ack(&clusters);
        assert_eq!(bench.take().resources, contents(&[("route", "2")]), "{dialect:?}");
    }
}

#[test]
fn rule_49_a_cluster_goes_after_the_routes_that_lead_to_it() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.remove(CDS, "b");
        bench.silent();
        bench.shelf.put_leading_to(RDS, "route", "2", &["a"]);
        bench.session.mark_dirty(RDS, "route".into(), Revision(1));
        let routes = bench.one();
        assert_eq!(routes.kind, Some(RDS), "{dialect:?}");
        bench.silent();
        bench.ack(&routes);
        let clusters = bench.take();
        assert_eq!(clusters.kind, Some(CDS), "{dialect:?}");
        match dialect {
            Dialect::Incremental => assert_eq!(clusters.removed, ["b"]),
            Dialect::StateOfTheWorld => assert_eq!(clusters.resources, contents(&[("a", "1")])),
        }
    }
}

#[test]
fn another_cluster_changes_while_a_removal_waits() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.remove(CDS, "b");
        bench.change(CDS, "a", "2");
        let clusters = bench.take();
        // What may not go yet stays in a full set.
        let expected = match dialect {
            Dialect::Incremental => contents(&[("a", "2")]),
            Dialect::StateOfTheWorld => contents(&[("a", "2"), ("b", "1")]),
        };
        assert_eq!((clusters.resources, clusters.removed), (expected, vec![]), "{dialect:?}");
    }
}

#[test]
fn rule_51_a_changed_cluster_is_followed_by_its_endpoints_and_only_those() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.change(CDS, "a", "2");
        assert_eq!(bench.take().kind, Some(CDS), "{dialect:?}");
        let endpoints = bench.take();
        assert_eq!((endpoints.kind, endpoints.resources), (Some(EDS), contents(&[("a", "1")])), "{dialect:?}");
        bench.silent();
    }
}

#[test]
fn rule_54_endpoints_asked_for_before_clusters_are_answered_again_after_them() {
    for dialect in BOTH {
        let mut bench = proxy(dialect);
        bench.reconnect();
        bench.start(EDS, &["a"]);
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
        bench.start(CDS, &[]);
        assert_eq!(bench.take().kind, Some(CDS));
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
    }
}

#[test]
fn rule_51_a_returning_client_gets_the_endpoints_of_a_cluster_that_changed_meanwhile() {
    let mut bench = settled(Dialect::Incremental);
    let clusters = ["a", "b"].map(|name| (name, bench.shelf.version(CDS, name)));
    let endpoints = ["a", "b"].map(|name| (name, bench.shelf.version(EDS, name)));
    bench.shelf.put(CDS, "a", "2");
    bench.reconnect();
    bench.resume(CDS, &[], &clusters);
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
    bench.resume(EDS, &["a", "b"], &endpoints);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
    bench.silent();
}

#[test]
fn a_cluster_that_went_meanwhile_stays_until_the_returning_client_has_the_routes_without_it() {
    let mut bench = settled(Dialect::Incremental);
    let clusters = ["a", "b"].map(|name| (name, bench.shelf.version(CDS, name)));
    let routes = [("route", bench.shelf.version(RDS, "route"))];
    bench.shelf.remove(CDS, "b");
    bench.shelf.put_leading_to(RDS, "route", "2", &["a"]);
    bench.reconnect();
    bench.resume(CDS, &[], &clusters);
    bench.silent();
    bench.resume(RDS, &["route"], &routes);
    let seen = bench.one();
    assert_eq!((seen.kind, seen.resources.len()), (Some(RDS), 1));
    bench.silent();
    bench.ack(&seen);
    assert_eq!(bench.take().removed, ["b"]);
}

#[test]
fn a_client_that_names_its_clusters_is_not_kept_waiting() {
    // A proxyless client asks for the listener first, and for the cluster when that has come.
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.shelf.put_leading_to(LDS, "web", "1", &["a"]);
        bench.shelf.put(CDS, "a", "1");
        bench.start(LDS, &["web"]);
        assert_eq!(bench.take().resources, contents(&[("web", "1")]), "{dialect:?}");
        bench.start(CDS, &["a"]);
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
    }
}

#[test]
fn rule_50_a_cluster_that_comes_back_while_its_removal_is_on_its_way_is_waited_for_again() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.shelf.put_leading_to(RDS, "route", "2", &["a"]);
        bench.session.mark_dirty(RDS, "route".into(), Revision(1));
        bench.take();
        bench.remove(CDS, "b");
        let removal = bench.one();
        // It is back before the client has answered, and patience with that answer has ended.
        bench.change(CDS, "b", "1");
        bench.shelf.put_leading_to(RDS, "route", "3", &["a", "b"]);
        bench.session.mark_dirty(RDS, "route".into(), Revision(2));
        bench.silent();
        bench.pass(Duration::from_secs(1));
        let back = bench.one();
        assert_eq!((back.kind, back.resources.contains_key("b")), (Some(CDS), true), "{dialect:?}");
        let endpoints = bench.take();
        assert_eq!((endpoints.kind, endpoints.resources), (Some(EDS), contents(&[("b", "1")])), "{dialect:?}");
        bench.silent();
        bench.ack(&removal);
        bench.silent();
        bench.ack(&back);
        assert_eq!(bench.take().resources, contents(&[("route", "3")]), "{dialect:?}");
    }
}

#[test]
fn rule_50_a_removal_that_is_refused_leaves_the_cluster() {
    let mut bench = settled(Dialect::Incremental);
    bench.shelf.put_leading_to(RDS, "route", "2", &["a"]);
    bench.session.mark_dirty(RDS, "route".into(), Revision(1));
    bench.take();
    bench.remove(CDS, "b");
    let removal = bench.one();
    bench.nack(&removal, "b: no");
    let holdings = bench.session.holdings();
    assert!(holdings.iter().any(|holding| holding.kind == CDS && *holding.name == *"b" && holding.acked.is_some()));
}

#[test]
fn patience_with_a_route_that_was_dropped_is_not_that_with_the_next() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.shelf.put_leading_to(RDS, "first", "1", &["missing"]);
        bench.shelf.put_leading_to(RDS, "second", "1", &["new"]);
        let routes = |bench: &mut Bench, added: &[&str], removed: &[&str], all: &[&str]| match dialect {
            Dialect::Incremental => bench.subscribe(RDS, added, removed),
            Dialect::StateOfTheWorld => bench.ask(RDS, all, &Seen::default(), None),
        };
        routes(&mut bench, &["first"], &[], &["route", "first"]);
        bench.silent();
        routes(&mut bench, &[], &["first"], &["route"]);
        bench.silent();
        bench.pass(STEP_PATIENCE * 2);
        routes(&mut bench, &["second"], &[], &["route", "second"]);
        bench.silent();
        bench.change(CDS, "new", "1");
        assert_eq!(bench.take().kind, Some(CDS), "{dialect:?}");
        assert_eq!(bench.take().resources, contents(&[("second", "1")]), "{dialect:?}");
    }
}

#[test]
fn endpoints_of_a_deleted_service_are_held_until_its_cluster_has_gone() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        bench.remove(EDS, "b");
        bench.remove(CDS, "b");
        bench.silent();
        // It may still send requests there.
        assert!(bench.session.lags(EDS, "b", Revision(1)).is_some(), "{dialect:?}");
        bench.shelf.put_leading_to(RDS, "route", "2", &["a"]);
        bench.session.mark_dirty(RDS, "route".into(), Revision(1));
        assert_eq!(bench.take().kind, Some(RDS), "{dialect:?}");
        assert_eq!(bench.take().kind, Some(CDS), "{dialect:?}");
        while let Some(seen) = bench.poll() {
            bench.ack(&seen);
        }
        assert_eq!(bench.session.lags(EDS, "b", Revision(1)), None, "{dialect:?}");
    }
}

#[test]
fn a_written_route_does_not_wait_for_clusters_that_are_the_clients_own() {
    for dialect in BOTH {
        let mut bench = settled(dialect);
        let built = Built {
            bytes: b"route=mine".to_vec(),
            clusters: vec!["a".into(), "of the bootstrap".into()],
            raw: true,
            ..Built::default()
        };
        bench.shelf.0.insert((RDS, "route".into()), Arc::new(Resource::new(RDS, "route".into(), built)));
        bench.session.mark_dirty(RDS, "route".into(), Revision(1));
        assert_eq!(bench.take().resources, contents(&[("route", "mine")]), "{dialect:?}");
    }
}
