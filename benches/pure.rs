//! The pure parts: translating one service, and a session's step. `cargo bench --bench pure`.

use std::{hint::black_box, sync::Arc, time::Duration};

use convoy::{
    model::{
        Incarnation, Instance, InstanceSpec, Labels, Lease, LeaseId, Port, PortName, Protocol, ReplicaId, Revision,
        Service, ServicePort, UnixMillis, parse,
    },
    registry::state::{Snapshot, State},
    storage::{Key, Record},
    translate::{ResourceKey, ResourceType, Scope, build},
    xds::{
        protocol::{Catalog, Dialect, Features, Now, Readiness},
        resource::Resource,
        session::Session,
    },
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// One service with so many instances.
fn service(instances: u32) -> Snapshot {
    let port = PortName::parse("port", "http").expect("a label");
    let ports = [(port.clone(), ServicePort { protocol: Protocol::Http, number: 80 })].into();
    let definition = Service { ports, ..Service::new(port.clone()) };
    let key = parse::service_key("", "web").expect("a key");
    let lease = Lease { ttl: Duration::from_secs(30), incarnation: Incarnation(1), owner: ReplicaId::ONLY };
    let mut records = vec![
        (Key::Service(key), Revision(1), Record::Service(Arc::new(definition))),
        (Key::Lease(LeaseId(1)), Revision(1), Record::Lease(lease)),
    ];
    for number in 0..instances {
        let key = parse::instance_key("", "web", &format!("web-{number}")).expect("a key");
        let [_, a, b, c] = number.to_be_bytes();
        let spec = InstanceSpec {
            address: [10, a, b, c].into(),
            ports: [Port { name: port.clone(), number: 80, protocol: Protocol::Http }].into(),
            weight: 100,
            ready: true,
            labels: Labels::default(),
            capabilities: Arc::default(),
            locality: Arc::default(),
            sla: Arc::default(),
            description: "".into(),
            card: None,
        };
        let new = Instance::new(key.clone(), Incarnation(1), LeaseId(1), Arc::new(spec), UnixMillis(1));
        let instance = new.settled(None, UnixMillis(1));
        records.push((Key::Instance(key), Revision(1), Record::Instance(Arc::new(instance))));
    }
    State::load(Revision(1), records, UnixMillis(1)).0.snapshot().clone()
}

fn translate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate one service's assignment");
    for instances in [10, 1_000, 10_000] {
        let snapshot = service(instances);
        let key = ResourceKey { kind: ResourceType::Endpoint, name: "web".into(), scope: Scope::Shared };
        group.bench_function(BenchmarkId::from_parameter(instances), |bencher| {
            bencher.iter(|| build(black_box(&key), black_box(&snapshot)));
        });
    }
    group.finish();
}

/// Two versions of one assignment, of which one is on the shelf.
struct Shelf([Arc<Resource>; 2], usize);

impl Catalog for Shelf {
    fn get(&self, _: ResourceType, _: &Arc<str>) -> Option<Arc<Resource>> {
        Some(self.0[self.1].clone())
    }

    fn wildcard(&self, _: ResourceType) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn in_wildcard(&self, _: ResourceType, _: &str) -> bool {
        false
    }
}

/// A change of one resource among those subscribed: dirty, sent, ACKed.
fn session_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a session's step");
    let key = |name: &str| ResourceKey { kind: ResourceType::Endpoint, name: name.into(), scope: Scope::Shared };
    let resource = |instances| {
        let built = build(&key("web"), &service(instances)).expect("an assignment");
        Arc::new(Resource::new(ResourceType::Endpoint, "web".into(), built))
    };
    for subscribed in [1, 1_000] {
        let mut shelf = Shelf([resource(10), resource(11)], 0);
        let mut session = Session::new(Dialect::Incremental, None, Features::default());
        let now = || Now { at: tokio::time::Instant::now(), unix: UnixMillis(1) };
        let request = DeltaDiscoveryRequest {
            type_url: ResourceType::Endpoint.type_url().into(),
            resource_names_subscribe: (0..subscribed).map(|number| format!("web-{number}")).collect(),
            ..Default::default()
        };
        session.receive_incremental(request, now(), &shelf).expect("accepted");
        let mut nonce = 0;
        let mut step = move || {
            shelf.1 = 1 - shelf.1;
            session.mark_dirty(ResourceType::Endpoint, "web-0".into(), Revision(1));
            let response = session.poll(now(), &shelf, Readiness::Ready).expect("a response");
            nonce += 1;
            let ack = DeltaDiscoveryRequest {
                type_url: ResourceType::Endpoint.type_url().into(),
                response_nonce: nonce.to_string(),
                ..Default::default()
            };
            session.receive_incremental(ack, now(), &shelf).expect("accepted");
            response
        };
        step();
        group.bench_function(BenchmarkId::from_parameter(subscribed), |bencher| bencher.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, translate, session_step);
criterion_main!(benches);
