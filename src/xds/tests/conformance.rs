//! The table of `docs/conformance.md` against the tests that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const PAGE: &str = include_str!("../../../docs/conformance.md");
const RULES: u32 = 68;

/// The numbers that a test's name bears: of `rule_28_and_29_names` these are 28 and 29.
fn numbers(name: &str) -> BTreeSet<u32> {
    let words = name.strip_prefix("rule_").expect("a rule's test").split('_');
    words.filter(|word| *word != "and").map_while(|word| word.parse().ok()).collect()
}

/// All words of a text that begin with `rule_` and a digit.
fn rules_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.strip_prefix("rule_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
}

/// The names of all tests of rules below a directory.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let functions =
                text.lines().filter(|line| line.trim_start().starts_with("fn ") || line.contains("async fn "));
            found.extend(functions.flat_map(rules_in).map(str::to_owned));
        }
    }
}

/// A rule's row: its tests, and whether it holds.
fn rows() -> BTreeMap<u32, (BTreeSet<String>, String)> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let Some((number, rest)) = line.strip_prefix("| ").and_then(|line| line.split_once(". ")) else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        let cells: Vec<&str> = rest.split(" | ").collect();
        let [_, _, tests, holds] = cells[..] else { panic!("four cells: {line}") };
        let tests = rules_in(tests).map(str::to_owned).collect();
        let before = rows.insert(number, (tests, holds.trim_end_matches(" |").to_owned()));
        assert!(before.is_none(), "rule {number} has two rows");
    }
    rows
}

#[test]
fn each_rule_has_a_row_and_each_test_stands_where_it_belongs() {
    let mut tests = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src", "tests"].iter().for_each(|directory| tests_below(&root.join(directory), &mut tests));
    let rows = rows();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=RULES).collect::<Vec<_>>());
    for (number, (of_row, holds)) in &rows {
        let of_rule: BTreeSet<String> = tests.iter().filter(|name| numbers(name).contains(number)).cloned().collect();
        assert_eq!(of_row, &of_rule, "the tests of rule {number}, on the page and in the sources");
        let answer = ["yes", "no", "does not apply: "].iter().any(|answer| holds.starts_with(answer));
        assert!(answer, "rule {number}: {holds:?}");
        assert!(!of_rule.is_empty() || !holds.starts_with("yes"), "rule {number} holds, and no test says so");
    }
}
