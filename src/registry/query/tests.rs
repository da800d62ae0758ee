//! Answers by index and by scan are the same, whatever has changed; pages are whole; words find what they should.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        Capability, Drain, Incarnation, InstanceKey, InstanceSpec, Labels, Lease, LeaseId, Locality, Port, PortName,
        Protocol, Service, UnixMillis, parse, selector::Knows,
    },
    registry::{Settings, state::State},
    storage::{Change, Commit, Key, Opened, Record, Storage, memory::MemoryStore},
    telemetry::Metrics,
};

fn spec(language: &str, capability: &str, region: &str, description: &str) -> InstanceSpec {
    let port = PortName::parse("", "http").expect("a name");
    InstanceSpec {
        address: [10, 0, 0, 1].into(),
        ports: [Port { name: port, number: 80, protocol: Protocol::Http }].into(),
        weight: 1,
        ready: true,
        labels: Labels::from([("language", language)]),
        capabilities: [Capability {
            name: capability.into(),
            version: "1".into(),
            description: "".into(),
            attributes: Labels::default(),
        }]
        .into(),
        locality: Arc::new(Locality { region: region.into(), zone: format!("{region}-a"), sub_zone: "".into() }),
        sla: Arc::default(),
        description: description.into(),
        card: None,
    }
}

fn change(namespace: &str, service: &str, id: &str, spec: InstanceSpec) -> Change {
    let key = parse::instance_key(namespace, service, id).expect("a key");
    let instance = Instance::new(key.clone(), Incarnation(1), LeaseId(1), spec.into(), UnixMillis(1));
    Change { key: Key::Instance(key), record: Some(Record::Instance(Arc::new(instance))) }
}

fn service(namespace: &str, name: &str) -> Change {
    let key = parse::service_key(namespace, name).expect("a key");
    let service = Service::new(PortName::parse("", "http").expect("a name"));
    Change { key: Key::Service(key), record: Some(Record::Service(Arc::new(service))) }
}

fn filter(text: &str) -> Option<InstanceSelector> {
    (!text.is_empty()).then(|| InstanceSelector::parse("filter", text, Knows::Load).expect(text))
}

fn limits() -> Limits {
    Limits { deadline: Instant::now() + Duration::from_secs(60), cancelled: Arc::default() }
}

/// A registry of these changes, in which nothing happens any more.
async fn queries(changes: Vec<Change>) -> Queries {
    let mut records: Vec<_> =
        changes.into_iter().filter_map(|change| Some((change.key, Revision(1), change.record?))).collect();
    let lease =
        Lease { ttl: Duration::from_secs(3600), incarnation: Incarnation(1), owner: crate::model::ReplicaId::ONLY };
    records.push((Key::Lease(LeaseId(1)), Revision(1), Record::Lease(lease)));
    let (store, opened) = MemoryStore::open("test".into());
    let opened = Opened { revision: Revision(1), records, ..opened };
    let storage: Arc<dyn Storage> = Arc::new(store);
    let (registry, _) = Registry::start(storage, opened, Settings::default(), Arc::new(Metrics::default()));
    Queries::new(registry)
}

impl Queries {
    fn indexed(&self) -> bool {
        self.lock().index.is_some()
    }

    fn answer_now(&self, question: &Question) -> Answer {
        self.answer(question, &limits(), Instant::now()).expect("an answer")
    }
}

fn ids(answer: &Answer) -> Vec<&str> {
    answer.found.instances.iter().map(|(instance, _)| instance.value.key.id.as_str()).collect()
}

fn question(text: &str) -> Question {
    Question { filter: filter(text), page_size: 100, ..Question::default() }
}

fn fleet() -> Vec<Change> {
    let mut changes = vec![service("", "web"), service("", "vision"), service("shop", "legal")];
    for index in 0..30 {
        let language = ["python", "rust", "go"][index % 3];
        let region = ["eu", "us"][index % 2];
        changes.push(change("", "web", &format!("web-{index:02}"), spec(language, "http", region, "Serves pages")));
    }
    changes.push(change("", "vision", "v1", spec("python", "image-processing", "us", "Finds cats in pictures")));
    changes.push(change("", "vision", "v2", spec("python", "image-processing", "eu", "Finds cats in pictures")));
    changes.push(change("shop", "legal", "l1", spec("python", "summarise", "us", "Summarises legal documents")));
    changes
}

#[tokio::test]
async fn the_index_is_made_when_it_is_first_missed() {
    let queries = queries(fleet()).await;
    let question = question("instance.labels.language == 'python' && instance.has_capability('image-processing')");
    assert!(!queries.answer_now(&Question { page_size: 5, ..Question::default() }).by_index && !queries.indexed());
    let scanned = queries.answer_now(&question);
    assert!(!scanned.by_index && scanned.examined == 33);
    while !queries.indexed() {
        tokio::task::yield_now().await;
    }
    let found = queries.answer_now(&question);
    assert!(found.by_index && found.examined == 2);
    assert_eq!((ids(&scanned), ids(&found)), (vec!["v1", "v2"], vec!["v1", "v2"]));
    assert_eq!((scanned.found.total, found.found.total), (Some(2), Some(2)));
    // Nobody asks any more.
    queries.refresh(Instant::now() + FORGET / 2);
    assert!(queries.indexed());
    queries.refresh(Instant::now() + FORGET);
    assert!(!queries.indexed());
}

#[tokio::test]
async fn words_find_who_can_do_it() {
    let queries = queries(fleet()).await;
    let ask = |text: &str, filter: &str| {
        let question = Question { text: text.into(), order: Order::Relevance, ..question(filter) };
        let answer = queries.answer_now(&question);
        ids(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ask("summarise legal documents", ""), ["l1"]);
    assert_eq!(ask("who finds a cat", ""), ["v1", "v2"]);
    assert_eq!(ask("process images", "instance.locality.region == 'eu'"), ["v2"]);
    assert_eq!(ask("process images", "instance.labels.language == 'rust'"), [""; 0]);
    assert_eq!(ask("dogs", ""), [""; 0]);
    // What fits better comes first, and copies in the order of their names.
    assert_eq!(ask("legal cats pictures", ""), ["v1", "v2", "l1"]);
}

#[tokio::test]
async fn counts_by_field() {
    let queries = queries(fleet()).await;
    let facets = ["label:language", "region", "service", "label:none", "capability", "health", "zone", "namespace"];
    let facets = facets.iter().map(|name| FacetField::parse("", name).expect(name)).collect();
    let answer = queries.answer_now(&Question { facets, page_size: 1, ..Question::default() });
    let shown = |index: usize| {
        let facet = &answer.facets[index];
        let values: Vec<String> = facet.values.iter().map(|(value, count)| format!("{value} {count}")).collect();
        (values.join(", "), facet.without)
    };
    assert_eq!(shown(0), ("python 13, go 10, rust 10".into(), 0));
    assert_eq!(shown(1), ("us 17, eu 16".into(), 0));
    assert_eq!(shown(2), ("web 30, vision 2, legal 1".into(), 0));
    assert_eq!(shown(3), (String::new(), 33));
    assert_eq!(shown(4), ("http 30, image-processing 2, summarise 1".into(), 0));
    assert_eq!(shown(5), ("healthy 33".into(), 0));
    assert_eq!(shown(6), ("us-a 17, eu-a 16".into(), 0));
    assert_eq!(shown(7), ("default 32, shop 1".into(), 0));
    assert_eq!((answer.found.total, answer.found.instances.len()), (Some(33), 1));
}

#[tokio::test]
async fn orders() {
    let queries = queries(fleet()).await;
    let near = Locality { region: "us".into(), zone: "us-a".into(), sub_zone: String::new() };
    let nearest = Question { order: Order::Nearest(near), ..question("instance.service == 'vision'") };
    assert_eq!(ids(&queries.answer_now(&nearest)), ["v1", "v2"]);
    let far = Locality { region: "eu".into(), ..Locality::default() };
    let nearest = Question { order: Order::Nearest(far), ..nearest };
    assert_eq!(ids(&queries.answer_now(&nearest)), ["v2", "v1"]);
    let in_namespace = Question { namespace: Some(Namespace::parse("", "shop").expect("a name")), ..question("") };
    assert_eq!(ids(&queries.answer_now(&in_namespace)), ["l1"]);
}

#[tokio::test]
async fn what_takes_too_long_ends() {
    let queries = queries(fleet()).await;
    let over = Limits { deadline: Instant::now(), ..limits() };
    assert_eq!(queries.answer(&question("instance.ready"), &over, Instant::now()).err(), Some(Failure::TooSlow));
    let gone = Limits { cancelled: Arc::new(AtomicBool::new(true)), ..limits() };
    assert_eq!(queries.answer(&question("instance.ready"), &gone, Instant::now()).err(), Some(Failure::TooSlow));
    let all = queries.shared.running.available_permits();
    let _all = queries.shared.running.clone().acquire_many_owned(all as u32).await.expect("nobody closes it");
    let answer = queries.ask(question(""), Duration::from_millis(10)).await;
    assert_eq!(answer.err(), Some(Failure::TooSlow));
    let waiting: Vec<_> = (0..MAX_WAITING).filter_map(|_| Waiting::join(&queries.shared.waiting)).collect();
    assert_eq!(waiting.len(), MAX_WAITING);
    assert_eq!(queries.ask(question(""), Duration::from_secs(1)).await.err(), Some(Failure::TooMany));
}

#[derive(Clone, Debug)]
enum Act {
    Put { service: usize, id: usize, language: usize, region: usize },
    Drain { service: usize, id: usize },
    Remove { service: usize, id: usize },
    RemoveService(usize),
    Look,
}

const SERVICES: [(&str, &str); 4] = [("default", "a"), ("default", "b"), ("shop", "a"), ("shop", "z")];

fn act() -> impl Strategy<Value = Act> {
    let (service, id) = (0..SERVICES.len(), 0usize..6);
    prop_oneof![
        6 => (service.clone(), id.clone(), 0usize..3, 0usize..2)
            .prop_map(|(service, id, language, region)| Act::Put { service, id, language, region }),
        1 => (service.clone(), id.clone()).prop_map(|(service, id)| Act::Drain { service, id }),
        2 => (service.clone(), id).prop_map(|(service, id)| Act::Remove { service, id }),
        1 => service.prop_map(Act::RemoveService),
        2 => Just(Act::Look),
    ]
}

const FILTERS: [&str; 6] = [
    "instance.labels.language == 'python'",
    "instance.labels.language in ['go', 'rust'] && instance.locality.region == 'eu'",
    "instance.has_capability('go') || instance.service == 'z'",
    "instance.health == 'draining' && instance.namespace == 'shop'",
    "instance.service == 'a' && instance.id == 'i1'",
    "instance.labels.language == 'python' && instance.labels.language == 'go'",
];

/// Looks at everything.
fn plain(snapshot: &Snapshot, question: &Question) -> Vec<InstanceKey> {
    let all = snapshot.services.values().flat_map(|service| service.instances.values());
    let wanted = |instance: &&Versioned<Instance>| {
        question.filter.as_ref().is_none_or(|filter| filter.matches(&instance.value, None))
            && question.namespace.as_ref().is_none_or(|name| *name == instance.value.key.service.namespace)
    };
    all.filter(wanted).map(|instance| instance.value.key.clone()).collect()
}

fn by_index(index: &mut Index, snapshot: &Arc<Snapshot>, question: &Question) -> Vec<InstanceKey> {
    index.advance(snapshot);
    let nothing = Terms::default();
    let namespace = question.namespace.as_ref().map(Namespace::as_str);
    let found = index.candidates(question.terms().unwrap_or(&nothing), namespace).expect("there is a term");
    let mut run = Run::new(question, |_| None, limits());
    for slot in &found {
        run.look(index.at(slot).expect("it is taken"), 0.0).expect("soon done");
    }
    run.finish(true).0.instances.into_iter().map(|(instance, _)| instance.value.key.clone()).collect()
}

fn by_pages(snapshot: &Snapshot, question: &Question, page_size: usize) -> Vec<InstanceKey> {
    let mut question = Question { page_size, ..question.clone() };
    let mut all = Vec::new();
    loop {
        let mut run = Run::new(&question, |_| None, limits());
        scan(snapshot, &question, &mut run).expect("soon done");
        let found = run.finish(false).0;
        assert!(found.instances.len() <= page_size);
        all.extend(found.instances.into_iter().map(|(instance, _)| instance.value.key.clone()));
        let Some(token) = found.next else { return all };
        question.after = Some(Place::parse("page_token", &token, question.digest()).expect("its own token"));
    }
}

fn changes_of(act: &Act, known: &mut BTreeMap<(usize, usize), Instance>) -> Vec<Change> {
    let key_of = |service: usize, id: usize| {
        let (namespace, name) = SERVICES[service];
        parse::instance_key(namespace, name, &format!("i{id}")).expect("a key")
    };
    match *act {
        Act::Put { service: of, id, language, region } => {
            let language = ["python", "go", "rust"][language];
            let spec = spec(language, language, ["eu", "us"][region], &format!("Speaks {language}"));
            let key = key_of(of, id);
            let instance = Instance::new(key.clone(), Incarnation(1), LeaseId(1), spec.into(), UnixMillis(1));
            known.insert((of, id), instance.clone());
            let put = Change { key: Key::Instance(key), record: Some(Record::Instance(instance.into())) };
            vec![service(SERVICES[of].0, SERVICES[of].1), put]
        }
        Act::Drain { service, id } => {
            let Some(instance) = known.get_mut(&(service, id)) else { return Vec::new() };
            instance.drain = Some(Drain { since: UnixMillis(1), time: Duration::from_secs(1) });
            let record = Some(Record::Instance(instance.clone().into()));
            vec![Change { key: Key::Instance(key_of(service, id)), record }]
        }
        Act::Remove { service, id } => {
            known.remove(&(service, id));
            vec![Change { key: Key::Instance(key_of(service, id)), record: None }]
        }
        Act::RemoveService(of) => {
            known.retain(|(service, _), _| *service != of);
            let key = parse::service_key(SERVICES[of].0, SERVICES[of].1).expect("a key");
            vec![Change { key: Key::Service(key), record: None }]
        }
        Act::Look => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn index_scan_and_pages_agree(acts in prop::collection::vec(act(), 1..60), page_size in 1usize..5) {
        let (mut state, mut index) = (State::default(), Index::default());
        let mut known = BTreeMap::new();
        for (revision, act) in (1u64..).zip(acts) {
            let changes = changes_of(&act, &mut known);
            if !matches!(act, Act::Look) {
                state.apply(Commit::new(Revision(revision), changes), UnixMillis(revision));
                continue;
            }
            let snapshot = Arc::new(state.snapshot().clone());
            for text in FILTERS {
                for namespace in [None, Some("shop")] {
                    let namespace = namespace.map(|name| Namespace::parse("", name).expect("a name"));
                    let question = Question { namespace, ..question(text) };
                    let expected = plain(&snapshot, &question);
                    prop_assert_eq!(by_index(&mut index, &snapshot, &question), expected.clone(), "{}", text);
                    prop_assert_eq!(by_pages(&snapshot, &question, page_size), expected, "{}", text);
                }
            }
            // Words find those who say them.
            let slots: Vec<u32> = index.text().search("python").flat_map(|(_, slots)| slots.iter()).collect();
            let mut speak: Vec<InstanceKey> =
                slots.iter().filter_map(|slot| Some(index.at(*slot)?.value.key.clone())).collect();
            speak.sort();
            prop_assert_eq!(speak, plain(&snapshot, &question(FILTERS[0])));
        }
    }
}
