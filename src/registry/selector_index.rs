//! Which conditions could hold for an instance, without looking at all of them.
//!
//! A selector has terms: equalities that hold of whatever it matches (a service, a label, a zone), some with alternatives.
//! It is filed under one of them, that which fewest others are filed under, and the rest stands beside it. An instance has
//! facts, a dozen or two: what could match is found under them, and is passed over unless all of its terms are among them.
//! So an instance costs as much as there are selectors that share a rare term with it; those without a term are looked at
//! always.
//!
//! Terms and facts are compared by hashes of 64 bits. Two that meet by chance make a candidate more, and never one less.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::model::{
    Instance,
    selector::instance::{InstanceSelector, Term},
};

/// One equality, as its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fact(u64);

#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Kind {
    Namespace,
    Service,
    Id,
    Label,
    Capability,
    Region,
    Zone,
    SubZone,
}

impl Fact {
    fn new(kind: Kind, parts: &[&str]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&[kind as u8]);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.digest())
    }

    pub fn namespace(name: &str) -> Self {
        Self::new(Kind::Namespace, &[name])
    }

    pub fn service(name: &str) -> Self {
        Self::new(Kind::Service, &[name])
    }

    fn of_term(term: &Term) -> Self {
        match term {
            Term::Namespace(name) => Self::namespace(name),
            Term::Service(name) => Self::service(name),
            Term::Id(id) => Self::new(Kind::Id, &[id]),
            Term::Label(name, value) => Self::new(Kind::Label, &[name, value]),
            Term::Capability(name) => Self::new(Kind::Capability, &[name]),
            Term::Region(name) => Self::new(Kind::Region, &[name]),
            Term::Zone(name) => Self::new(Kind::Zone, &[name]),
            Term::SubZone(name) => Self::new(Kind::SubZone, &[name]),
        }
    }
}

/// One of these has to be a fact of what matches.
pub type Alternatives = Box<[Fact]>;

/// All that a term can ask of an instance: what its key and its registration say.
#[derive(Clone, Debug)]
pub struct Facts(Vec<Fact>);

impl Facts {
    pub fn of(instance: &Instance) -> Self {
        let (service, spec) = (&instance.key.service, &instance.spec);
        let own = [
            Fact::namespace(service.namespace.as_str()),
            Fact::service(service.name.as_str()),
            Fact::new(Kind::Id, &[instance.key.id.as_str()]),
            Fact::new(Kind::Region, &[&spec.locality.region]),
            Fact::new(Kind::Zone, &[&spec.locality.zone]),
            Fact::new(Kind::SubZone, &[&spec.locality.sub_zone]),
        ];
        let labels = spec.labels.iter().map(|(name, value)| Fact::new(Kind::Label, &[name, value]));
        let capabilities = spec.capabilities.iter().map(|capability| Fact::new(Kind::Capability, &[&capability.name]));
        let mut facts: Vec<_> = own.into_iter().chain(labels).chain(capabilities).collect();
        facts.sort_unstable();
        facts.dedup();
        Self(facts)
    }

    fn have(&self, fact: Fact) -> bool {
        self.0.binary_search(&fact).is_ok()
    }
}

#[derive(Debug)]
pub struct SelectorIndex<K> {
    /// Under which facts each is filed; none if it has no terms.
    filed: HashMap<K, Option<Alternatives>>,
    by_fact: HashMap<Fact, BTreeMap<K, Arc<[Alternatives]>>>,
    /// Those that could match anything.
    without_terms: BTreeSet<K>,
}

impl<K> Default for SelectorIndex<K> {
    fn default() -> Self {
        Self { filed: HashMap::new(), by_fact: HashMap::new(), without_terms: BTreeSet::new() }
    }
}

impl<K: Clone + Ord + Hash> SelectorIndex<K> {
    /// Puts a selector in place of what the key had.
    pub fn insert(&mut self, key: K, selector: &InstanceSelector) {
        self.insert_facts(key, facts_of(selector).collect());
    }

    /// The same, of a condition that is said otherwise: of each entry one has to be a fact of what matches.
    pub fn insert_facts(&mut self, key: K, terms: Arc<[Alternatives]>) {
        self.remove(&key);
        let crowd = |term: &&Alternatives| -> usize {
            // One that has a place of its own costs as well.
            term.iter().map(|fact| 1 + self.by_fact.get(fact).map_or(0, BTreeMap::len)).sum()
        };
        let under = terms.iter().min_by_key(crowd).cloned();
        match &under {
            Some(facts) => {
                for fact in facts {
                    self.by_fact.entry(*fact).or_default().insert(key.clone(), terms.clone());
                }
            }
            None => drop(self.without_terms.insert(key.clone())),
        }
        self.filed.insert(key, under);
    }

    pub fn remove(&mut self, key: &K) {
        match self.filed.remove(key) {
            Some(Some(facts)) => facts.iter().for_each(|fact| self.remove_from(*fact, key)),
            Some(None) => drop(self.without_terms.remove(key)),
            None => {}
        }
    }

    fn remove_from(&mut self, fact: Fact, key: &K) {
        let Some(filed) = self.by_fact.get_mut(&fact) else { return };
        filed.remove(key);
        if filed.is_empty() {
            self.by_fact.remove(&fact);
        }
    }

    pub fn len(&self) -> usize {
        self.filed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.filed.is_empty()
    }

    /// Those whose terms hold for an instance, each once: whoever is not among them cannot match it.
    pub fn candidates<'a>(&'a self, instance: &Instance) -> impl Iterator<Item = &'a K> + use<'a, K> {
        self.of_facts(&Facts::of(instance))
    }

    pub fn of_facts<'a>(&'a self, facts: &Facts) -> impl Iterator<Item = &'a K> + use<'a, K> {
        let holds = |term: &Alternatives| term.iter().any(|fact| facts.have(*fact));
        let mut found = Vec::new();
        for fact in &facts.0 {
            let Some(filed) = self.by_fact.get(fact) else { continue };
            let could = |(_, terms): &(&K, &Arc<[Alternatives]>)| terms.iter().all(holds);
            found.extend(filed.iter().filter(could).map(|(key, _)| key));
        }
        // One that is filed under alternatives is met under each that holds.
        found.sort_unstable();
        found.dedup();
        found.into_iter().chain(&self.without_terms)
    }
}

/// What a selector asks for; nothing, if it could match anything.
pub fn facts_of(selector: &InstanceSelector) -> impl Iterator<Item = Alternatives> {
    selector.terms().iter().map(|alternatives| alternatives.iter().map(Fact::of_term).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Incarnation, InstanceSpec, LeaseId, Locality, UnixMillis, parse, selector::instance::Knows};

    fn instance(service: &str, labels: &[(&str, &str)]) -> Instance {
        let labels = labels.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
        let spec = InstanceSpec {
            address: [10, 0, 0, 1].into(),
            ports: Arc::default(),
            weight: 1,
            ready: true,
            labels: labels.collect::<BTreeMap<_, _>>().into(),
            capabilities: Arc::default(),
            locality: Arc::new(Locality::default()),
            sla: Arc::default(),
            description: "".into(),
            card: None,
        };
        let key = parse::instance_key("", service, "1").expect("a key");
        Instance::new(key, Incarnation(1), LeaseId(1), Arc::new(spec), UnixMillis(1))
    }

    fn selector(text: &str) -> InstanceSelector {
        InstanceSelector::parse("selector", text, Knows::Stored).expect(text)
    }

    #[test]
    fn candidates_are_those_whose_terms_hold() {
        let mut index = SelectorIndex::default();
        for text in [
            "instance.service == 'web'",
            "instance.service == 'api'",
            "instance.labels.language == 'python'",
            "instance.labels.language == 'python' && instance.labels.team == 'a'",
            "instance.labels.language == 'python' && instance.labels.team == 'b'",
            "instance.labels.language in ['python', 'rust'] && instance.service in ['web', 'api']",
            "instance.has_capability('ocr') || instance.locality.zone == 'a'",
            "instance.weight >= 9",
        ] {
            index.insert(text, &selector(text));
        }
        let candidates =
            |index: &SelectorIndex<&'static str>, of: &Instance| index.candidates(of).copied().collect::<BTreeSet<_>>();
        let python = instance("web", &[("language", "python"), ("team", "a")]);
        let expected = [
            "instance.service == 'web'",
            "instance.labels.language == 'python'",
            "instance.labels.language == 'python' && instance.labels.team == 'a'",
            "instance.labels.language in ['python', 'rust'] && instance.service in ['web', 'api']",
            "instance.weight >= 9",
        ];
        assert_eq!(candidates(&index, &python), expected.into());
        assert_eq!(candidates(&index, &instance("other", &[])), ["instance.weight >= 9"].into());
        for text in expected {
            index.remove(&text);
        }
        assert_eq!((candidates(&index, &python), index.len()), (BTreeSet::new(), 3));
    }

    /// Ten thousand that share one term and differ in another: each instance meets its own.
    #[test]
    fn a_common_term_is_not_what_they_are_filed_under() {
        let mut index = SelectorIndex::default();
        for number in 0..10_000 {
            let text = format!("instance.labels.language == 'python' && instance.labels.customer == 'c{number}'");
            index.insert(number, &selector(&text));
        }
        assert!(index.by_fact.values().map(BTreeMap::len).max() <= Some(2));
        let one = instance("web", &[("language", "python"), ("customer", "c77")]);
        assert_eq!(index.candidates(&one).collect::<Vec<_>>(), [&77]);
    }

    proptest! {
        #[test]
        fn nobody_who_matches_is_passed_over(
            selectors in proptest::collection::vec((0u8..20, 0u8..4, 0u8..4, 0u8..4), 1..60),
            instances in proptest::collection::vec((0u8..4, 0u8..4, 0u8..4), 1..20),
        ) {
            let (mut index, mut all) = (SelectorIndex::default(), BTreeMap::new());
            for (key, service, a, b) in selectors {
                // 0 is a term that is not there.
                let terms = [("service", service), ("labels.a", a), ("labels.b", b)];
                let equal = |(path, of): &(&str, u8)| match of {
                    3 => format!("instance.{path} in ['s1', 's3']"),
                    _ => format!("instance.{path} == 's{of}'"),
                };
                let parts = terms.iter().filter(|(_, of)| *of > 0).map(equal);
                let text = parts.chain(["instance.weight >= 1".to_owned()]).collect::<Vec<_>>().join(" && ");
                if key < 3 && all.remove(&key).is_some() {
                    index.remove(&key);
                } else {
                    index.insert(key, &selector(&text));
                    all.insert(key, selector(&text));
                }
            }
            for (service, a, b) in instances {
                let (a, b) = (format!("s{a}"), format!("s{b}"));
                let one = instance(&format!("s{service}"), &[("a", &a), ("b", &b)]);
                let candidates: Vec<u8> = index.candidates(&one).copied().collect();
                let matching: BTreeSet<u8> =
                    all.iter().filter(|(_, of)| of.matches(&one, None)).map(|(key, _)| *key).collect();
                prop_assert_eq!(candidates.len(), matching.len(), "each once, and none whose terms do not hold");
                prop_assert_eq!(candidates.into_iter().collect::<BTreeSet<u8>>(), matching);
            }
        }
    }
}
