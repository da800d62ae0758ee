//! Rules that hold in both dialects alike, each tried in both.

use super::*;

fn bench(dialect: Dialect) -> Bench {
    let mut bench = Bench::new(dialect);
    for name in ["a", "b"] {
        bench.shelf.put(CDS, name, "1");
        bench.shelf.put(EDS, name, "1");
    }
    bench
}

#[test]
fn rule_5_types_have_nonces_versions_subscriptions_and_refusals_of_their_own() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(CDS, &[]);
        let clusters = bench.one();
        bench.start(EDS, &["a"]);
        let endpoints = bench.take();
        // The later response of another type has made the earlier one of this type no older.
        bench.nack(&clusters, "all bad");
        assert_ne!(clusters.version, endpoints.version);
        bench.change(EDS, "a", "2");
        assert_eq!(bench.take().resources, contents(&[("a", "2")]), "{dialect:?}");
        bench.change(EDS, "b", "2");
        bench.silent();
        assert!(bench.session.has_rejected(CDS) && !bench.session.has_rejected(EDS), "{dialect:?}");
    }
}

#[test]
fn rule_6_no_nonce_comes_twice() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(CDS, &[]);
        bench.start(EDS, &["a", "b"]);
        let mut nonces = BTreeSet::new();
        for round in 0..5 {
            for seen in bench.drain() {
                assert!(!seen.nonce.is_empty());
                assert!(nonces.insert(seen.nonce), "{dialect:?}");
            }
            bench.change(EDS, "a", &round.to_string());
            bench.change(CDS, "b", &round.to_string());
        }
    }
}

#[test]
fn rule_7_a_response_is_of_the_type_of_its_resources() {
    // `read` sees to it for each response of each test; here for each type.
    for dialect in BOTH {
        for kind in ResourceType::ALL {
            let mut bench = Bench::new(dialect);
            bench.shelf.put(kind, "a", "1");
            bench.start(kind, &["a"]);
            let seen = bench.take();
            assert_eq!((seen.kind, seen.resources), (Some(kind), contents(&[("a", "1")])), "{dialect:?}");
        }
    }
}

#[test]
fn rule_8_only_the_newest_request_is_answered() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(EDS, &["a"]);
        bench.want(EDS, &["b"], &Seen::default());
        assert_eq!(bench.take().resources, contents(&[("b", "1")]), "{dialect:?}");
        bench.silent();
    }
}

#[test]
fn rule_9_equal_content_is_sent_once() {
    for dialect in BOTH {
        for kind in [CDS, EDS] {
            let mut bench = bench(dialect);
            bench.start(kind, &["a", "b"]);
            bench.take();
            for _ in 0..3 {
                bench.change(kind, "a", "1");
                bench.silent();
            }
            // There and back before it could be sent.
            bench.change(kind, "a", "2");
            bench.change(kind, "a", "1");
            bench.silent();
        }
    }
}

#[test]
fn rule_10_a_name_asked_for_in_several_ways_stands_once() {
    // `read` sees to it for each response of each test.
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(CDS, &["*", "a", "a", "missing", "missing"]);
        let seen = bench.take();
        assert_eq!(seen.resources, contents(&[("a", "1"), ("b", "1")]), "{dialect:?}");
        bench.start(EDS, &["a", "a"]);
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
    }
}

#[test]
fn rule_13_a_refusal_is_an_error_and_nothing_else() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(EDS, &["a"]);
        let first = bench.take();
        bench.change(EDS, "a", "2");
        let second = bench.one();
        // The version of before, and no error: accepted all the same.
        bench.ack(&Seen { version: first.version, ..second });
        assert_eq!(bench.session.pending(EDS), None, "{dialect:?}");
        assert!(!bench.session.has_rejected(EDS));
        bench.change(EDS, "a", "3");
        let third = bench.one();
        // An error without a word, and with the new version: refused all the same.
        bench.nack(&third, "");
        assert!(bench.session.has_rejected(EDS), "{dialect:?}");
        bench.silent();
    }
}

#[test]
fn rule_13_the_example_of_a_subscription_that_grows() {
    // A is sent; then the client asks for A and B, and there is no B: the version does not change, and nobody refuses.
    let mut bench = Bench::new(Dialect::StateOfTheWorld);
    bench.shelf.put(EDS, "A", "1");
    bench.start(EDS, &["A"]);
    let seen = bench.take();
    bench.ask(EDS, &["A", "B"], &seen, None);
    bench.silent();
    assert!(!bench.session.has_rejected(EDS));
}

#[test]
fn rule_14_nack_is_answered_when_content_or_subscription_changes_only() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(EDS, &["a"]);
        bench.take();
        bench.change(EDS, "a", "bad");
        let bad = bench.one();
        bench.nack(&bad, "a: no");
        bench.pass(Duration::from_secs(3600));
        bench.silent();
        bench.change(EDS, "a", "bad");
        bench.silent();
        // Another name is another matter.
        bench.want(EDS, &["a", "b"], &bad);
        assert_eq!(bench.take().resources, contents(&[("b", "1")]), "{dialect:?}");
        bench.change(EDS, "a", "good");
        assert_eq!(bench.take().resources, contents(&[("a", "good")]), "{dialect:?}");
    }
}

#[test]
fn rule_15_an_ack_or_a_nack_may_change_the_subscription() {
    for dialect in BOTH {
        for error in [None, Some("no")] {
            let mut bench = bench(dialect);
            bench.start(EDS, &["a"]);
            let seen = bench.one();
            match dialect {
                Dialect::StateOfTheWorld => bench.ask(EDS, &["b"], &seen, error),
                Dialect::Incremental => drop(bench.delta(DeltaDiscoveryRequest {
                    type_url: EDS.type_url().into(),
                    resource_names_subscribe: strings(&["b"]),
                    resource_names_unsubscribe: strings(&["a"]),
                    response_nonce: seen.nonce,
                    error_detail: error.map(status),
                    ..Default::default()
                })),
            }
            assert_eq!(bench.take().resources, contents(&[("b", "1")]), "{dialect:?} {error:?}");
            bench.change(EDS, "a", "2");
            bench.silent();
        }
    }
}

#[test]
fn rule_16_what_is_good_in_a_refused_response_is_sent_again() {
    for dialect in BOTH {
        for kind in [CDS, EDS] {
            let mut bench = bench(dialect);
            bench.start(kind, &["a", "b"]);
            bench.take();
            bench.change(kind, "a", "bad");
            bench.change(kind, "b", "good");
            let seen = bench.one();
            bench.nack(&seen, "a: bad");
            let again = bench.take();
            let is_set = dialect == Dialect::StateOfTheWorld && kind == CDS;
            let expected = if is_set { contents(&[("a", "1"), ("b", "good")]) } else { contents(&[("b", "good")]) };
            assert_eq!(again.resources, expected, "{dialect:?} {kind:?}");
            bench.silent();
        }
    }
}

#[test]
fn rule_17_endpoints_do_not_wait_for_the_ack_of_their_clusters() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(CDS, &[]);
        let clusters = bench.one();
        bench.start(EDS, &["a", "b"]);
        // Envoy accepts the clusters when they have warmed, which is by these.
        assert_eq!(bench.take().kind, Some(EDS), "{dialect:?}");
        bench.ack(&clusters);
        bench.silent();
    }
}

#[test]
fn rule_18_an_ack_gets_no_reply() {
    for dialect in BOTH {
        for kind in [CDS, EDS, LDS, RDS] {
            let mut bench = Bench::new(dialect);
            bench.shelf.put(kind, "a", "1");
            bench.start(kind, &["a"]);
            let seen = bench.one();
            bench.ack(&seen);
            bench.silent();
            // Nor one that is said twice.
            bench.ack(&seen);
            bench.silent();
        }
    }
}

#[test]
fn rule_26_a_name_that_is_dropped_needs_no_reply() {
    for dialect in BOTH {
        for kind in [EDS, RDS] {
            let mut bench = Bench::new(dialect);
            bench.shelf.put(kind, "a", "1");
            bench.shelf.put(kind, "b", "1");
            bench.start(kind, &["a", "b"]);
            let seen = bench.take();
            bench.want(kind, &["a"], &seen);
            bench.silent();
            bench.change(kind, "b", "2");
            bench.silent();
            bench.want(kind, &[], &seen);
            bench.change(kind, "a", "2");
            bench.silent();
        }
    }
}

#[test]
fn rule_33_what_is_due_is_looked_at_again_when_it_can_be_sent() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(EDS, &["a", "b"]);
        let first = bench.one();
        // Both are due; then the client drops one, and the other changes once more.
        bench.change(EDS, "a", "2");
        bench.change(EDS, "b", "2");
        bench.silent();
        bench.change(EDS, "a", "3");
        match dialect {
            Dialect::StateOfTheWorld => bench.ask(EDS, &["a"], &first, None),
            Dialect::Incremental => {
                bench.subscribe(EDS, &[], &["b"]);
                bench.ack(&first);
            }
        }
        assert_eq!(bench.take().resources, contents(&[("a", "3")]), "{dialect:?}");
        bench.silent();
    }
}

#[test]
fn rule_34_the_state_of_the_world_has_no_wrapped_resources() {
    // No client is known to ask for them: what a response holds is the resource itself.
    let features = Features { resource_ttl: true, resource_errors: true };
    let mut bench = Bench::with_features(Dialect::StateOfTheWorld, features);
    bench.shelf.put_with_ttl(CDS, "a", "1", Duration::from_secs(30));
    bench.start(CDS, &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
}

#[test]
fn rule_48_a_version_of_the_whole_is_for_people_only() {
    // Nobody says it back in the incremental dialect, and nothing hangs on it.
    let mut bench = bench(Dialect::Incremental);
    bench.start(EDS, &["a"]);
    let seen = bench.take();
    assert!(!seen.version.is_empty());
    assert_ne!(seen.version, bench.shelf.version(EDS, "a"));
}

#[test]
fn rule_52_all_clusters_that_warm_again_get_their_endpoints() {
    for dialect in BOTH {
        let mut bench = bench(dialect);
        bench.start(CDS, &[]);
        bench.start(EDS, &["a", "b"]);
        bench.drain();
        bench.change(CDS, "a", "2");
        bench.change(CDS, "b", "2");
        bench.take();
        // A change of one of them does not push the other out.
        bench.change(EDS, "a", "2");
        assert_eq!(bench.take().resources, contents(&[("a", "2"), ("b", "1")]), "{dialect:?}");
        bench.silent();
        // Nor does a response on its way.
        bench.change(EDS, "a", "3");
        let endpoints = bench.one();
        bench.change(CDS, "b", "3");
        bench.take();
        assert_eq!(bench.one().resources, contents(&[("b", "1")]), "{dialect:?}");
        bench.ack(&endpoints);
    }
}

#[test]
fn rule_56_a_subset_or_a_superset_of_what_there_is_is_answered() {
    for dialect in BOTH {
        for kind in [CDS, EDS, LDS] {
            let mut bench = Bench::new(dialect);
            for name in ["a", "b", "c"] {
                bench.shelf.put(kind, name, "1");
            }
            bench.start(kind, &["a"]);
            let seen = bench.take();
            assert_eq!(seen.resources, contents(&[("a", "1")]), "{dialect:?} {kind:?}");
            bench.want(kind, &["a", "b", "none"], &seen);
            assert!(bench.take().resources.contains_key("b"), "{dialect:?} {kind:?}");
        }
    }
}

#[test]
fn rule_57_who_is_not_answered_yet_is_not_forgotten() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.readiness = Readiness::Unknown;
        bench.start(EDS, &["a", "b"]);
        bench.silent();
        bench.change(EDS, "a", "1");
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
        bench.readiness = Readiness::Ready;
        bench.change(EDS, "b", "1");
        assert_eq!(bench.take().resources, contents(&[("b", "1")]), "{dialect:?}");
    }
}
