use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new(Dialect::Incremental);
    for name in ["a", "b"] {
        bench.shelf.put(CDS, name, "1");
        bench.shelf.put(EDS, name, "1");
    }
    bench
}

#[test]
fn rule_18_a_pure_ack_gets_no_reply() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
    bench.silent();
}

#[test]
fn rule_6_nonces_are_unique_in_the_stream() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    bench.subscribe(EDS, &["a"], &[]);
    let (first, second) = (bench.take(), bench.take());
    assert!(!first.nonce.is_empty());
    assert_ne!(first.nonce, second.nonce);
}

#[test]
fn rule_9_equal_content_is_not_sent_again() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.take();
    bench.change(EDS, "a", "1");
    bench.silent();
    bench.change(EDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn changes_are_merged_while_a_response_has_no_ack() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a", "b"], &[]);
    let first = bench.one();
    bench.change(EDS, "a", "2");
    bench.change(EDS, "a", "3");
    bench.change(EDS, "b", "2");
    bench.silent();
    bench.ack(&first);
    assert_eq!(bench.take().resources, contents(&[("a", "3"), ("b", "2")]));
}

#[test]
fn a_missing_ack_delays_the_newest_state_for_a_second_only() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.one();
    bench.change(EDS, "a", "2");
    bench.silent();
    assert_eq!(bench.session.deadline(bench.now), Some(bench.now.at + Duration::from_secs(1)));
    bench.pass(Duration::from_secs(1));
    let response = bench.session.poll(bench.now, &bench.shelf, bench.readiness).expect("a response");
    assert!(response.overdue);
}

#[test]
fn rule_28_and_39_a_name_asked_for_is_answered_even_if_current() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    bench.take();
    bench.subscribe(CDS, &["a"], &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
}

#[test]
fn a_newly_asked_name_does_not_wait_for_an_ack() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.one();
    bench.change(EDS, "a", "2");
    bench.subscribe(EDS, &["b"], &[]);
    assert_eq!(bench.one().resources, contents(&[("b", "1")]));
    bench.silent();
}

#[test]
fn rule_29_unsubscribed_and_subscribed_again_is_sent_again() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.take();
    bench.subscribe(EDS, &[], &["a"]);
    bench.silent();
    bench.change(EDS, "a", "2");
    bench.silent();
    bench.subscribe(EDS, &["a"], &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn rule_35_first_answering_and_spontaneous_requests_may_each_change_the_subscription() {
    let mut bench = bench();
    bench.shelf.put(EDS, "c", "1");
    // The first of its type, with versions and without a nonce.
    let version = bench.shelf.version(EDS, "a");
    bench.resume(EDS, &["a", "b"], &[("a", version)]);
    let first = bench.one();
    assert_eq!(first.resources, contents(&[("b", "1")]));
    // A spontaneous one, while that has no answer: it answers nothing.
    bench.subscribe(EDS, &["c"], &["a"]);
    let second = bench.one();
    assert_eq!(second.resources, contents(&[("c", "1")]));
    assert!(bench.session.is_waiting());
    // An ACK and a NACK, each with a change of its own.
    for (of, error) in [(first, None), (second, Some("c: bad"))] {
        let changes = if error.is_some() { ("a", "b") } else { ("b", "c") };
        bench.delta(DeltaDiscoveryRequest {
            type_url: EDS.type_url().into(),
            resource_names_subscribe: strings(&[changes.0]),
            resource_names_unsubscribe: strings(&[changes.1]),
            response_nonce: of.nonce,
            error_detail: error.map(status),
            ..Default::default()
        });
        let seen = bench.take();
        assert_eq!(seen.resources, contents(&[(changes.0, "1")]), "{error:?}");
    }
    let (_, names, _) = bench.session.subscriptions().next().expect("endpoints");
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn rule_36_a_stale_nonce_does_not_lose_a_subscription() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.take();
    bench.delta(DeltaDiscoveryRequest {
        type_url: EDS.type_url().into(),
        resource_names_subscribe: strings(&["b"]),
        response_nonce: "of another stream".into(),
        ..Default::default()
    });
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
}

#[test]
fn rule_37_unsubscribing_the_unknown_is_ignored() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &["b", "c"]);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
    bench.silent();
}

#[test]
fn rule_38_a_name_dropped_from_wildcard_and_names_is_answered() {
    let mut bench = bench();
    bench.subscribe(CDS, &["*", "a", "missing"], &[]);
    let seen = bench.take();
    assert_eq!((seen.resources, seen.removed), (contents(&[("a", "1"), ("b", "1")]), strings(&["missing"])));
    bench.subscribe(CDS, &[], &["a", "missing"]);
    let seen = bench.take();
    assert_eq!((seen.resources, seen.removed), (contents(&[("a", "1")]), strings(&["missing"])));
}

#[test]
fn rule_40_the_unknown_is_said_to_be_so_and_sent_when_it_comes() {
    let mut bench = bench();
    bench.subscribe(EDS, &["later"], &[]);
    assert_eq!(bench.take().removed, ["later"]);
    bench.change(EDS, "later", "1");
    assert_eq!(bench.take().resources, contents(&[("later", "1")]));
}

#[test]
fn rule_42_the_first_wildcard_is_answered_even_if_empty() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.subscribe(CDS, &[], &[]);
    let seen = bench.take();
    assert_eq!((seen.kind, seen.resources, seen.removed), (Some(CDS), contents(&[]), vec![]));
    bench.silent();
}

#[test]
fn rule_43_and_45_who_is_up_to_date_gets_no_bytes() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    bench.take();
    let versions: Vec<_> = ["a", "b"].map(|name| (name, bench.shelf.version(CDS, name))).into();
    let endpoints: Vec<_> = ["a", "b"].map(|name| (name, bench.shelf.version(EDS, name))).into();
    bench.reconnect();
    bench.resume(CDS, &[], &versions);
    bench.resume(EDS, &["a", "b"], &endpoints);
    let seen = bench.take();
    assert_eq!((seen.kind, seen.resources, seen.removed), (Some(CDS), contents(&[]), vec![]));
    bench.silent();
    bench.change(EDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn rule_43_who_comes_back_gets_what_changed_and_what_went() {
    let mut bench = bench();
    let gone = bench.shelf.version(CDS, "a");
    let changed = bench.shelf.version(CDS, "b");
    bench.shelf.remove(CDS, "a");
    bench.shelf.put(CDS, "b", "2");
    bench.session = Session::new(Dialect::Incremental, Some(CDS), Features::default());
    bench.resume(CDS, &[], &[("a", gone), ("b", changed)]);
    let seen = bench.take();
    assert_eq!((seen.resources, seen.removed), (contents(&[("b", "2")]), strings(&["a"])));
}

#[test]
fn rule_44_what_is_held_but_not_named_is_followed_all_the_same() {
    let mut bench = bench();
    let version = bench.shelf.version(EDS, "a");
    bench.resume(EDS, &["b"], &[("a", version)]);
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
    bench.change(EDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn rule_46_what_left_the_wildcard_is_removed() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    bench.take();
    bench.remove(CDS, "a");
    assert_eq!(bench.take().removed, ["a"]);
    bench.silent();
}

#[test]
fn rule_4_an_unknown_type_is_answered_and_breaks_nothing() {
    let mut bench = bench();
    bench.delta(DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/some.Type".into(),
        resource_names_subscribe: strings(&["x"]),
        ..Default::default()
    });
    assert_eq!(bench.one().removed, ["x"]);
    bench.subscribe(EDS, &["a"], &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
}

#[test]
fn rule_14_nack_is_not_answered_with_the_same_bytes() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    bench.take();
    bench.change(EDS, "a", "bad");
    let bad = bench.one();
    bench.nack(&bad, "no");
    bench.silent();
    bench.change(EDS, "a", "bad");
    bench.silent();
    bench.change(EDS, "a", "good");
    assert_eq!(bench.take().resources, contents(&[("a", "good")]));
}

#[test]
fn rule_15_a_nack_may_change_the_subscription() {
    let mut bench = bench();
    bench.subscribe(EDS, &["a"], &[]);
    let seen = bench.one();
    bench.delta(DeltaDiscoveryRequest {
        type_url: EDS.type_url().into(),
        resource_names_subscribe: strings(&["b"]),
        response_nonce: seen.nonce,
        error_detail: Some(status("no")),
        ..Default::default()
    });
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
}

#[test]
fn rule_16_the_good_resources_of_a_refused_response_are_not_lost() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    let seen = bench.one();
    bench.nack(&seen, "Error adding/updating cluster(s) a: it is bad");
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
    bench.silent();
    let (_, status) = bench.session.status().next().expect("a type");
    let nack = status.last_nack.expect("a NACK");
    assert_eq!((nack.resources, status.nacks), (vec!["a".into()], 1));
    assert!(nack.message.contains("it is bad"));
    assert!(!status.rejected, "the rest was accepted after that");
}

#[test]
fn a_message_that_names_nothing_suspects_everything_and_ends_the_loop() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    let seen = bench.one();
    bench.nack(&seen, "bad");
    bench.silent();
    bench.change(CDS, "b", "2");
    assert_eq!(bench.take().resources, contents(&[("b", "2")]));
}

#[test]
fn a_name_inside_another_is_not_suspected() {
    let mut bench = Bench::new(Dialect::Incremental);
    for name in ["web", "web:admin", "webshop"] {
        bench.shelf.put(CDS, name, "1");
    }
    bench.subscribe(CDS, &[], &[]);
    let seen = bench.one();
    bench.nack(&seen, "cluster web:admin: bad");
    assert_eq!(bench.take().resources, contents(&[("web", "1"), ("webshop", "1")]));
}

#[test]
fn rule_5_types_are_apart() {
    let mut bench = bench();
    bench.subscribe(CDS, &[], &[]);
    let clusters = bench.one();
    bench.nack(&clusters, "all bad");
    bench.subscribe(EDS, &["a"], &[]);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
    bench.change(EDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn rule_3_a_request_without_a_type_is_refused_on_ads_only() {
    let mut bench = bench();
    let refused = bench.session.receive_incremental(DeltaDiscoveryRequest::default(), bench.now, &bench.shelf);
    assert_eq!(refused.expect_err("refused"), Refusal::NoType);
    bench.session = Session::new(Dialect::Incremental, Some(EDS), Features::default());
    let request = DeltaDiscoveryRequest { resource_names_subscribe: strings(&["a"]), ..Default::default() };
    bench.delta(request);
    assert_eq!(bench.one().resources, contents(&[("a", "1")]));
    let other = DeltaDiscoveryRequest { type_url: CDS.type_url().into(), ..Default::default() };
    let refused = bench.session.receive_incremental(other, bench.now, &bench.shelf).expect_err("refused");
    assert!(matches!(refused, Refusal::OtherType { .. }));
}

#[test]
fn too_many_names_are_refused() {
    let mut bench = bench();
    let names = (0..=super::super::protocol::MAX_NAMES).map(|number| number.to_string()).collect();
    let request = DeltaDiscoveryRequest {
        type_url: EDS.type_url().into(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    assert_eq!(
        bench.session.receive_incremental(request, bench.now, &bench.shelf).expect_err("refused"),
        Refusal::TooMuch
    );
}

#[test]
fn clusters_that_come_and_go_leave_nothing_behind() {
    for only in [None, Some(CDS)] {
        let mut bench = bench();
        bench.session = Session::new(Dialect::Incremental, only, Features::default());
        bench.subscribe(CDS, &[], &[]);
        bench.take();
        for number in 0..100 {
            let name = format!("new-{number}");
            bench.change(CDS, &name, "1");
            bench.take();
            bench.remove(CDS, &name);
            bench.take();
        }
        assert!(bench.session.own_names() < 50, "{only:?}: {}", bench.session.own_names());
    }
}
