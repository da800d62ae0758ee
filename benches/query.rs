//! Queries over 100 000 instances: by index under 5 ms, by scan under 200 ms, with a condition of three parts; by words;
//! one evaluation; what it takes to make an index, and to follow a change.

use std::{sync::Arc, time::Duration};

use convoy::{
    model::{
        Capability, Incarnation, Instance, InstanceSelector, InstanceSpec, Labels, Lease, LeaseId, Locality, Port,
        PortName, Protocol, ReplicaId, Revision, Service, Sla, UnixMillis, parse, selector::Knows,
    },
    registry::{
        Registry, Settings,
        query::{FacetField, Order, Queries, Question},
    },
    storage::{Key, Opened, Record, Storage, memory::MemoryStore},
    telemetry::Metrics,
};
use criterion::{Criterion, criterion_group, criterion_main};

const INSTANCES: usize = 100_000;
const SERVICES: usize = 1_000;
const LANGUAGES: [&str; 4] = ["python", "rust", "go", "java"];
const CAPABILITIES: [&str; 5] = ["image-processing", "summarise", "translate", "search", "speech"];
const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-west-1", "ap-south-1"];
/// All its parts are equalities that an index knows.
const BY_INDEX: &str = r#"instance.labels.language == "python" && instance.has_capability("image-processing") && instance.locality.region == "us-east-1""#;
/// None is.
const BY_SCAN: &str = r#"instance.labels.language.startsWith("py") && instance.capabilities.exists(c, c.name == "image-processing") && instance.locality.region != "eu-west-1""#;

fn capability(name: &str) -> Capability {
    Capability {
        name: name.into(),
        version: "2.1".into(),
        description: format!("Does {name} for those who need it").into(),
        attributes: Labels::default(),
    }
}

fn instance(index: usize) -> Instance {
    let key = parse::instance_key("", &format!("service-{}", index % SERVICES), &format!("i-{index}"));
    let mixed = index.wrapping_mul(2_654_435_761) >> 7;
    let region = REGIONS[mixed % 4];
    let address = u32::try_from(index).expect("few") + 0x0a00_0001;
    let spec = InstanceSpec {
        address: std::net::Ipv4Addr::from(address).into(),
        ports: [Port { name: PortName::parse("", "http").expect("a name"), number: 8080, protocol: Protocol::Http }]
            .into(),
        weight: 100,
        ready: true,
        labels: Labels::from([
            ("language", LANGUAGES[mixed / 4 % 4]),
            ("owner", ["search", "ads", "maps"][mixed / 16 % 3]),
            ("tier", ["gold", "silver"][mixed / 48 % 2]),
            ("version", ["1", "2", "3"][mixed / 96 % 3]),
            ("pod", &format!("pod-{index}")),
        ]),
        capabilities: [0, 2].map(|step| capability(CAPABILITIES[(mixed / 288 + step) % 5])).into(),
        locality: Arc::new(Locality { region: region.into(), zone: format!("{region}a"), sub_zone: String::new() }),
        sla: Arc::new(Sla { latency_p99: Some(Duration::from_millis(20)), ..Sla::default() }),
        description: "".into(),
        card: None,
    };
    Instance::new(key.expect("a key"), Incarnation(1), LeaseId(1), spec.into(), UnixMillis(1))
}

fn queries() -> Queries {
    let lease = Lease { ttl: Duration::from_secs(86_400), incarnation: Incarnation(1), owner: ReplicaId::ONLY };
    let mut records = vec![(Key::Lease(LeaseId(1)), Revision(1), Record::Lease(lease))];
    for index in 0..SERVICES {
        let key = Key::Service(parse::service_key("", &format!("service-{index}")).expect("a key"));
        let service = Service::new(PortName::parse("", "http").expect("a name"));
        records.push((key, Revision(1), Record::Service(service.into())));
    }
    let instances = (0..INSTANCES).map(|index| Arc::new(instance(index)));
    records.extend(instances.map(|one| (Key::Instance(one.key.clone()), Revision(1), Record::Instance(one))));
    let (store, opened) = MemoryStore::open("bench".into());
    let storage: Arc<dyn Storage> = Arc::new(store);
    let opened = Opened { revision: Revision(1), records, ..opened };
    let (registry, _) = Registry::start(storage, opened, Settings::default(), Arc::new(Metrics::default()));
    Queries::new(registry)
}

fn question(text: &str) -> Question {
    let filter = InstanceSelector::parse("filter", text, Knows::Load).expect("a condition");
    Question { filter: Some(filter), page_size: 100, count: true, ..Question::default() }
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let queries = runtime.block_on(async { queries() });
    let ask = |question: Question| runtime.block_on(queries.ask(question, Duration::from_secs(10))).expect("an answer");
    let (by_index, by_scan) = (question(BY_INDEX), question(BY_SCAN));

    let started = std::time::Instant::now();
    while !ask(by_index.clone()).by_index {}
    println!("the index was there after {:?}", started.elapsed());

    let mut group = criterion.benchmark_group("query_100k");
    group.sample_size(30);
    group.bench_function("by index", |bench| bench.iter(|| assert!(ask(by_index.clone()).by_index)));
    group.bench_function("by scan", |bench| bench.iter(|| assert!(!ask(by_scan.clone()).by_index)));
    let facets = vec![FacetField::parse("", "label:language").expect("a field"), FacetField::Zone];
    let counted = Question { facets, ..by_scan.clone() };
    group.bench_function("by scan, two facets", |bench| bench.iter(|| ask(counted.clone())));
    let by_load = Question { order: Order::Load, ..by_scan };
    group.bench_function("by scan, in the order of load", |bench| bench.iter(|| ask(by_load.clone())));
    let words = Question { text: "translate speech".into(), order: Order::Relevance, ..by_index };
    let started = std::time::Instant::now();
    ask(words.clone());
    println!("the first search by words took {:?}", started.elapsed());
    group.bench_function("by words and index", |bench| bench.iter(|| ask(words.clone())));
    group.finish();

    let one = instance(7);
    for (name, text) in [("three equalities", BY_INDEX), ("three others", BY_SCAN)] {
        let selector = InstanceSelector::parse("filter", text, Knows::Stored).expect("a condition");
        criterion.bench_function(&format!("selector/{name}"), |bench| bench.iter(|| selector.matches(&one, None)));
    }
    criterion.bench_function("selector/parse", |bench| {
        bench.iter(|| InstanceSelector::parse("filter", BY_INDEX, Knows::Stored));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
