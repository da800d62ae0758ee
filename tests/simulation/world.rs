//! One history: a registry, its cache and its clients, and what happens to them.

use std::{sync::Arc, time::Duration};

use convoy::{
    model::{
        Exports, Incarnation, InstanceSpec, Limits, Locality, NodeSelector, Port, PortName, Protocol, RawKey,
        RawResource, ServicePatch, parse,
    },
    registry::{Registry, Settings, brake::BrakeConfig},
    storage::memory::MemoryStore,
    telemetry::Metrics,
    xds::{
        cache::Cache,
        fanout,
        protocol::{Dialect, Readiness},
        status::Proxies,
    },
};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use prost::Message;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use crate::{client::Client, trace::state, wall};

const NAMESPACES: [&str; 2] = ["default", "shop"];
/// Enough for clients to share what they ask for.
const SERVICES: [&str; 14] = ["web", "api", "cart", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
const CLIENTS: usize = 6;
/// What a client wants to be told of.
const IMPORTS: [Option<&[&str]>; 4] = [None, None, Some(&["web", "api.default"]), Some(&["*.shop"])];

pub struct World {
    random: StdRng,
    registry: Registry,
    cache: Arc<Cache>,
    proxies: Arc<Proxies>,
    clients: Vec<Client>,
    streams: u64,
}

impl World {
    pub async fn run(seed: u64, steps: usize) {
        let (store, opened) = MemoryStore::open("store".into());
        let limits = Limits { min_ttl_seconds: 0, ..Limits::default() };
        // Suspects are gone before the end: after two of the longest TTLs.
        let brake = BrakeConfig { longest: Duration::from_secs(1), ..BrakeConfig::default() };
        let settings = Settings { limits, brake };
        let (registry, running) = Registry::start(Arc::new(store), opened, settings, Arc::new(Metrics::default()));
        let cache = Arc::new(Cache::new(registry.clone(), Readiness::Ready));
        let fanout = tokio::spawn(fanout::run(cache.clone()));
        let random = StdRng::seed_from_u64(seed);
        let (proxies, clients) = Default::default();
        let mut world = Self { random, registry, cache, proxies, clients, streams: 0 };
        for _ in 0..steps {
            world.step().await;
            world.tell();
        }
        world.settle().await;
        world.tell();
        fanout.abort();
        running.abort();
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.random.random_range(0..items.len())]
    }

    async fn step(&mut self) {
        match self.random.random_range(0..21) {
            0..5 => self.register().await,
            5 => self.deregister().await,
            6 => self.drain().await,
            7 => self.delete_service().await,
            20 => wall::step(&mut self.random),
            10 => self.export().await,
            11 => self.write_or_delete().await,
            // Leases end, drains finish, routes are merged.
            8 => sleep(Duration::from_millis(self.random.random_range(1..400))).await,
            9 => self.join_or_return(),
            _ => self.exchange().await,
        }
        // The registry's and the fan-out's tasks have their turn.
        tokio::task::yield_now().await;
    }

    fn tell(&self) {
        state("what is registered", || self.registry.snapshot());
        state("what clients have", || self.clients.iter().map(Client::has).collect::<Vec<_>>());
    }

    /// Some more often than others.
    fn a_service(&mut self) -> (&'static str, &'static str) {
        let few = self.random.random_bool(0.6);
        let services = if few { &SERVICES[..2] } else { &SERVICES[..] };
        (self.one_of(&NAMESPACES), self.one_of(services))
    }

    async fn export(&mut self) {
        let (namespace, service) = self.a_service();
        let key = parse::service_key(namespace, service).expect("a key");
        let exports = Exports { all: self.random.random_bool(0.6), ..Exports::default() };
        let _ = self.registry.put_service(key, ServicePatch { exports: Some(exports), ..Default::default() }).await;
    }

    /// Clusters that somebody writes: in place of generated ones and beside them, for all or for some.
    async fn write_or_delete(&mut self) {
        let name = self.one_of(&["web", "api.shop", "extra"]);
        let (variant, selector) = self.one_of(&[("", ""), ("a", "node.id == 'shop'"), ("b", "true")]);
        let key = RawKey::parse("clusters", name, variant).expect("a key");
        if self.random.random_bool(0.4) {
            let _ = self.registry.delete_raw(key).await;
            return;
        }
        let said = format!("{variant}{}", self.random.random_range(0..3));
        let cluster = Cluster { name: name.into(), alt_stat_name: said, ..Cluster::default() };
        let selector = (!selector.is_empty()).then(|| NodeSelector::parse("selector", selector).expect("a selector"));
        let raw = RawResource { bytes: cluster.encode_to_vec().into(), selector, ttl: None };
        let _ = self.registry.put_raw(key, raw).await;
    }

    async fn register(&mut self) {
        let (namespace, service) = self.a_service();
        let id = self.random.random_range(0..4).to_string();
        let key = parse::instance_key(namespace, service, &id).expect("a key");
        let port = |name: &str, number| Port {
            name: PortName::parse("name", name).expect("a label"),
            number,
            protocol: Protocol::Http,
        };
        let mut ports = vec![port("http", 80)];
        if self.random.random_bool(0.2) {
            ports.push(port("admin", 81));
        }
        let spec = InstanceSpec {
            address: [10, 0, 0, self.random.random_range(1..6)].into(),
            ports: ports.into(),
            weight: self.random.random_range(0..3),
            ready: self.random.random_bool(0.8),
            labels: Default::default(),
            capabilities: Arc::default(),
            locality: Arc::new(Locality { zone: self.one_of(&["a", "b"]).into(), ..Locality::default() }),
            sla: Arc::default(),
            description: "".into(),
            card: None,
        };
        let ttl = Some(Duration::from_millis(self.random.random_range(50..3_000)));
        let incarnation = self.random.random_bool(0.3).then(|| Incarnation(self.random.random_range(1..1000)));
        // Refusals are part of the history.
        let _ = self.registry.register(None, ttl, incarnation, vec![(key, spec.into())]).await;
    }

    async fn deregister(&mut self) {
        let (namespace, service) = self.a_service();
        let id = self.random.random_range(0..4).to_string();
        let _ = self.registry.deregister(parse::instance_key(namespace, service, &id).expect("a key"), None).await;
    }

    async fn drain(&mut self) {
        let (namespace, service) = self.a_service();
        let id = self.random.random_range(0..4).to_string();
        let key = parse::instance_key(namespace, service, &id).expect("a key");
        let _ = self.registry.drain(key, None, Some(Duration::from_millis(200))).await;
    }

    async fn delete_service(&mut self) {
        let (namespace, service) = self.a_service();
        let _ = self.registry.delete_service(parse::service_key(namespace, service).expect("a key")).await;
    }

    fn join_or_return(&mut self) {
        self.streams += 1;
        if self.clients.len() < CLIENTS {
            let dialect = self.one_of(&[Dialect::StateOfTheWorld, Dialect::Incremental]);
            let namespace = self.one_of(&["default", "shop"]);
            let imports = self.one_of(&IMPORTS);
            let server = self.server();
            self.clients.push(Client::connect(self.streams, namespace, dialect, namespace, imports, server));
        } else {
            let client = self.random.random_range(0..CLIENTS);
            let server = self.server();
            self.clients[client].reconnect(self.streams, server);
        }
    }

    fn server(&self) -> (Arc<Cache>, Arc<Proxies>) {
        (self.cache.clone(), self.proxies.clone())
    }

    /// Some client takes some of what is there; others stay behind.
    async fn exchange(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let client = self.random.random_range(0..self.clients.len());
        for _ in 0..self.random.random_range(1..6) {
            self.clients[client].serve();
            if self.random.random_bool(0.7) {
                let refuse = self.random.random_bool(0.05);
                self.clients[client].take(refuse);
            }
        }
    }

    /// Nothing happens any more: in the end everybody has what there is.
    async fn settle(&mut self) {
        // All leases and drains are over, or hold for good; patience is at an end.
        self.quiet(Duration::from_secs(30)).await;
        for client in 0..self.clients.len() {
            if self.clients[client].has_refused {
                self.streams += 1;
                let server = self.server();
                self.clients[client].reconnect(self.streams, server);
            }
        }
        self.quiet(Duration::from_secs(30)).await;
        for client in &self.clients {
            client.check_view();
        }
    }

    async fn quiet(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            let mut busy = false;
            for client in &mut self.clients {
                busy |= client.serve();
                busy |= client.take(false);
            }
            if !busy {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
