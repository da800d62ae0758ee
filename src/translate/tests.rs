//! Resources as a client reads them, from states made by commands.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster,
    core::v3::HealthStatus,
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
    listener::v3::Listener,
    route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
};
use prost::Message;

use super::{names::OUTBOUND, *};
use crate::{
    model::{
        Drain, Exports, Failover, Incarnation, Instance, InstanceSpec, Lease, LeaseId, Locality, Override,
        OverrideHealth, Port, PortName, Protocol, ReplicaId, Revision, Service, ServicePort, UnixMillis, parse,
    },
    registry::state::State,
    storage::{Key, Record},
};

struct Given {
    records: Vec<(Key, Revision, Record)>,
}

impl Given {
    fn new() -> Self {
        let lease = Lease { ttl: Duration::from_secs(30), incarnation: Incarnation(1), owner: ReplicaId::ONLY };
        Self { records: vec![(Key::Lease(LeaseId(1)), Revision(1), Record::Lease(lease))] }
    }

    /// `web.shop` with its ports; the first is the default one.
    fn service(self, name: &str, ports: &[(&str, u16, Protocol)]) -> Self {
        self.service_with(name, ports, |_| ())
    }

    fn service_with(mut self, name: &str, ports: &[(&str, u16, Protocol)], change: impl FnOnce(&mut Service)) -> Self {
        let (name, namespace) = name.split_once('.').unwrap_or((name, ""));
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, number, protocol)| (port_name(name), ServicePort { protocol: *protocol, number: *number }))
            .collect();
        let mut service = Service::new(ports[0].0.clone());
        service.ports.extend(ports);
        service.exports.all = true;
        change(&mut service);
        let key = Key::Service(parse::service_key(namespace, name).expect("a key"));
        self.records.push((key, Revision(1), Record::Service(Arc::new(service))));
        self
    }

    fn instance(mut self, service: &str, id: &str, change: impl FnOnce(&mut Instance)) -> Self {
        let (name, namespace) = service.split_once('.').unwrap_or((service, ""));
        let key = parse::instance_key(namespace, name, id).expect("a key");
        let host = u8::try_from(self.records.len()).expect("few");
        let spec = InstanceSpec {
            address: [10, 0, 0, host].into(),
            ports: [Port { name: port_name("http"), number: 8080, protocol: Protocol::Http }].into(),
            weight: 100,
            ready: true,
            labels: Default::default(),
            capabilities: Arc::default(),
            locality: Arc::default(),
            sla: Arc::default(),
            description: "".into(),
            card: None,
        };
        let mut instance = Instance::new(key.clone(), Incarnation(1), LeaseId(1), Arc::new(spec), UnixMillis(1));
        instance.was_ready = true;
        change(&mut instance);
        self.records.push((Key::Instance(key), Revision(2), Record::Instance(Arc::new(instance))));
        self
    }

    fn snapshot(self) -> Snapshot {
        State::load(Revision(2), self.records, UnixMillis(1)).0.snapshot().clone()
    }
}

fn spec(instance: &mut Instance) -> &mut InstanceSpec {
    Arc::make_mut(&mut instance.spec)
}

fn ports(instance: &mut Instance) -> &mut [Port] {
    Arc::make_mut(&mut spec(instance).ports)
}

fn port_name(name: &str) -> PortName {
    PortName::parse("", name).expect("a label")
}

fn built(kind: ResourceType, name: &str, scope: Scope, snapshot: &Snapshot) -> Option<Vec<u8>> {
    build(&ResourceKey { kind, name: name.into(), scope }, snapshot).map(|built| built.bytes)
}

fn assignment(name: &str, snapshot: &Snapshot) -> ClusterLoadAssignment {
    let bytes = built(ResourceType::Endpoint, name, Scope::Shared, snapshot).expect("an assignment");
    ClusterLoadAssignment::decode(&*bytes).expect("valid")
}

/// Address and port, status, weight.
fn endpoint(endpoint: &LbEndpoint) -> (String, &'static str, u32) {
    use envoy_types::pb::envoy::config::core::v3::{address, socket_address::PortSpecifier};
    let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else { panic!("an endpoint") };
    let Some(address::Address::SocketAddress(socket)) = host.address.as_ref().and_then(|a| a.address.as_ref()) else {
        panic!("a socket address")
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("a number") };
    let weight = endpoint.load_balancing_weight.as_ref().map_or(0, |weight| weight.value);
    (format!("{}:{port}", socket.address), endpoint.health_status().as_str_name(), weight)
}

const HTTP: &[(&str, u16, Protocol)] = &[("http", 80, Protocol::Http)];

#[test]
fn endpoints_by_verdict_and_weight() {
    type Change = fn(&mut Instance);
    let table: [(&str, Change, Option<&str>); 6] = [
        ("healthy", |_| {}, Some("HEALTHY")),
        (
            "draining",
            |i| i.drain = Some(Drain { since: UnixMillis(1), time: Duration::from_secs(1) }),
            Some("DRAINING"),
        ),
        (
            "starting",
            |i| {
                spec(i).ready = false;
                i.was_ready = false;
            },
            None,
        ),
        ("unhealthy", |i| spec(i).ready = false, None),
        ("weight 0", |i| spec(i).weight = 0, None),
        ("another port", |i| ports(i)[0].name = port_name("other"), None),
    ];
    for (case, change, expected) in table {
        let snapshot = Given::new().service("web", HTTP).instance("web", "1", change).snapshot();
        let assignment = assignment("web", &snapshot);
        let found: Vec<_> = assignment.endpoints.iter().flat_map(|group| &group.lb_endpoints).map(endpoint).collect();
        assert_eq!(found.first().map(|found| found.1), expected, "{case}");
    }
}

#[test]
fn an_endpoints_weight_is_exactly_its_own_and_a_localitys_the_sum() {
    let zone = |zone: &str| Arc::new(Locality { region: "r".into(), zone: zone.into(), sub_zone: String::new() });
    let snapshot = Given::new()
        .service("web", HTTP)
        .instance("web", "1", |i| (spec(i).weight, spec(i).locality) = (65_535, zone("b")))
        .instance("web", "2", |i| (spec(i).weight, spec(i).locality) = (1, zone("b")))
        .instance("web", "3", |i| (spec(i).weight, spec(i).locality) = (7, zone("a")))
        .snapshot();
    let assignment = assignment("web", &snapshot);
    assert_eq!(assignment.cluster_name, "web");
    let groups: Vec<_> = assignment
        .endpoints
        .iter()
        .map(|group| {
            let zone = group.locality.as_ref().map(|locality| locality.zone.clone()).unwrap_or_default();
            let weights: Vec<u32> = group.lb_endpoints.iter().map(|found| endpoint(found).2).collect();
            (zone, group.load_balancing_weight.as_ref().map(|weight| weight.value), weights, group.priority)
        })
        .collect();
    let expected = [("a".to_owned(), Some(7), vec![7], 0), ("b".to_owned(), Some(65_536), vec![65_535, 1], 0)];
    assert_eq!(groups, expected);
}

#[test]
fn rule_53_a_known_service_without_endpoints_is_an_empty_assignment() {
    let snapshot = Given::new().service("web", HTTP).snapshot();
    assert_eq!(assignment("web", &snapshot).endpoints, []);
    assert_eq!(built(ResourceType::Endpoint, "unknown", Scope::Shared, &snapshot), None);
}

#[test]
fn rule_55_each_port_has_a_cluster_and_an_assignment_of_its_own() {
    let ports = [("http", 80, Protocol::Http), ("admin", 81, Protocol::Http)];
    let snapshot = Given::new()
        .service("web.shop", &ports)
        .instance("web.shop", "1", |i| {
            let admin = Port { name: port_name("admin"), number: 9090, protocol: Protocol::Http };
            spec(i).ports = spec(i).ports.iter().cloned().chain([admin]).collect();
        })
        .snapshot();
    let view = View { namespace: Namespace::default(), outbound: None, imports: None, grpc: false };
    let names = view.wildcard(ResourceType::Cluster, &snapshot);
    assert_eq!(names, ["web.shop:admin".into(), "web.shop".into()]);
    for (name, port) in [("web.shop", 8080), ("web.shop:admin", 9090)] {
        assert!(built(ResourceType::Cluster, name, Scope::Shared, &snapshot).is_some(), "{name}");
        let found = endpoint(&assignment(name, &snapshot).endpoints[0].lb_endpoints[0]).0;
        assert!(found.ends_with(&format!(":{port}")), "{name}: {found}");
    }
    for other in ["web", "web.shop:http", "web.shop:none"] {
        assert_eq!(built(ResourceType::Cluster, other, Scope::Shared, &snapshot), None, "{other}");
        assert_eq!(built(ResourceType::Endpoint, other, Scope::Shared, &snapshot), None, "{other}");
    }
}

#[test]
fn a_cluster_says_how_to_talk_and_nothing_of_who_is_there() {
    let cluster = |protocol, instances| {
        let mut given = Given::new().service("web", &[("main", 80, protocol)]);
        for id in 0..instances {
            given = given.instance("web", &id.to_string(), |_| {});
        }
        let snapshot = given.snapshot();
        let bytes = built(ResourceType::Cluster, "web", Scope::Shared, &snapshot).expect("a cluster");
        Cluster::decode(&*bytes).expect("valid")
    };
    assert_eq!(cluster(Protocol::Http, 0), cluster(Protocol::Http, 3));
    assert_eq!(cluster(Protocol::Http2, 0), cluster(Protocol::Grpc, 0));
    assert_ne!(cluster(Protocol::Http, 0), cluster(Protocol::Grpc, 0));
    let tcp = cluster(Protocol::Tcp, 0);
    assert!(tcp.typed_extension_protocol_options.is_empty());
    let balancing = tcp.common_lb_config.expect("settings");
    assert_eq!(balancing.healthy_panic_threshold.map(|percent| percent.value), Some(0.0));
    assert_eq!(balancing.update_merge_window.map(|window| (window.seconds, window.nanos)), Some((0, 0)));
    assert!(tcp.ignore_health_on_host_removal);
    // The version is a hash of the bytes: no map may have two entries, which encode in random order.
    assert!(cluster(Protocol::Http, 0).typed_extension_protocol_options.len() == 1);
}

fn routes(namespace: &str, snapshot: &Snapshot) -> RouteConfiguration {
    let scope = Scope::Routes(Namespace::parse("", namespace).expect("a label"), None);
    let bytes = built(ResourceType::Route, OUTBOUND, scope, snapshot).expect("routes");
    RouteConfiguration::decode(&*bytes).expect("valid")
}

fn mesh() -> Snapshot {
    Given::new()
        .service("web", &[("http", 80, Protocol::Http), ("admin", 81, Protocol::Http), ("raw", 82, Protocol::Tcp)])
        .service("web.shop", HTTP)
        .service("db", &[("sql", 5432, Protocol::Tcp)])
        .snapshot()
}

#[test]
fn hosts_lead_to_clusters_as_seen_from_a_namespace() {
    let hosts = |namespace| -> Vec<(String, Vec<String>)> {
        let hosts = routes(namespace, &mesh()).virtual_hosts.into_iter();
        hosts.map(|host| (host.name, host.domains)).collect()
    };
    let web = ["web", "web:*", "web.default", "web.default:*", "http.web.default", "http.web.default:*"];
    let admin = ["web:81", "web.default:81", "admin.web.default", "admin.web.default:*"];
    let shop = ["web.shop", "web.shop:*", "http.web.shop", "http.web.shop:*"];
    let strings = |domains: &[&str]| domains.iter().map(|domain| (*domain).to_owned()).collect::<Vec<_>>();
    let expected = [("web:admin", strings(&admin)), ("web", strings(&web)), ("web.shop", strings(&shop))]
        .map(|(n, d)| (n.to_owned(), d));
    assert_eq!(hosts("default"), expected);
    // Seen from the shop, its own service has the short name.
    let from_shop = hosts("shop");
    assert!(from_shop[2].1.contains(&"web".to_owned()) && !from_shop[1].1.contains(&"web".to_owned()));
}

#[test]
fn a_domain_stands_once_and_a_route_leads_to_a_cluster_there_is() {
    let snapshot = mesh();
    for namespace in ["default", "shop", "other"] {
        let routes = routes(namespace, &snapshot);
        let mut domains = BTreeSet::new();
        for host in &routes.virtual_hosts {
            for domain in &host.domains {
                assert!(domains.insert(domain.clone()), "{domain} stands twice from {namespace}");
            }
            let Some(Action::Route(action)) = &host.routes[0].action else { panic!("a route") };
            let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else { panic!("a cluster") };
            assert!(built(ResourceType::Cluster, cluster, Scope::Shared, &snapshot).is_some(), "{cluster}");
        }
        // What a resource says it leads to is what its routes lead to.
        let scope = Scope::Routes(Namespace::parse("", namespace).expect("a label"), None);
        let key = ResourceKey { kind: ResourceType::Route, name: OUTBOUND.into(), scope };
        let clusters: Vec<String> =
            build(&key, &snapshot).expect("routes").clusters.iter().map(ToString::to_string).collect();
        let hosts: Vec<String> = routes.virtual_hosts.iter().map(|host| host.name.clone()).collect();
        assert_eq!(clusters, hosts);
    }
}

#[test]
fn ports_of_one_number_do_not_share_a_domain() {
    let ports =
        [("a", 80, Protocol::Http), ("b", 80, Protocol::Http), ("c", 90, Protocol::Http), ("d", 90, Protocol::Http)];
    let snapshot = Given::new().service("web", &ports).snapshot();
    let domains: Vec<String> =
        routes("default", &snapshot).virtual_hosts.into_iter().flat_map(|host| host.domains).collect();
    let unique: BTreeSet<&String> = domains.iter().collect();
    assert_eq!(unique.len(), domains.len(), "{domains:?}");
    assert!(domains.contains(&"web:90".to_owned()) && !domains.contains(&"web:80".to_owned()));
}

#[test]
fn an_api_listener_is_answered_by_name() {
    let snapshot = mesh();
    let listener = |name: &str, namespace: &str| {
        let scope = Scope::Namespace(Namespace::parse("", namespace).expect("a label"));
        let key = ResourceKey { kind: ResourceType::Listener, name: name.into(), scope };
        build(&key, &snapshot)
    };
    for (name, namespace, cluster) in [
        ("web", "default", "web"),
        ("web", "shop", "web.shop"),
        ("web.shop", "default", "web.shop"),
        ("web:81", "default", "web:admin"),
        ("web:1234", "default", "web"),
        ("admin.web.default", "shop", "web:admin"),
    ] {
        let built = listener(name, namespace).expect(name);
        assert_eq!(built.clusters, [cluster.into()], "{name} from {namespace}");
        let listener = Listener::decode(&*built.bytes).expect("valid");
        assert_eq!(listener.name, name);
        assert!(listener.api_listener.is_some() && listener.address.is_none());
    }
    for name in ["db", "web:82", "none", "a.b.c.d", "convoy/outbound"] {
        assert_eq!(listener(name, "default"), None, "{name}");
    }
}

#[test]
fn the_outbound_listener_listens_where_the_proxy_says() {
    let address: SocketAddr = "127.0.0.1:15001".parse().expect("an address");
    let view = View { namespace: Namespace::default(), outbound: Some(address), imports: None, grpc: false };
    assert_eq!(view.wildcard(ResourceType::Listener, &mesh()), [OUTBOUND.into()]);
    let key = view.key(ResourceType::Listener, &OUTBOUND.into());
    let listener = Listener::decode(&*build(&key, &mesh()).expect("a listener").bytes).expect("valid");
    assert_eq!(listener.name, OUTBOUND);
    let without = View { outbound: None, ..view };
    assert!(without.wildcard(ResourceType::Listener, &mesh()).is_empty());
    assert_eq!(build(&without.key(ResourceType::Listener, &OUTBOUND.into()), &mesh()), None);
}

#[test]
fn rule_64_endpoints_have_a_stable_order_and_no_metadata() {
    let zone = |zone: &str| Arc::new(Locality { zone: zone.into(), ..Locality::default() });
    // Registered in one order and in another.
    let assignments = [["1", "2", "3"], ["3", "1", "2"]].map(|ids| {
        let given = ids.into_iter().fold(Given::new().service("web", HTTP), |given, id| {
            given.instance("web", id, |i| {
                spec(i).address = format!("10.0.0.{id}").parse().expect("an address");
                spec(i).labels = [("version", id)].into();
                spec(i).locality = zone(if id == "1" { "b" } else { "a" });
            })
        });
        assignment("web", &given.snapshot())
    });
    assert_eq!(assignments[0], assignments[1]);
    let endpoints = || assignments[0].endpoints.iter().flat_map(|group| &group.lb_endpoints);
    let addresses: Vec<String> = endpoints().map(|found| endpoint(found).0).collect();
    assert_eq!(addresses, ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.1:8080"]);
    assert!(endpoints().all(|found| found.metadata.is_none()));
}

#[test]
fn rule_60_nothing_that_is_generated_has_a_ttl() {
    let snapshot = mesh();
    let view =
        View { namespace: Namespace::default(), outbound: "127.0.0.1:1".parse().ok(), imports: None, grpc: false };
    for (kind, name) in [
        (ResourceType::Cluster, "web"),
        (ResourceType::Endpoint, "web"),
        (ResourceType::Listener, OUTBOUND),
        (ResourceType::Listener, "web"),
        (ResourceType::Route, OUTBOUND),
    ] {
        let built = build(&view.key(kind, &name.into()), &snapshot).expect(name);
        assert_eq!(built.ttl, None, "{name}");
    }
    let assignment = assignment("web", &snapshot);
    assert!(assignment.policy.is_none_or(|policy| policy.endpoint_stale_after.is_none()));
}

#[test]
fn rule_45_the_same_state_is_the_same_bytes() {
    let snapshot = || {
        let ports = [("http", 80, Protocol::Http), ("admin", 81, Protocol::Grpc)];
        let mut given = Given::new().service("web", &ports).service("api", HTTP);
        for id in 0..20 {
            given = given.instance("web", &id.to_string(), |i| {
                spec(i).locality = Arc::new(Locality { zone: (id % 3).to_string(), ..Locality::default() });
            });
        }
        given.snapshot()
    };
    let (first, second) = (snapshot(), snapshot());
    let view =
        View { namespace: Namespace::default(), outbound: "127.0.0.1:1".parse().ok(), imports: None, grpc: false };
    for (kind, name) in [
        (ResourceType::Cluster, "web"),
        (ResourceType::Cluster, "web:admin"),
        (ResourceType::Endpoint, "web"),
        (ResourceType::Listener, OUTBOUND),
        (ResourceType::Listener, "web"),
        (ResourceType::Route, OUTBOUND),
    ] {
        let key = view.key(kind, &name.into());
        assert_eq!(build(&key, &first), build(&key, &second), "{name}");
        assert!(build(&key, &first).is_some(), "{name}");
    }
}

#[test]
fn a_proxy_sees_its_own_namespace_and_what_is_exported_to_it() {
    let namespace = |name: &str| Namespace::parse("", name).expect("a label");
    let imports = |names: &[&str]| {
        let imports = Imports::parse("imports", names.iter().copied(), &namespace("shop")).expect("names");
        Some(Arc::new(imports))
    };
    let port = [("http", 80, Protocol::Http)];
    let mut snapshot =
        Given::new().service("web.shop", &port).service("cart.shop", &port).service("api", &port).snapshot();
    let mut export = |to: Exports| {
        let key = parse::service_key("default", "api").expect("a key");
        let state = Arc::make_mut(snapshot.services.get_mut(&key).expect("a service"));
        let service = Service { exports: to, ..Service::clone(&state.service.value) };
        state.service.value = Arc::new(service);
        snapshot.clone()
    };
    let to = |name: &str| Exports { namespaces: [namespace(name)].into(), all: false };
    for (exports, imports, clusters) in [
        (Exports::default(), None, vec!["cart.shop", "web.shop"]),
        (to("shop"), None, vec!["api", "cart.shop", "web.shop"]),
        (to("lab"), None, vec!["cart.shop", "web.shop"]),
        (to("shop"), imports(&["cart", "api.default"]), vec!["api", "cart.shop"]),
        (to("lab"), imports(&["cart", "api.default"]), vec!["cart.shop"]),
        (to("shop"), imports(&[]), vec![]),
    ] {
        let snapshot = export(exports.clone());
        let view = View { namespace: namespace("shop"), outbound: None, imports: imports.clone(), grpc: false };
        assert_eq!(
            view.wildcard(ResourceType::Cluster, &snapshot),
            clusters.iter().copied().map(Arc::from).collect::<Vec<_>>()
        );
        let routes = build(&view.key(ResourceType::Route, &OUTBOUND.into()), &snapshot).expect("routes");
        let led: BTreeSet<&str> = routes.clusters.iter().map(|name| &**name).collect();
        assert_eq!(led, clusters.into_iter().collect(), "{exports:?} {imports:?}");
        // What is not imported may be named still; what is not exported may not.
        let api = build(&view.key(ResourceType::Cluster, &"api".into()), &snapshot).expect("a cluster");
        let (service, exports) = api.service.expect("whose it is");
        assert_eq!(view.sees(&service, &exports), exports.include(&view.namespace));
    }
}

/// Each endpoint's priority and status, by id.
fn seen(snapshot: &Snapshot, locality: Option<(&str, &str)>, grpc: bool) -> Vec<(String, u32, HealthStatus)> {
    let at = |(region, zone): (&str, &str)| {
        Arc::new(Locality { region: region.into(), zone: zone.into(), ..Locality::default() })
    };
    let scope = Vantage { locality: locality.map(at), grpc }.scope();
    let bytes = built(ResourceType::Endpoint, "web", scope, snapshot).expect("an assignment");
    let assignment = ClusterLoadAssignment::decode(&*bytes).expect("valid");
    let factor = assignment.policy.and_then(|policy| policy.overprovisioning_factor).map(|factor| factor.value);
    assert_eq!(factor.is_some(), locality.is_some(), "the policy goes with the priorities");
    let mut seen: Vec<_> = assignment
        .endpoints
        .iter()
        .flat_map(|group| group.lb_endpoints.iter().map(move |endpoint| (group.priority, endpoint)))
        .map(|(priority, endpoint)| {
            let status = HealthStatus::try_from(endpoint.health_status).expect("known");
            (format!("{:?}", endpoint.host_identifier), priority, status)
        })
        .collect();
    seen.sort();
    for (index, one) in seen.iter_mut().enumerate() {
        one.0 = (index + 1).to_string();
    }
    seen
}

#[test]
fn failover_goes_by_distance_without_gaps() {
    use HealthStatus::{Degraded, Healthy};
    let at = |region: &str, zone: &str| {
        Arc::new(Locality { region: region.into(), zone: zone.into(), ..Locality::default() })
    };
    let degraded = |i: &mut Instance| {
        let operator = Override { health: OverrideHealth::Degraded, reason: "".into(), since: UnixMillis(1) };
        i.operator = Some(Arc::new(operator));
    };
    let failover = Some(Failover { overprovisioning_factor: 140 });
    let snapshot = Given::new()
        .service_with("web", &[("http", 80, Protocol::Http)], |service| service.failover = failover)
        .instance("web", "1", |i| spec(i).locality = at("eu", "a"))
        .instance("web", "2", |i| spec(i).locality = at("eu", "b"))
        .instance("web", "3", |i| spec(i).locality = at("us", "a"))
        .instance("web", "4", |i| {
            spec(i).locality = at("eu", "a");
            degraded(i);
        })
        .snapshot();
    for (from, grpc, expected) in [
        (None, false, [(0, Healthy), (0, Healthy), (0, Healthy), (0, Degraded)]),
        (Some(("eu", "a")), false, [(0, Healthy), (1, Healthy), (2, Healthy), (0, Degraded)]),
        (Some(("eu", "b")), false, [(1, Healthy), (0, Healthy), (2, Healthy), (1, Degraded)]),
        (Some(("us", "a")), false, [(1, Healthy), (1, Healthy), (0, Healthy), (1, Degraded)]),
        (Some(("ap", "x")), false, [(0, Healthy), (0, Healthy), (0, Healthy), (0, Degraded)]),
        (None, true, [(0, Healthy), (0, Healthy), (0, Healthy), (1, Healthy)]),
        (Some(("eu", "a")), true, [(0, Healthy), (1, Healthy), (2, Healthy), (3, Healthy)]),
    ] {
        let seen: Vec<_> =
            seen(&snapshot, from, grpc).into_iter().map(|(_, priority, status)| (priority, status)).collect();
        assert_eq!(seen, expected, "{from:?} {grpc}");
    }
}

#[test]
fn a_virtual_service_is_made_of_those_that_match() {
    let selector = |text: &str| parse::selector("selector", text).expect(text);
    let python = |i: &mut Instance| spec(i).labels = [("language", "python")].into();
    let snapshot = Given::new()
        .service("web", &[("http", 80, Protocol::Http), ("grpc", 81, Protocol::Grpc)])
        .service("api", &[("web", 80, Protocol::Http)])
        .service_with("snakes", &[("http", 80, Protocol::Http)], |service| {
            service.selector = selector("instance.labels.language == 'python'");
        })
        .instance("web", "1", python)
        .instance("web", "2", |_| {})
        .instance("api", "1", |i| {
            python(i);
            ports(i)[0].name = port_name("web");
        })
        .snapshot();
    let bytes = built(ResourceType::Endpoint, "snakes", Scope::Shared, &snapshot).expect("an assignment");
    let assignment = ClusterLoadAssignment::decode(&*bytes).expect("valid");
    let count: usize = assignment.endpoints.iter().map(|group| group.lb_endpoints.len()).sum();
    assert_eq!(count, 2, "one by the port's name, one by its only port of the protocol");
    assert!(built(ResourceType::Cluster, "snakes", Scope::Shared, &snapshot).is_some());
    let routes = built(ResourceType::Route, OUTBOUND, Scope::Routes(Namespace::default(), None), &snapshot);
    let routes = String::from_utf8_lossy(&routes.expect("routes")).into_owned();
    assert!(routes.contains("snakes"), "it has a host name");
}

#[test]
fn what_is_not_said_is_near_to_nobody() {
    for (from, to, priority) in [
        (("", "a"), ("us", "a"), 0),
        (("eu", "a"), ("", "a"), 0),
        (("eu", "a"), ("us", "a"), 2),
        (("", "a"), ("", ""), 2),
        (("", "a"), ("", "b"), 2),
        (("eu", ""), ("eu", ""), 1),
        (("eu", ""), ("eu", "a"), 1),
        (("eu", ""), ("", ""), 2),
    ] {
        let at =
            |(region, zone): (&str, &str)| Locality { region: region.into(), zone: zone.into(), ..Locality::default() };
        assert_eq!(eds::distance(&at(from), &at(to)), priority, "{from:?} to {to:?}");
    }
}

#[test]
fn a_grpc_client_hears_nothing_of_the_draining() {
    let snapshot = Given::new()
        .service("web", &[("http", 80, Protocol::Http)])
        .instance("web", "1", |_| {})
        .instance("web", "2", |i| i.drain = Some(Drain { since: UnixMillis(1), time: Duration::from_secs(15) }))
        .snapshot();
    let weight = |grpc: bool| {
        let scope = Vantage { locality: None, grpc }.scope();
        let bytes = built(ResourceType::Endpoint, "web", scope, &snapshot).expect("an assignment");
        let assignment = ClusterLoadAssignment::decode(&*bytes).expect("valid");
        let group = &assignment.endpoints[0];
        (group.lb_endpoints.len(), group.load_balancing_weight.map_or(0, |weight| weight.value))
    };
    assert_eq!((weight(false), weight(true)), ((2, 200), (1, 100)));
}

/// The endpoints of a virtual service over all that are given.
fn of_all(given: Given) -> Vec<(String, &'static str, u32)> {
    let all = parse::selector("selector", "true").expect("a selector");
    let snapshot =
        given.service_with("all", &[("http", 80, Protocol::Http)], |service| service.selector = all).snapshot();
    let groups = assignment("all", &snapshot).endpoints;
    groups.iter().flat_map(|group| &group.lb_endpoints).map(endpoint).collect()
}

#[test]
fn a_member_of_another_protocol_is_no_endpoint() {
    let given = Given::new().service("api", &[("http", 80, Protocol::Grpc)]).instance("api", "1", |i| {
        ports(i)[0].protocol = Protocol::Grpc;
    });
    assert_eq!(of_all(given), []);
}

#[test]
fn an_address_that_two_services_have_is_that_of_the_newest_who_can_be_told() {
    let same = |at: u64, weight: u16| {
        move |i: &mut Instance| {
            i.registered_at = UnixMillis(at);
            spec(i).address = [10, 0, 0, 99].into();
            spec(i).weight = weight;
        }
    };
    for (newest, told) in [(7, 7), (0, 3)] {
        let given = Given::new()
            .service("web", &[("http", 80, Protocol::Http)])
            .service("api", &[("http", 80, Protocol::Http)])
            .instance("web", "1", same(5, newest))
            .instance("api", "1", same(4, 3));
        let endpoints = of_all(given);
        assert_eq!(endpoints.iter().map(|(.., weight)| *weight).collect::<Vec<_>>(), [told], "{endpoints:?}");
    }
}
