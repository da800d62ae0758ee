//! A client that comes back says what it has, and is sent what differs.

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn bench() -> Bench {
    let mut bench = Bench::new(Dialect::Incremental);
    for name in NAMES {
        bench.shelf.put(CDS, name, "1");
        bench.shelf.put(EDS, name, "1");
    }
    bench
}

fn versions(bench: &Bench, kind: ResourceType) -> Vec<(&'static str, String)> {
    NAMES.into_iter().map(|name| (name, bench.shelf.version(kind, name))).collect()
}

/// With its names or its wildcard, and on ADS or on a service of one type.
fn came_back(kind: ResourceType, change: impl FnOnce(&mut Bench, &mut Vec<(&'static str, String)>)) -> Bench {
    let mut bench = bench();
    let mut versions = versions(&bench, kind);
    change(&mut bench, &mut versions);
    bench.session = Session::new(Dialect::Incremental, Some(kind), Features::default());
    bench.resume(kind, if kind == CDS { &[] } else { &NAMES }, &versions);
    bench
}

fn said(bench: &mut Bench) -> (BTreeMap<String, String>, Vec<String>) {
    let seen = bench.drain();
    let resources = seen.iter().flat_map(|seen| seen.resources.clone()).collect();
    (resources, seen.into_iter().flat_map(|seen| seen.removed).collect())
}

#[test]
fn rule_43_what_is_equal_is_skipped_what_differs_is_sent_and_what_vanished_is_removed() {
    type Change = fn(&mut Bench, &mut Vec<(&'static str, String)>, ResourceType);
    /// What happens, how, and what is sent and removed then.
    type Case = (&'static str, Change, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 7] = [
        ("nothing", |_, _, _| {}, &[], &[]),
        ("one differs", |bench, _, kind| bench.shelf.put(kind, "b", "2"), &[("b", "2")], &[]),
        ("one vanished", |bench, _, kind| bench.shelf.remove(kind, "b"), &[], &["b"]),
        ("one is not held", |_, versions, _| drop(versions.remove(1)), &[("b", "1")], &[]),
        ("the version of another server", |_, versions, _| versions[1].1 = "v17".into(), &[("b", "1")], &[]),
        ("no version", |_, versions, _| versions[1].1 = String::new(), &[("b", "1")], &[]),
        (
            "versions swapped",
            |_, versions, _| {
                let (a, b) = (versions[0].1.clone(), versions[1].1.clone());
                (versions[0].1, versions[1].1) = (b, a);
            },
            &[("a", "1"), ("b", "1")],
            &[],
        ),
    ];
    for (what, change, resources, removed) in cases {
        for kind in [CDS, EDS] {
            let mut bench = came_back(kind, |bench, versions| change(bench, versions, kind));
            assert_eq!(said(&mut bench), (contents(resources), strings(removed)), "{what}, {kind:?}");
            assert_eq!(bench.session.pending(kind), None, "{what}, {kind:?}");
            bench.change(kind, "c", "3");
            assert_eq!(said(&mut bench), (contents(&[("c", "3")]), vec![]), "{what}, {kind:?}: and it follows");
        }
    }
}

#[test]
fn rule_43_versions_count_in_the_first_request_of_a_type_only() {
    let mut bench = bench();
    bench.start(EDS, &["a"]);
    bench.take();
    let versions = versions(&bench, EDS);
    bench.resume(EDS, &["b"], &versions);
    assert_eq!(bench.take().resources, contents(&[("b", "1")]));
    bench.change(EDS, "c", "2");
    bench.silent();
}

#[test]
fn rule_43_and_10_a_name_that_is_claimed_twice_is_said_once() {
    // A map on the wire is a list: nothing forbids it.
    use crate::xds::request::{Incremental, InitialVersion};
    let mut bench = bench();
    let version = |text: String| InitialVersion { name: "a".into(), version: text.into() };
    let request = Incremental {
        type_url: EDS.type_url().into(),
        resource_names_subscribe: vec!["a".into(), "a".into()],
        initial_resource_versions: vec![version(bench.shelf.version(EDS, "a")), version("v1".into())],
        ..Incremental::default()
    };
    bench.session.receive_incremental(request, bench.now, &bench.shelf).expect("accepted");
    assert_eq!(said(&mut bench), (contents(&[("a", "1")]), vec![]));
}

#[test]
fn rule_44_what_is_held_beside_a_wildcard_is_not_named() {
    for subscribe in [&[][..], &["*"]] {
        let mut bench = bench();
        let versions = versions(&bench, CDS);
        bench.resume(CDS, subscribe, &versions);
        bench.take();
        let (_, names, wildcard) = bench.session.subscriptions().next().expect("clusters");
        assert_eq!((names.len(), wildcard), (0, true), "{subscribe:?}");
    }
}

#[test]
fn rule_5_and_43_what_is_held_of_one_type_says_nothing_of_another() {
    let mut bench = bench();
    // The endpoints' versions, said of clusters. Equal bytes have equal versions, of whatever type.
    NAMES.iter().for_each(|name| bench.shelf.put(CDS, name, "c"));
    let versions = versions(&bench, EDS);
    bench.resume(CDS, &[], &versions);
    assert_eq!(bench.take().resources.len(), 3);
    bench.start(EDS, &["a"]);
    let endpoints = bench.take();
    assert_eq!((endpoints.resources, endpoints.removed), (contents(&[("a", "1")]), vec![]));
    let kinds: BTreeSet<ResourceType> = bench.session.kinds().collect();
    assert_eq!(kinds, [CDS, EDS].into());
}

#[test]
fn rule_47_equal_endpoints_are_sent_again_after_a_cluster_that_changed_meanwhile() {
    let mut bench = bench();
    let (clusters, endpoints) = (versions(&bench, CDS), versions(&bench, EDS));
    bench.shelf.put(CDS, "a", "2");
    // In either order.
    for kinds in [[CDS, EDS], [EDS, CDS]] {
        bench.reconnect();
        for kind in kinds {
            match kind {
                CDS => bench.resume(CDS, &[], &clusters),
                _ => bench.resume(EDS, &NAMES, &endpoints),
            }
        }
        assert_eq!(bench.take().resources, contents(&[("a", "2")]), "{kinds:?}");
        let again = bench.take();
        assert_eq!((again.kind, again.resources), (Some(EDS), contents(&[("a", "1")])), "{kinds:?}");
        bench.silent();
    }
}

/// The state of the world of a type, and a client that comes back with a version of it.
fn with_version(kind: ResourceType, names: &[&str], version: impl FnOnce(&Seen) -> String) -> Bench {
    let mut bench = Bench::new(Dialect::StateOfTheWorld);
    for name in ["all-a", "all-b"] {
        bench.shelf.put(kind, name, "1");
    }
    bench.start(kind, names);
    let seen = bench.take();
    bench.reconnect();
    bench.ask(kind, names, &Seen { version: version(&seen), ..Seen::default() }, None);
    bench
}

#[test]
fn rule_20_a_wildcard_of_the_same_version_is_not_sent_again() {
    for kind in [CDS, LDS] {
        let mut bench = with_version(kind, &[], |seen| seen.version.clone());
        bench.silent();
        bench.change(kind, "all-a", "2");
        assert_eq!(bench.take().resources, contents(&[("all-a", "2"), ("all-b", "1")]), "{kind:?}");
    }
}

#[test]
fn rule_11_and_20_another_version_is_another_whatever_it_looks_like() {
    let versions: [fn(&Seen) -> String; 5] = [
        |_| "17".into(),
        |_| "0".repeat(32),
        |seen| seen.version.to_uppercase() + " ",
        |seen| format!("0{}", seen.version),
        // A number that is read as the same is not the same text.
        |seen| format!("+{}", &seen.version[1..]),
    ];
    for (number, version) in versions.into_iter().enumerate() {
        let mut bench = with_version(CDS, &[], version);
        assert_eq!(bench.take().resources.len(), 2, "{number}");
    }
}

#[test]
fn rule_11_a_version_is_compared_as_a_text() {
    let version = crate::xds::resource::Version(0xabc);
    let text = version.to_string();
    assert_eq!(crate::xds::resource::Version::parse(&text), Some(version));
    for other in [text.to_uppercase(), format!("+{}", &text[1..]), text[1..].to_owned(), String::new()] {
        assert_eq!(crate::xds::resource::Version::parse(&other), None, "{other}");
    }
}

#[test]
fn rule_20_names_are_sent_again_though_their_version_is_the_same() {
    // The client may have dropped a name without a word, and named it again when it came back.
    for kind in [CDS, LDS, EDS] {
        let mut bench = with_version(kind, &["all-a", "all-b"], |seen| seen.version.clone());
        assert_eq!(bench.take().resources.len(), 2, "{kind:?}");
    }
}

#[test]
fn rule_6_a_nonce_of_another_stream_means_nothing() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.shelf.put(EDS, "a", "1");
        bench.start(EDS, &["a"]);
        let seen = bench.take();
        bench.reconnect();
        match dialect {
            Dialect::Incremental => drop(bench.delta(DeltaDiscoveryRequest {
                type_url: EDS.type_url().into(),
                resource_names_subscribe: strings(&["a"]),
                response_nonce: seen.nonce,
                ..Default::default()
            })),
            Dialect::StateOfTheWorld => bench.ask(EDS, &["a"], &Seen { version: String::new(), ..seen }, None),
        }
        assert_eq!(bench.take().resources, contents(&[("a", "1")]), "{dialect:?}");
    }
}
