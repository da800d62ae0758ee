//! Limits, each at its border through both faces: the last that passes, and the first that does not, with its error.

use std::collections::BTreeMap;

use convoy::model::Limits;
use convoy_client::proto::{
    Capability, HeartbeatRequest, LeaseHeartbeat, PutServiceRequest, RegisterRequest, Registration, ServicePort,
    WatchRequest,
};
use hyper::Method;
use tonic::Code;

use crate::support::{
    api::{Call, FACES, Face, RefusedStatus, refused, refused_http},
    sample::{call, instance, instances, port, seconds},
    server::Convoy,
    until,
    watch::Watch,
    within,
};

async fn limited(change: impl FnOnce(&mut Limits)) -> Convoy {
    Convoy::with(|config| change(&mut config.limits)).await
}

fn status(face: Face, http: u16, grpc: Code) -> RefusedStatus {
    if face == Face::Http { RefusedStatus::Http(http) } else { RefusedStatus::Grpc(grpc) }
}

/// Asks with a count that passes and then with one more.
async fn border(convoy: &Convoy, limit: usize, field: &str, ask: impl Fn(usize) -> Call) {
    for face in FACES {
        convoy.api.ask(face, ask(limit)).await.unwrap_or_else(|refused| panic!("{field} at {limit}: {refused:?}"));
        let refused = convoy.api.ask(face, ask(limit + 1)).await.expect_err("one more");
        assert_eq!((&*refused.problem.code, &*refused.problem.field), ("invalid_argument", field), "{refused:?}");
        assert_eq!(refused.status, status(face, 400, Code::InvalidArgument));
    }
}

#[tokio::test]
async fn what_one_registration_may_hold() {
    let convoy = Convoy::start().await;
    type Change = fn(&mut Registration, usize);
    let table: [(usize, &str, Change); 7] = [
        (64, "labels", |r, n| r.labels = (0..n).map(|i| (i.to_string(), String::new())).collect()),
        (256, "labels.a", |r, n| r.labels = [("a".into(), "v".repeat(n))].into()),
        (256, "capabilities", |r, n| r.capabilities = vec![Capability { name: "c".into(), ..Default::default() }; n]),
        (63, "service", |r, n| r.service = "s".repeat(n)),
        (253, "id", |r, n| r.id = "i".repeat(n)),
        (16, "ports", |r, n| {
            r.ports = (0..n).map(|i| port(&format!("p{i}"), i as u32 + 1, Default::default())).collect();
        }),
        // 32 KiB, less what the names and lengths take.
        (32 * 1024 - 18, "metadata", |r, n| {
            let attributes: BTreeMap<_, _> = [("a".to_owned(), "x".repeat(n))].into();
            r.capabilities = vec![Capability { name: "c".into(), attributes, ..Default::default() }];
        }),
    ];
    for (number, (limit, field, change)) in table.into_iter().enumerate() {
        let ask = |count| {
            let mut registration = instance(&format!("s{number}"), 1);
            change(&mut registration, count);
            Call::Register(call([registration]))
        };
        border(&convoy, limit, &format!("instances[0].{field}"), ask).await;
    }
}

#[tokio::test]
async fn what_one_call_may_hold() {
    let convoy = Convoy::start().await;
    border(&convoy, 50, "instances", |count| Call::Register(instances("web", 0..count as u32))).await;
    border(&convoy, 1_000, "leases", |count| {
        let beat = LeaseHeartbeat { lease: "0123456789abcdef0123456789abcdef".into(), ..Default::default() };
        Call::Heartbeat(HeartbeatRequest { leases: vec![beat; count] })
    })
    .await;
    border(&convoy, 86_400, "ttl", |ttl| {
        Call::Register(RegisterRequest { ttl: seconds(ttl as i64), ..instances("long", 1..2) })
    })
    .await;
    let convoy = limited(|limits| (limits.min_ttl_seconds, limits.max_ttl_seconds) = (5, 10)).await;
    for (ttl, accepted) in [(4, false), (5, true), (10, true), (11, false)] {
        let request = RegisterRequest { ttl: seconds(ttl), ..instances("web", 1..2) };
        assert_eq!(convoy.api.register(request).await.is_ok(), accepted, "{ttl}");
    }
}

#[tokio::test]
async fn a_thousand_instances_a_lease() {
    let convoy = Convoy::start().await;
    let mut lease = String::new();
    for batch in 0..20 {
        let request = RegisterRequest { lease: lease.clone(), ..instances("web", batch * 50..(batch + 1) * 50) };
        lease = convoy.api.register(request).await.expect("registered").lease.expect("a lease").id;
    }
    for face in FACES {
        let more = RegisterRequest { lease: lease.clone(), ..instances("shop", 1..2) };
        let refused = convoy.api.ask(face, Call::Register(more)).await.expect_err("one more");
        assert_eq!((&*refused.problem.code, &*refused.problem.value), ("limit_reached", "1000"));
        assert_eq!(refused.status, status(face, 429, Code::ResourceExhausted));
        // Those that are there may say themselves again, and one may make room.
        let again = RegisterRequest { lease: lease.clone(), ..instances("web", 0..50) };
        convoy.api.ask(face, Call::Register(again)).await.expect("said again");
    }
    convoy.api.http.delete("/v1/namespaces/default/services/web/instances/web-0").await.ok();
    let more = RegisterRequest { lease, ..instances("shop", 1..2) };
    convoy.api.register(more).await.expect("there is room");
}

#[tokio::test]
async fn so_many_instances_a_service() {
    assert_eq!(Limits::default().instances_per_service, 10_000);
    let convoy = limited(|limits| limits.instances_per_service = 60).await;
    convoy.api.register(instances("web", 0..50)).await.expect("registered");
    for face in FACES {
        let refused = convoy.api.ask(face, Call::Register(instances("web", 50..61))).await.expect_err("one too many");
        assert_eq!(&*refused.problem.code, "limit_reached");
        assert_eq!(refused.status, status(face, 429, Code::ResourceExhausted));
        assert!(refused.problem.message.contains("default/web"), "{refused:?}");
        assert_eq!(convoy.api.ids("web").await.len(), 50, "a refusal changes nothing");
    }
    convoy.api.register(instances("web", 50..60)).await.expect("up to the limit");
    convoy.api.register(instances("web", 0..50)).await.expect("said again");
    convoy.api.register(instances("shop", 0..50)).await.expect("another service has its own");
}

#[tokio::test]
async fn sixteen_ports_a_service_whoever_brings_them() {
    let convoy = Convoy::start().await;
    let named = |number: u32| port(&format!("p{number}"), number, Default::default());
    for number in 1..=16 {
        let registration = Registration { ports: vec![named(number)], ..instance("web", number) };
        convoy.api.register(call([registration])).await.expect("registered");
    }
    for face in FACES {
        let registration = Registration { ports: vec![named(17)], ..instance("web", 17) };
        let put = ServicePort { name: "p17".into(), protocol: 0, port: 17 };
        let put = PutServiceRequest { service: "web".into(), ports: vec![put], ..Default::default() };
        for call in [Call::Register(call([registration])), Call::PutService(put)] {
            let refused = convoy.api.ask(face, call).await.expect_err("one too many");
            assert_eq!((&*refused.problem.code, &*refused.problem.value), ("limit_reached", "16"));
        }
    }
}

/// The border is the body's, not the content's: blanks count.
#[tokio::test]
async fn one_mebibyte_a_request() {
    const MIB: usize = 1024 * 1024;
    let convoy = Convoy::start().await;
    let path = "/v1/heartbeats";
    for (size, accepted) in [(MIB, true), (MIB + 1, false), (5 * MIB, false)] {
        let body = format!("{{\"leases\": []{}}}", " ".repeat(size - 14));
        assert_eq!(body.len(), size);
        let answer = convoy.api.http.call_large(Method::POST, path, body).await;
        assert_eq!(answer.status, if accepted { 200 } else { 413 }, "{size}");
        if let Err(refused) = refused_http(&answer) {
            assert_eq!(refused.problem.code, "too_large");
        }
    }
    let of_size = |size: usize| {
        // Tag and length of the list's element, tag and length of the string in it.
        let lease = "x".repeat(size - 8);
        let request = HeartbeatRequest { leases: vec![LeaseHeartbeat { lease, ..Default::default() }] };
        assert_eq!(prost::Message::encoded_len(&request), size);
        request
    };
    for (size, code, status) in [
        (MIB, "invalid_argument", Code::InvalidArgument),
        (MIB + 1, "too_large", Code::ResourceExhausted),
        (2 * MIB - 1, "too_large", Code::ResourceExhausted),
    ] {
        let mut registry = convoy.api.registry.clone();
        let answer = within("an answer", registry.heartbeat(of_size(size))).await.expect_err("no lease id");
        let refused = refused(&answer);
        assert_eq!((&*refused.problem.code, refused.status), (code, RefusedStatus::Grpc(status)), "{size}");
        let sent = tokio_stream::iter([of_size(size)]);
        let mut answers = within("a stream", registry.stream_heartbeats(sent)).await.expect("a stream").into_inner();
        let answer = within("an answer", answers.message()).await.expect_err("no lease id");
        assert_eq!(crate::support::api::refused(&answer).problem.code, code, "{size}");
    }
}

#[tokio::test]
async fn so_many_watchers_of_both_faces_together() {
    assert_eq!(Limits::default().watchers, 10_000);
    let convoy = limited(|limits| limits.watchers = 2).await;
    let mut watches = Vec::new();
    for face in FACES {
        watches.push(Watch::all(&convoy.api, face).await);
    }
    for watch in &mut watches {
        watch.synced().await;
    }
    for face in FACES {
        let refused = Watch::open(&convoy.api, face, WatchRequest::default()).await.expect_err("one too many");
        assert_eq!((&*refused.problem.code, &*refused.problem.value), ("limit_reached", "2"));
        assert_eq!(refused.status, status(face, 429, Code::ResourceExhausted));
    }
    // Whoever leaves makes room, without anything having to happen.
    while let Some(left) = watches.pop() {
        drop(left);
        let opened = until("room", async || Watch::open(&convoy.api, Face::Grpc, WatchRequest::default()).await.ok());
        opened.await.synced().await;
    }
}
