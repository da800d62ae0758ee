use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new(Dialect::StateOfTheWorld);
    for name in ["a", "b"] {
        bench.shelf.put(CDS, name, "1");
        bench.shelf.put(EDS, name, "1");
    }
    bench
}

fn none() -> Seen {
    Seen::default()
}

#[test]
fn rule_22_clusters_are_always_the_full_set() {
    let mut bench = bench();
    bench.ask(CDS, &[], &none(), None);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
    bench.silent();
    bench.change(CDS, "b", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "2")]));
    bench.remove(CDS, "a");
    assert_eq!(bench.take().resources, contents(&[("b", "2")]));
}

#[test]
fn rule_24_endpoints_are_answered_in_part() {
    let mut bench = bench();
    bench.ask(EDS, &["a", "b"], &none(), None);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
    bench.change(EDS, "b", "2");
    assert_eq!(bench.take().resources, contents(&[("b", "2")]));
    // Absence is not deletion: there is nothing to say.
    bench.remove(EDS, "b");
    bench.silent();
}

#[test]
fn rule_21_the_version_changes_with_any_resource() {
    let mut bench = bench();
    bench.ask(EDS, &["a", "b"], &none(), None);
    let first = bench.take();
    bench.change(EDS, "b", "2");
    let second = bench.take();
    assert_ne!(first.version, second.version);
    bench.change(EDS, "b", "1");
    assert_eq!(bench.take().version, first.version);
}

#[test]
fn rule_19_a_stale_request_is_not_answered() {
    let mut bench = bench();
    bench.ask(EDS, &["a"], &none(), None);
    let first = bench.take();
    bench.change(EDS, "a", "2");
    let second = bench.one();
    // Sent before the second response came.
    bench.ask(EDS, &["a", "b"], &first, None);
    bench.silent();
    bench.ask(EDS, &["a", "b"], &second, None);
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
}

#[test]
fn a_request_before_the_first_response_is_taken() {
    let mut bench = bench();
    bench.ask(EDS, &["a"], &none(), None);
    bench.ask(EDS, &["a", "b"], &none(), None);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
    bench.silent();
}

#[test]
fn rule_28_and_29_names_added_are_answered_and_again_after_they_were_dropped() {
    let mut bench = bench();
    bench.ask(EDS, &["a"], &none(), None);
    let seen = bench.take();
    bench.ask(EDS, &["a", "b"], &seen, None);
    let seen = bench.take();
    assert_eq!(seen.resources, contents(&[("b", "1")]));
    // Rule 26: dropping a name needs no reply.
    bench.ask(EDS, &["a"], &seen, None);
    bench.silent();
    bench.ask(EDS, &["a", "b"], &seen, None);
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
}

#[test]
fn rule_30_wildcard_and_a_name_then_the_name_alone() {
    let mut bench = bench();
    bench.ask(CDS, &["*", "a"], &none(), None);
    let seen = bench.take();
    assert_eq!(seen.resources.len(), 2);
    bench.ask(CDS, &["a"], &seen, None);
    bench.silent();
    bench.change(CDS, "b", "2");
    bench.silent();
    bench.change(CDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
}

#[test]
fn rule_32_a_missing_name_is_sent_when_it_comes() {
    let mut bench = bench();
    bench.ask(EDS, &["a", "later"], &none(), None);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
    bench.change(EDS, "later", "1");
    assert_eq!(bench.take().resources, contents(&[("later", "1")]));
}

#[test]
fn a_missing_listener_is_told_by_its_absence() {
    let mut bench = bench();
    bench.ask(LDS, &["web"], &none(), None);
    assert_eq!(bench.take().resources, contents(&[]));
    bench.change(LDS, "web", "1");
    assert_eq!(bench.take().resources, contents(&[("web", "1")]));
}

#[test]
fn rule_20_who_comes_back_unchanged_gets_nothing() {
    let mut bench = bench();
    bench.ask(CDS, &[], &none(), None);
    bench.ask(EDS, &["a", "b"], &none(), None);
    let (clusters, endpoints) = (bench.take(), bench.take());
    bench.reconnect();
    bench.ask(CDS, &[], &Seen { nonce: String::new(), ..clusters }, None);
    bench.silent();
    // Endpoints are sent again: their version may be of another subscription.
    bench.ask(EDS, &["a", "b"], &Seen { nonce: String::new(), ..endpoints }, None);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
    bench.change(EDS, "a", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "2")]));
    bench.change(CDS, "c", "1");
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1"), ("c", "1")]));
}

#[test]
fn rule_20_who_comes_back_with_other_names_gets_all() {
    let mut bench = bench();
    bench.ask(EDS, &["a"], &none(), None);
    let seen = bench.take();
    bench.reconnect();
    bench.ask(EDS, &["a", "b"], &Seen { nonce: String::new(), ..seen }, None);
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "1")]));
}

#[test]
fn rule_13_and_14_a_refused_cluster_is_represented_by_the_one_before() {
    let mut bench = bench();
    bench.ask(CDS, &[], &none(), None);
    bench.take();
    bench.change(CDS, "a", "bad");
    let seen = bench.one();
    bench.nack(&seen, "a: bad");
    bench.silent();
    bench.change(CDS, "b", "2");
    assert_eq!(bench.take().resources, contents(&[("a", "1"), ("b", "2")]));
    bench.change(CDS, "a", "3");
    assert_eq!(bench.take().resources, contents(&[("a", "3"), ("b", "2")]));
}

#[test]
fn rule_14_a_refused_new_cluster_is_left_out() {
    let mut bench = bench();
    bench.ask(CDS, &[], &none(), None);
    let seen = bench.one();
    bench.nack(&seen, "a: bad");
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
    bench.silent();
}

#[test]
fn rule_3_a_type_is_implied_on_a_service_of_one() {
    let mut bench = bench();
    bench.session = Session::new(Dialect::StateOfTheWorld, Some(EDS), Features::default());
    let request = DiscoveryRequest { resource_names: strings(&["a"]), ..Default::default() };
    bench.sotw(request).expect("accepted");
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
}

#[test]
fn rule_4_an_unknown_type_breaks_nothing() {
    let mut bench = bench();
    bench.sotw(DiscoveryRequest { type_url: "some.Type".into(), ..Default::default() }).expect("ignored");
    bench.ask(EDS, &["a"], &none(), None);
    assert_eq!(bench.take().resources, contents(&[("a", "1")]));
    let refused = bench.sotw(DiscoveryRequest::default()).expect_err("refused");
    assert_eq!(refused, Refusal::NoType);
}

#[test]
fn rule_31_endpoints_without_names_are_nothing() {
    let mut bench = bench();
    bench.ask(EDS, &[], &none(), None);
    bench.silent();
    bench.change(EDS, "a", "2");
    bench.silent();
}
