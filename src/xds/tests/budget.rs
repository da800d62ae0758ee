//! Rule 63: a response is split where the protocol allows it.

use super::*;
use crate::xds::protocol::RESPONSE_BYTES;

/// Some head and keys are beside the resources.
const MOST: usize = RESPONSE_BYTES + 64 * 1024;
const PARTS: usize = 3;

fn large(letter: &str) -> String {
    letter.repeat(RESPONSE_BYTES / 2 - 1024)
}

/// Names of which two fill a response.
fn names() -> Vec<String> {
    (0..2 * PARTS).map(|number| format!("n{number}")).collect()
}

/// So many large resources that they need several responses.
fn bench(dialect: Dialect, kind: ResourceType) -> Bench {
    let mut bench = Bench::new(dialect);
    for name in names() {
        bench.shelf.put(kind, &name, &large("1"));
    }
    bench
}

fn start(bench: &mut Bench, kind: ResourceType) {
    let names = names();
    bench.start(kind, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

/// All that is due, without an ACK between.
fn parts(bench: &mut Bench) -> Vec<Seen> {
    std::iter::from_fn(|| bench.poll()).collect()
}

/// What a client has that takes each of these.
fn held(parts: &[Seen]) -> BTreeMap<String, String> {
    parts.iter().flat_map(|part| part.resources.clone()).collect()
}

fn expected(letter: &str) -> BTreeMap<String, String> {
    names().into_iter().map(|name| (name, large(letter))).collect()
}

#[test]
fn rule_63_a_large_answer_goes_in_parts_and_each_is_acked() {
    for (dialect, kind) in [(Dialect::Incremental, EDS), (Dialect::Incremental, CDS), (Dialect::StateOfTheWorld, EDS)] {
        let mut bench = bench(dialect, kind);
        start(&mut bench, kind);
        let parts = parts(&mut bench);
        assert_eq!(parts.len(), PARTS, "{dialect:?}");
        assert!(parts.iter().all(|part| part.bytes <= MOST), "{dialect:?}");
        assert_eq!(parts.iter().map(|part| part.resources.len()).sum::<usize>(), names().len(), "no name twice");
        assert_eq!(held(&parts), expected("1"), "nothing is lost");
        for part in &parts {
            assert!(bench.session.is_waiting());
            bench.ack(part);
        }
        assert!(!bench.session.is_waiting());
        assert_eq!(bench.session.pending(kind), None, "{dialect:?}");
        bench.silent();
    }
}

#[test]
fn rule_63_a_refused_part_is_said_again_and_the_others_stand() {
    for dialect in BOTH {
        let mut bench = bench(dialect, EDS);
        start(&mut bench, EDS);
        let parts = parts(&mut bench);
        let at_fault = parts[1].resources.keys().next().expect("a name").clone();
        bench.ack(&parts[0]);
        bench.nack(&parts[1], &format!("{at_fault}: bad"));
        bench.ack(&parts[2]);
        let good: Vec<String> = parts[1].resources.keys().filter(|name| **name != at_fault).cloned().collect();
        let again = bench.take();
        assert_eq!(again.resources.keys().cloned().collect::<Vec<_>>(), good, "{dialect:?}");
        bench.silent();
        assert_eq!(bench.session.lagging(EDS).len(), 1, "{dialect:?}: the one at fault");
        bench.change(EDS, &at_fault, "2");
        assert_eq!(bench.take().resources, contents(&[(&at_fault, "2")]), "{dialect:?}");
        assert_eq!(bench.session.pending(EDS), None, "{dialect:?}");
    }
}

#[test]
fn rule_63_what_changes_between_the_parts_comes_once_and_newest() {
    for dialect in BOTH {
        let mut bench = bench(dialect, EDS);
        start(&mut bench, EDS);
        let first = bench.one();
        for name in names() {
            bench.change(EDS, &name, "2");
        }
        let mut all = vec![first.clone()];
        all.extend(parts(&mut bench));
        for part in &all {
            bench.ack(part);
        }
        all.extend(bench.drain());
        assert_eq!(held(&all), names().into_iter().map(|name| (name, "2".to_owned())).collect(), "{dialect:?}");
        let said: usize = all.iter().map(|part| part.resources.len()).sum();
        assert_eq!(said, names().len() + first.resources.len(), "{dialect:?}: only what went before the change twice");
        assert_eq!(bench.session.pending(EDS), None, "{dialect:?}");
    }
}

#[test]
fn rule_63_clusters_of_the_state_of_the_world_are_never_split() {
    let mut bench = bench(Dialect::StateOfTheWorld, CDS);
    bench.start(CDS, &[]);
    let all = bench.take();
    assert_eq!(all.resources, expected("1"), "what is left out would be deleted");
    assert!(all.bytes > RESPONSE_BYTES);
    bench.silent();
}

#[test]
fn rule_63_one_resource_that_is_too_large_goes_alone() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        let huge = "1".repeat(RESPONSE_BYTES + 1);
        for (name, content) in [("a", "1"), ("b", &*huge), ("c", "1")] {
            bench.shelf.put(EDS, name, content);
        }
        bench.start(EDS, &["a", "b", "c"]);
        let sizes: Vec<usize> = bench.drain().iter().map(|part| part.resources.len()).collect();
        assert_eq!(sizes, [1, 1, 1], "{dialect:?}");
        assert_eq!(bench.session.pending(EDS), None, "{dialect:?}");
    }
}

#[test]
fn rule_63_more_parts_than_are_remembered_wait_for_an_ack() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
        let huge = "1".repeat(RESPONSE_BYTES);
        names.iter().for_each(|name| bench.shelf.put(EDS, name, &huge));
        bench.start(EDS, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut sent: VecDeque<Seen> = parts(&mut bench).into();
        assert!(sent.len() < names.len(), "{dialect:?}");
        let mut taken = 0;
        while let Some(part) = sent.pop_front() {
            taken += part.resources.len();
            bench.ack(&part);
            sent.extend(parts(&mut bench));
        }
        assert_eq!(taken, names.len(), "{dialect:?}");
        let accepted = |name: &String| bench.session.lags(EDS, name, Revision(u64::MAX)).is_none();
        assert!(names.iter().all(accepted), "{dialect:?}");
        let acked = bench.session.holdings().iter().filter(|holding| holding.acked.is_some()).count();
        assert_eq!(acked, names.len(), "{dialect:?}");
    }
}

#[test]
fn rule_63_a_client_that_acks_late_has_accepted_all_that_it_was_sent() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
        names.iter().for_each(|name| bench.shelf.put(EDS, name, "1"));
        bench.start(EDS, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut last = bench.one();
        // Each change goes without the ACK of the one before.
        for name in &names {
            bench.change(EDS, name, "2");
            bench.pass(Duration::from_secs(1));
            last = bench.one();
        }
        bench.ack(&last);
        let holdings = bench.session.holdings();
        assert!(holdings.iter().all(|holding| holding.acked.is_some() && holding.acked == holding.sent), "{dialect:?}");
    }
}
