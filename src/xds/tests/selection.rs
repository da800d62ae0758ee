//! Raw resources that are for some proxies only, told to streams while everything changes.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{
    model::{Limits, Namespace, Node, NodeSelector, RawKey, RawResource, ServiceKey, parse},
    registry::Registry,
    storage::memory::MemoryStore,
    telemetry::Metrics,
    translate::View,
    xds::{cache::Cache, view_catalog::ViewCatalog},
};

const ROUNDS: usize = 4000;

struct Mesh {
    runtime: tokio::runtime::Runtime,
    registry: Registry,
    cache: Arc<Cache>,
}

impl Mesh {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (store, opened) = MemoryStore::open("store".into());
        let start = async {
            Registry::start(Arc::new(store), opened, Limits::default().into(), Arc::new(Metrics::default())).0
        };
        let registry = runtime.block_on(start);
        let cache = Arc::new(Cache::new(registry.clone(), Readiness::Ready));
        Self { runtime, registry, cache }
    }

    /// A stream that follows all clusters and one assignment.
    fn stream(&self, bench: &mut Bench) -> ViewCatalog {
        static ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = ID.fetch_add(1, Ordering::Relaxed);
        let view = View { namespace: Namespace::default(), outbound: None, imports: None, grpc: false };
        let mut catalog = ViewCatalog::new(self.cache.clone(), &view, Arc::new(Node::default()), id);
        for (kind, names) in [(CDS, &[][..]), (EDS, &["web"])] {
            let request = DeltaDiscoveryRequest {
                type_url: kind.type_url().into(),
                resource_names_subscribe: strings(names),
                ..Default::default()
            };
            let received = bench.session.receive_incremental(request, bench.now, &catalog).expect("accepted");
            catalog.follow(&received.interest.expect("a known type"));
        }
        catalog
    }

    /// A variant for everybody comes, or goes.
    fn choose(&self, key: &RawKey, comes: bool) {
        self.write(key, comes);
        self.cache.raw_changed(&[key.clone()].into(), Revision(1));
    }

    /// The same, before anybody is told.
    fn write(&self, key: &RawKey, comes: bool) {
        let raw = RawResource { bytes: "raw".into(), selector: None, ttl: None };
        let written = async {
            match comes {
                true => self.registry.put_raw(key.clone(), raw).await,
                false => self.registry.delete_raw(key.clone()).await,
            }
        };
        self.runtime.block_on(written).expect("written");
    }
}

fn variant() -> RawKey {
    RawKey { kind: EDS, name: "web".into(), variant: "v".into() }
}

#[test]
fn a_stream_that_is_meant_otherwise_misses_no_change() {
    let (mesh, mut bench) = (Mesh::start(), Bench::new(Dialect::Incremental));
    let mut catalog = mesh.stream(&mut bench);
    // Others are there already, of either choice.
    let mut other = Bench::new(Dialect::Incremental);
    let _plain = mesh.stream(&mut other);
    mesh.choose(&variant(), true);
    let mut other = Bench::new(Dialect::Incremental);
    let _chosen = mesh.stream(&mut other);
    mesh.choose(&variant(), false);
    let service: ServiceKey = parse::service_key("default", "web").expect("a key");
    let (cache, mailbox, done) = (mesh.cache.clone(), catalog.mailbox.clone(), Arc::new(AtomicBool::new(false)));
    let changes = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                cache.service_changed(&service, &["web".into()].into(), Revision(1));
                missed += usize::from(!mailbox.take().names.contains_key(&(CDS, "web".into())));
            }
            missed
        }
    });
    for round in 0..ROUNDS {
        mesh.choose(&variant(), round % 2 == 0);
        catalog.reselect(&mut bench.session, Revision(1));
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(changes.join().expect("no panic"), 0, "changes that the stream was not told of");
    // Its own entries have moved with the view.
    catalog.mailbox.take();
    mesh.choose(&variant(), true);
    assert!(catalog.mailbox.look(|news| news.selection.is_some()));
    catalog.reselect(&mut bench.session, Revision(2));
    assert_eq!(*catalog.get(EDS, &"web".into()).expect("the variant").body(), *b"raw");
    catalog.mailbox.take();
    mesh.choose(&variant(), false);
    assert!(catalog.mailbox.look(|news| news.names.contains_key(&(EDS, "web".into()))), "it is gone");
}

#[test]
fn whom_a_variant_is_for_changes_at_once() {
    let mesh = Mesh::start();
    let key = |variant: &str| RawKey { kind: EDS, name: "web".into(), variant: variant.into() };
    let put = |variant: &str, selector: &str, bytes: &'static str| {
        let selector = (!selector.is_empty()).then(|| NodeSelector::parse("selector", selector).expect("a selector"));
        let raw = RawResource { bytes: bytes.into(), selector, ttl: None };
        mesh.runtime.block_on(mesh.registry.put_raw(key(variant), raw)).expect("written");
    };
    let follow = |id: &str| {
        let view = View { namespace: Namespace::default(), outbound: None, imports: None, grpc: false };
        let node = Arc::new(Node { id: id.into(), ..Node::default() });
        static ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_000);
        let mut catalog = ViewCatalog::new(mesh.cache.clone(), &view, node, ID.fetch_add(1, Ordering::Relaxed));
        let mut bench = Bench::new(Dialect::Incremental);
        let request = DeltaDiscoveryRequest {
            type_url: EDS.type_url().into(),
            resource_names_subscribe: strings(&["web"]),
            ..Default::default()
        };
        let received = bench.session.receive_incremental(request, bench.now, &catalog).expect("accepted");
        catalog.follow(&received.interest.expect("a known type"));
        catalog
    };
    let gets = |catalog: &ViewCatalog| {
        let resource = catalog.get(EDS, &"web".into()).expect("a resource");
        String::from_utf8(resource.body().to_vec()).expect("text")
    };
    put("", "", "for all");
    put("a", "node.id == 'one'", "for one");
    mesh.cache.raw_changed(&[key(""), key("a")].into(), Revision(8));
    let (one, two) = (follow("one"), follow("two"));
    assert_eq!((gets(&one), gets(&two)), ("for one".into(), "for all".into()));
    // The state has changed, and nobody has been told.
    put("a", "node.id == 'two'", "for two");
    let new = follow("two");
    assert_eq!((gets(&new), gets(&one), gets(&two)), ("for two".into(), "for all".into(), "for two".into()));
    // Who follows the variant is told all the same, though it was built before.
    new.mailbox.take();
    mesh.cache.raw_changed(&[key("a")].into(), Revision(9));
    assert!(new.mailbox.look(|news| news.names.contains_key(&(EDS, "web".into()))));
}

#[test]
fn a_variant_that_came_and_went_before_anybody_was_told_is_nobodys() {
    let (mesh, mut bench) = (Mesh::start(), Bench::new(Dialect::Incremental));
    mesh.write(&variant(), true);
    // It connects between the write and the fan-out's look, and is never told that the variant went.
    let catalog = mesh.stream(&mut bench);
    mesh.choose(&variant(), false);
    assert!(catalog.view.selection.is_empty(), "{:?}", catalog.view.selection);
    assert!(catalog.get(EDS, &"web".into()).is_none());
}

#[test]
fn nothing_is_kept_of_views_that_are_gone() {
    let mesh = Mesh::start();
    for port in 1..10 {
        let outbound = format!("127.0.0.1:{port}").parse().ok();
        let view = View { namespace: Namespace::default(), outbound, imports: None, grpc: false };
        let mut catalog = ViewCatalog::new(mesh.cache.clone(), &view, Arc::new(Node::default()), port);
        let mut bench = Bench::new(Dialect::Incremental);
        let request = DeltaDiscoveryRequest { type_url: LDS.type_url().into(), ..Default::default() };
        let received = bench.session.receive_incremental(request, bench.now, &catalog).expect("accepted");
        catalog.follow(&received.interest.expect("a known type"));
        bench.session.poll(bench.now, &catalog, Readiness::Ready).expect("its listener");
        assert_eq!(mesh.cache.slots(), 1);
    }
    assert_eq!(mesh.cache.slots(), 0);
}

#[test]
fn a_variant_that_goes_is_not_told_before_the_choice() {
    let (mesh, mut bench) = (Mesh::start(), Bench::new(Dialect::Incremental));
    let mut catalog = mesh.stream(&mut bench);
    let (mailbox, done) = (catalog.mailbox.clone(), Arc::new(AtomicBool::new(false)));
    let reader = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut early = 0;
            while !done.load(Ordering::Relaxed) {
                let is_early = |news: &crate::xds::index::News| !news.names.is_empty() && news.selection.is_none();
                early += usize::from(mailbox.look(is_early));
            }
            early
        }
    });
    for round in 0..ROUNDS {
        mesh.choose(&variant(), round % 2 == 0);
        catalog.mailbox.take();
        catalog.reselect(&mut bench.session, Revision(1));
        catalog.get(EDS, &"web".into());
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(
        reader.join().expect("no panic"),
        0,
        "looks at which the resource had gone, and nothing was in its place"
    );
}

#[test]
fn names_that_come_one_by_one_move_the_stream_seldom() {
    let (mesh, mut bench) = (Mesh::start(), Bench::new(Dialect::Incremental));
    let mut catalog = mesh.stream(&mut bench);
    for number in 0..4000 {
        let request = DeltaDiscoveryRequest {
            type_url: EDS.type_url().into(),
            resource_names_subscribe: vec![number.to_string()],
            ..Default::default()
        };
        let received = bench.session.receive_incremental(request, bench.now, &catalog).expect("accepted");
        catalog.follow(&received.interest.expect("a known type"));
    }
    assert!(mesh.cache.founded() < 250, "{} groups, each of as many names as there were", mesh.cache.founded());
}
