//! After whatever has happened, Envoy holds what the registry says, no more and no less.
//!
//! The history is random, from a seed that is printed: `DRIFT_SEED=7 cargo test --test envoy drift` has the same again.

use std::{net::Ipv4Addr, time::Duration};

use convoy_client::{
    Agent, Protocol,
    proto::{
        DeleteServiceRequest, DeregisterRequest, DrainRequest, ExportTo, Instance, ListInstancesRequest,
        ListServicesRequest, PutServiceRequest, Service, ServicePort, Verdict,
    },
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    convoy::Convoy,
    dump::Held,
    envoy::{DELTA, Envoy, Host, SOTW},
    machine,
    wait::{PATIENCE, until},
};

const ROUNDS: usize = 4;
const STEPS: usize = 60;
const NAMESPACES: [&str; 2] = ["default", "shop"];
const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];
const INSTANCES: u8 = 6;
/// No lease ends and no drain is over meanwhile.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_holds_what_the_registry_says_after_any_history() {
    let _turn = machine::share().await;
    let seed = std::env::var("DRIFT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("DRIFT_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let convoy = Convoy::start().await;
    let envoys = [Envoy::start(&convoy, SOTW).await, Envoy::start(&convoy, DELTA).await];
    for round in 1..=ROUNDS {
        for _ in 0..STEPS {
            step(&convoy, &mut dice).await;
        }
        let (said, begun) = (said(&convoy).await, Instant::now());
        for envoy in &envoys {
            let what = format!("{} holds what is registered, in round {round} of DRIFT_SEED={seed}", envoy.node);
            until(&what, PATIENCE, async || match Held::of(envoy).await {
                held if held == said => Ok(()),
                held => Err(format!("{held:#?}\ninstead of {said:#?}")),
            })
            .await;
        }
        println!("round {round}: {} clusters, the same after {:?}", said.clusters.len(), begun.elapsed());
    }
    for envoy in &envoys {
        envoy.has_rejected_nothing().await;
        let stats = envoy.stats("^cluster_manager[.](cluster_|warming)").await;
        println!("{}: {stats:?}", envoy.node);
        assert_eq!(stats["cluster_manager.warming_clusters"], 0, "{stats:?}");
        assert_eq!(stats["cluster_manager.cluster_modified"], 0, "no history changes how a cluster is made: {stats:?}");
        assert!(stats["cluster_manager.cluster_updated"] > 0, "{stats:?}");
    }
}

/// Something happens. What the registry does not allow at the moment, such as draining nobody, does not.
async fn step(convoy: &Convoy, dice: &mut StdRng) {
    let client = convoy.client();
    let (namespace, service) = (one_of(&NAMESPACES, dice), one_of(&SERVICES, dice));
    let id = dice.random_range(0..INSTANCES).to_string();
    match dice.random_range(0..10) {
        0..5 => {
            let request = agent(convoy, &namespace, &service, &id, dice).into_request();
            client.register(request).await.expect("registered");
        }
        5..7 => drop(client.deregister(DeregisterRequest { namespace, service, id, ..Default::default() }).await),
        7 => {
            let drain_time = LONG.try_into().ok();
            drop(client.drain(DrainRequest { namespace, service, id, drain_time, ..Default::default() }).await);
        }
        8 => {
            let namespaces = if dice.random() { vec!["default".to_owned()] } else { Vec::new() };
            let export_to = Some(ExportTo { namespaces });
            let ports = vec![port("http", Protocol::Http, 80), port("admin", Protocol::Http, 81)];
            let request = PutServiceRequest { namespace, service, ports, export_to, ..Default::default() };
            client.put_service(request).await.expect("put");
        }
        _ => {
            for id in (0..INSTANCES).map(|id| id.to_string()) {
                let (namespace, service) = (namespace.clone(), service.clone());
                drop(client.deregister(DeregisterRequest { namespace, service, id, ..Default::default() }).await);
            }
            drop(client.delete_service(DeleteServiceRequest { namespace, service }).await);
        }
    }
}

fn one_of(names: &[&str], dice: &mut impl Rng) -> String {
    names[dice.random_range(0..names.len())].to_owned()
}

fn port(name: &str, protocol: Protocol, port: u32) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol: protocol.into(), port }
}

/// An instance somewhere, ready or not, of any weight, sometimes with a second port.
fn agent(convoy: &Convoy, namespace: &str, service: &str, id: &str, dice: &mut StdRng) -> convoy_client::AgentBuilder {
    let address = Ipv4Addr::new(10, dice.random(), dice.random(), dice.random_range(1..255));
    let agent = Agent::builder(convoy.server(), service).namespace(namespace).id(id).address(address.to_string());
    let agent = agent.ttl(LONG).weight(dice.random_range(0..4) * 50).ready(dice.random_ratio(4, 5));
    let agent = agent.port("http", 8080, Protocol::Http).locality("here", one_of(&["east", "west"], dice), "");
    if dice.random() { agent.port("admin", 9090, Protocol::Http) } else { agent }
}

/// What an Envoy in the namespace `default` is to hold, by what the registry lists.
async fn said(convoy: &Convoy) -> Held {
    let client = convoy.client();
    let services = client.list_services(ListServicesRequest::default()).await.expect("an answer").services;
    let mut said = Held::default();
    for service in services.iter().filter(|service| is_seen(service)) {
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        let request = ListInstancesRequest { namespace, service: name };
        let instances = client.list_instances(request).await.expect("an answer").instances;
        for port in &service.ports {
            add(service, port, &instances, &mut said);
        }
    }
    said
}

fn is_seen(service: &Service) -> bool {
    let exported = || service.export_to.as_ref().is_some_and(|to| to.namespaces.iter().any(|to| to == "default"));
    service.namespace == "default" || exported()
}

fn add(service: &Service, port: &ServicePort, instances: &[Instance], said: &mut Held) {
    let Service { namespace, name, default_port, .. } = service;
    let full = format!("{name}.{namespace}");
    let own = if namespace == "default" { name } else { &full };
    let is_default = port.name == *default_port;
    let cluster = if is_default { own.clone() } else { format!("{own}:{}", port.name) };
    let plain = [own, &full].into_iter().filter(|_| is_default).cloned();
    let hosts = plain.chain([format!("{}.{full}", port.name)]);
    said.routes.extend(hosts.map(|host| (host, cluster.clone())));
    let in_traffic = instances.iter().filter(|instance| instance.weight > 0);
    let hosts = in_traffic.filter_map(|instance| {
        let health = match instance.health.as_ref()?.verdict() {
            Verdict::Healthy => "HEALTHY",
            // So Envoy's dump has one that is draining: it tells only whether new requests go there.
            Verdict::Draining => "UNHEALTHY",
            _ => return None,
        };
        let port = instance.ports.iter().find(|of| of.name == port.name)?.port;
        let address = format!("{}:{port}", instance.address).parse().expect("an address");
        Some((address, Host { weight: instance.weight.into(), health: health.to_owned() }))
    });
    said.endpoints.insert(cluster.clone(), hosts.collect());
    said.clusters.insert(cluster);
}
