//! One table of refusals, held against both faces: the same call is refused with the same code, field, value and rule,
//! and each face has its own status for it.

use convoy_client::proto::{
    self, Capability, DeregisterRequest, DrainRequest, GetInstanceRequest, GetServiceRequest, HeartbeatRequest,
    LeaseHeartbeat, ListInstancesRequest, ListServicesRequest, Load, Locality, Protocol, PutServiceRequest,
    RegisterRequest, Registration, ServicePort, Sla,
};
use tonic::Code;

use crate::support::{
    api::{Api, Call, FACES, Face, RefusedStatus},
    sample::{call, instance, instances, port, seconds},
    server::Convoy,
};

const UNKNOWN_LEASE: &str = "0123456789abcdef0123456789abcdef";
const LABEL: &str = "DNS label";

/// A call, and its refusal: code, field, value, and what the rule says.
type Row = (Call, &'static str, &'static str, &'static str, &'static str);

fn invalid(call: Call, field: &'static str, value: &'static str, rule: &'static str) -> Row {
    (call, "invalid_argument", field, value, rule)
}

fn with(change: impl FnOnce(&mut Registration)) -> Call {
    let mut registration = instance("web", 1);
    change(&mut registration);
    Call::Register(call([registration]))
}

fn statuses(code: &str) -> (u16, Code) {
    match code {
        "invalid_argument" => (400, Code::InvalidArgument),
        "not_found" | "lease_not_found" => (404, Code::NotFound),
        "limit_reached" => (429, Code::ResourceExhausted),
        _ => (409, Code::FailedPrecondition),
    }
}

async fn check(api: &Api, rows: Vec<Row>) {
    for (call, code, field, value, rule) in rows {
        let mut problems = Vec::new();
        for face in FACES {
            let refused = api.ask(face, call.clone()).await.expect_err(&format!("{face:?} {call:?}"));
            let (http, grpc) = statuses(code);
            let status = if face == Face::Http { RefusedStatus::Http(http) } else { RefusedStatus::Grpc(grpc) };
            assert_eq!(refused.status, status, "{call:?}");
            problems.push(refused.problem);
        }
        let problem = &problems[0];
        assert_eq!(problems[1], *problem, "both faces say the same");
        assert_eq!((&*problem.code, &*problem.field, &*problem.value), (code, field, value), "{call:?}: {problem:?}");
        assert!(problem.rule.contains(rule), "{problem:?} does not say {rule:?}");
        assert!(!problem.message.is_empty(), "{problem:?}");
    }
}

#[tokio::test]
async fn what_breaks_a_rule_is_named() {
    let convoy = Convoy::start().await;
    let ttl = |ttl| Call::Register(RegisterRequest { ttl, ..instances("web", 1..2) });
    let lease = |lease: &str| Call::Register(RegisterRequest { lease: lease.into(), ..instances("web", 1..2) });
    let sla = |sla| with(|r| r.sla = Some(sla));
    check(
        &convoy.api,
        vec![
            invalid(Call::Register(call([])), "instances", "0", "at least one"),
            invalid(Call::Register(instances("web", 0..51)), "instances", "51", "at most 50"),
            invalid(
                Call::Register(call([instance("web", 1), instance("web", 1)])),
                "instances[1].id",
                "default/web/web-1",
                "once",
            ),
            invalid(with(|r| r.namespace = "A".into()), "instances[0].namespace", "A", LABEL),
            invalid(with(|r| r.service = String::new()), "instances[0].service", "", LABEL),
            invalid(with(|r| r.service = "a.b".into()), "instances[0].service", "a.b", LABEL),
            invalid(with(|r| r.id = "a/b".into()), "instances[0].id", "a/b", "253"),
            invalid(with(|r| r.address = "web.local".into()), "instances[0].address", "web.local", "IPv4 or IPv6"),
            invalid(with(|r| r.address = "0.0.0.0".into()), "instances[0].address", "0.0.0.0", "unspecified"),
            invalid(
                with(|r| r.address = "::ffff:169.254.0.1".into()),
                "instances[0].address",
                "169.254.0.1",
                "link-local",
            ),
            invalid(with(|r| r.address = "ff02::1".into()), "instances[0].address", "ff02::1", "multicast"),
            invalid(with(|r| r.ports.clear()), "instances[0].ports", "", "at least one"),
            invalid(with(|r| r.ports[0].port = 0), "instances[0].ports[0].port", "0", "from 1 to 65535"),
            invalid(with(|r| r.ports[0].port = 65_536), "instances[0].ports[0].port", "65536", "from 1 to 65535"),
            invalid(with(|r| r.ports[0].name = "HTTP".into()), "instances[0].ports[0].name", "HTTP", LABEL),
            invalid(
                with(|r| r.ports.push(port("http", 1, Protocol::Http))),
                "instances[0].ports[1].name",
                "http",
                "unique",
            ),
            invalid(with(|r| r.weight = Some(65_536)), "instances[0].weight", "65536", "from 0 to 65535"),
            invalid(
                with(|r| drop(r.labels.insert(String::new(), String::new()))),
                "instances[0].labels",
                "",
                "1 to 63",
            ),
            invalid(
                with(|r| r.capabilities = vec![Capability::default()]),
                "instances[0].capabilities[0].name",
                "",
                "1 to 256",
            ),
            invalid(
                with(|r| r.locality = Some(Locality { region: "r".repeat(64), ..Default::default() })),
                "instances[0].locality.region",
                "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr",
                "63",
            ),
            invalid(
                sla(Sla { throughput_rps: Some(-1.0), ..Default::default() }),
                "instances[0].sla.throughput_rps",
                "-1",
                "0 or more",
            ),
            invalid(
                ttl(Some(prost_types::Duration { seconds: 0, nanos: 999_000_000 })),
                "ttl",
                "999ms",
                "from 1s to 24h",
            ),
            invalid(ttl(seconds(86_401)), "ttl", "86401s", "from 1s to 24h"),
            invalid(lease("mine"), "lease", "mine", "32 hexadecimal"),
            (lease(UNKNOWN_LEASE), "lease_not_found", "lease", UNKNOWN_LEASE, "holds"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_there_is_not_is_named() {
    let convoy = Convoy::start().await;
    let (service, id) = (|| "web".to_owned(), || "web-1".to_owned());
    let missing = |call, kind, name| (call, "not_found", kind, name, "exist");
    check(
        &convoy.api,
        vec![
            missing(
                Call::Deregister(DeregisterRequest { service: service(), id: id(), ..Default::default() }),
                "instance",
                "default/web/web-1",
            ),
            missing(
                Call::Drain(DrainRequest { service: service(), id: id(), ..Default::default() }),
                "instance",
                "default/web/web-1",
            ),
            missing(
                Call::GetInstance(GetInstanceRequest { service: service(), id: id(), ..Default::default() }),
                "instance",
                "default/web/web-1",
            ),
            missing(
                Call::ListInstances(ListInstancesRequest { service: service(), ..Default::default() }),
                "service",
                "default/web",
            ),
            missing(
                Call::GetService(GetServiceRequest { service: service(), ..Default::default() }),
                "service",
                "default/web",
            ),
            missing(
                Call::DeleteService(proto::DeleteServiceRequest { service: service(), ..Default::default() }),
                "service",
                "default/web",
            ),
            invalid(
                Call::GetService(GetServiceRequest { service: "W".into(), ..Default::default() }),
                "service",
                "W",
                LABEL,
            ),
            invalid(Call::ListServices(ListServicesRequest { namespace: "N".into() }), "namespace", "N", LABEL),
            invalid(
                Call::GetInstance(GetInstanceRequest { service: service(), id: "~".into(), ..Default::default() }),
                "id",
                "~",
                "253",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn heartbeats_and_services_are_refused_by_the_same_table() {
    let convoy = Convoy::start().await;
    let beats = |lease: &str, load| {
        let leases = vec![LeaseHeartbeat { lease: lease.into(), load, ..Default::default() }];
        Call::Heartbeat(HeartbeatRequest { leases })
    };
    let load = |load| beats(UNKNOWN_LEASE, Some(load));
    let named = |count: usize| (0..count).map(|number| (number.to_string(), 1.0)).collect();
    let put = |ports: Vec<ServicePort>, default_port: &str, drain_time| {
        let (service, default_port) = ("web".into(), default_port.into());
        Call::PutService(PutServiceRequest { service, default_port, ports, drain_time, ..Default::default() })
    };
    let http = || ServicePort { name: "http".into(), protocol: Protocol::Http.into(), port: 80 };
    let drain = |drain_time| {
        Call::Drain(DrainRequest { service: "web".into(), id: "web-1".into(), drain_time, ..Default::default() })
    };
    check(
        &convoy.api,
        vec![
            invalid(beats("mine", None), "leases[0].lease", "mine", "32 hexadecimal"),
            invalid(load(Load { cpu: Some(-0.5), ..Default::default() }), "leases[0].load.cpu", "-0.5", "0 or more"),
            invalid(
                load(Load { metrics: named(65), ..Default::default() }),
                "leases[0].load.metrics",
                "65",
                "at most 64",
            ),
            invalid(put(vec![], "", None), "ports", "", "at least one"),
            invalid(put(vec![http()], "grpc", None), "default_port", "grpc", "one of the ports"),
            invalid(put(vec![http(), http()], "", None), "ports[1].name", "http", "unique"),
            invalid(put(vec![ServicePort { port: 0, ..http() }], "", None), "ports[0].port", "0", "from 1 to 65535"),
            invalid(put(vec![http()], "", seconds(86_401)), "drain_time", "86401s", "24h"),
            invalid(drain(seconds(86_401)), "drain_time", "86401s", "24h"),
        ],
    )
    .await;
}
