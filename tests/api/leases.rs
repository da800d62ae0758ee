//! Leases and heartbeats: one, many, as a stream; shared ones; and those that are over.

use convoy_client::json::parse_duration;
use convoy_client::proto::{
    DeregisterRequest, HeartbeatRequest, LeaseHeartbeat, LeaseOutcome, Load, RegisterRequest, Registration, WatchKind,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{
    api::{Call, FACES, Face, RefusedStatus, refused_http},
    sample::{call, instance, instances, seconds},
    server::Convoy,
    until,
    watch::Watch,
    within,
};

const UNKNOWN_LEASE: &str = "0123456789abcdef0123456789abcdef";

fn beats(leases: &[&str]) -> HeartbeatRequest {
    let beat = |lease: &&str| LeaseHeartbeat { lease: (*lease).to_owned(), ..Default::default() };
    HeartbeatRequest { leases: leases.iter().map(beat).collect() }
}

#[tokio::test]
async fn every_answer_says_the_ttl_and_when_to_send_the_next() {
    let convoy = Convoy::start().await;
    let milliseconds = |lease: &Value| {
        let interval = lease["heartbeat_interval"].as_str().expect("an interval");
        parse_duration(interval).expect("a duration").as_millis()
    };
    for (service, (ttl, said, most)) in [
        ("unsaid", (None, "30s", 10_000)),
        ("shortest", (seconds(1), "1s", 366)),
        ("short", (seconds(6), "6s", 2_200)),
        ("long", (seconds(86_400), "24h", 10_000)),
    ] {
        for face in FACES {
            let request = RegisterRequest { ttl, ..instances(service, 1..2) };
            let answer = convoy.api.ask(face, Call::Register(request)).await.expect("registered");
            let mut told = answer["lease"].clone();
            for number in 0..10 {
                assert_eq!((&told["id"], &told["ttl"]), (&answer["lease"]["id"], &json!(said)));
                // The first heartbeat after the start of Convoy is answered with any time up to an interval.
                let least = if number == 1 { 10 } else { most * 8 / 10 };
                assert!((least..=most).contains(&milliseconds(&told)), "{told}");
                let lease = told["id"].as_str().expect("a lease");
                let beat = convoy.api.ask(face, Call::Heartbeat(beats(&[lease]))).await.expect("kept");
                assert_eq!(beat["leases"][0]["outcome"], "kept");
                told = beat["leases"][0]["lease"].clone();
            }
        }
    }
}

/// A heartbeat that says what the registration was answered.
async fn outcome_of(convoy: &Convoy, face: Face, answer: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let beat = LeaseHeartbeat {
        lease: text(&answer["lease"]["id"]),
        digest: text(&answer["digest"]),
        revision: answer["revision"].as_u64().expect("a revision"),
        ..Default::default()
    };
    let answer =
        convoy.api.ask(face, Call::Heartbeat(HeartbeatRequest { leases: vec![beat] })).await.expect("answered");
    text(&answer["leases"][0]["outcome"])
}

#[tokio::test]
async fn an_agent_learns_from_its_heartbeat_that_an_operator_removed_an_instance_and_cannot_undo_it() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let both = Call::Register(instances("web", 1..3));
        let said = convoy.api.ask(face, both.clone()).await.expect("registered");
        assert_eq!(outcome_of(&convoy, face, &said).await, "kept");
        let again = convoy.api.ask(face, both.clone()).await.expect("said again");
        assert_eq!((&again["digest"], &again["revision"]), (&said["digest"], &said["revision"]));
        let remove = DeregisterRequest { service: "web".into(), id: "web-2".into(), ..Default::default() };
        convoy.api.ask(face, Call::Deregister(remove)).await.expect("deregistered");
        assert_eq!(outcome_of(&convoy, face, &said).await, "register_again");
        let refused = convoy.api.ask(face, both).await.expect_err("that one is fenced");
        assert_eq!(refused.problem.code, "incarnation_fenced");
        assert_eq!(convoy.api.ids("web").await, ["web-1"]);
        // Without it, the agent's other instance stands, and all is well.
        let other = convoy.api.ask(face, Call::Register(instances("web", 1..2))).await.expect("registered");
        assert_eq!(outcome_of(&convoy, face, &other).await, "kept");
        let beat = LeaseHeartbeat { lease: UNKNOWN_LEASE.into(), digest: "none".into(), ..Default::default() };
        let request = HeartbeatRequest { leases: vec![beat] };
        let refused = convoy.api.ask(face, Call::Heartbeat(request)).await.expect_err("no digest");
        assert_eq!(refused.problem.field, "leases[0].digest");
    }
}

#[tokio::test]
async fn many_leases_are_answered_in_the_order_of_the_request() {
    let convoy = Convoy::start().await;
    let mut leases = Vec::new();
    for service in ["a", "b", "c"] {
        let answer = convoy.api.register(call([instance(service, 1)])).await.expect("registered");
        leases.push(answer.lease.expect("a lease").id);
    }
    for face in FACES {
        let asked = [&*leases[2], UNKNOWN_LEASE, &leases[0], &leases[1], &leases[2]];
        let answer = convoy.api.ask(face, Call::Heartbeat(beats(&asked))).await.expect("an answer");
        let told: Vec<(&str, &str)> = answer["leases"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|status| (status["lease"]["id"].as_str(), status["outcome"].as_str()))
            .map(|(lease, outcome)| (lease.expect("a lease"), outcome.expect("an outcome")))
            .collect();
        let outcome = |lease| if lease == UNKNOWN_LEASE { "register_again" } else { "kept" };
        assert_eq!(told, asked.map(|lease| (lease, outcome(lease))));
        assert_eq!(convoy.api.ask(face, Call::Heartbeat(beats(&[]))).await.expect("none"), json!({"leases": []}));
    }
}

#[tokio::test]
async fn a_stream_answers_each_message_in_order_until_one_is_refused() {
    let convoy = Convoy::start().await;
    let lease = convoy.api.register(instances("web", 1..2)).await.expect("registered").lease.expect("a lease").id;
    let (say, said) = mpsc::channel(8);
    let stream = within("a stream", convoy.api.registry.clone().stream_heartbeats(ReceiverStream::new(said))).await;
    let mut answers = stream.expect("a stream").into_inner();
    for (asked, outcome) in [
        (vec![&*lease], vec![LeaseOutcome::Kept]),
        (vec![UNKNOWN_LEASE, &lease], vec![LeaseOutcome::RegisterAgain, LeaseOutcome::Kept]),
        (vec![], vec![]),
    ] {
        say.send(beats(&asked)).await.expect("the stream is open");
        let answer = within("an answer", answers.message()).await.expect("no error").expect("an answer");
        assert_eq!(answer.leases.iter().map(|status| status.outcome()).collect::<Vec<_>>(), outcome);
    }
    say.send(beats(&["mine"])).await.expect("the stream is open");
    let status = within("a refusal", answers.message()).await.expect_err("no lease id");
    assert_eq!(crate::support::api::refused(&status).problem.field, "leases[0].lease");
    // The lease itself is none the worse.
    assert_eq!(convoy.api.heartbeat(&lease).await.outcome(), LeaseOutcome::Kept);
}

#[tokio::test]
async fn one_unknown_lease_is_an_error_over_http() {
    let convoy = Convoy::start().await;
    let path = format!("/v1/leases/{UNKNOWN_LEASE}/heartbeat");
    let answer = convoy.api.http.post(&path, &json!({"load": {"cpu": 0.5}})).await;
    let refused = refused_http(&answer).expect_err("not known");
    assert_eq!(refused.status, RefusedStatus::Http(404));
    let problem = refused.problem;
    assert_eq!((&*problem.code, &*problem.field, &*problem.value), ("lease_not_found", "lease", UNKNOWN_LEASE));
}

#[tokio::test]
async fn a_shared_lease_holds_all_of_its_instances_and_goes_with_the_last() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let first = convoy.api.register(instances("web", 1..3)).await.expect("registered");
        let lease = first.lease.expect("a lease").id;
        assert!(first.instances.iter().all(|instance| instance.lease == lease));
        let joining = RegisterRequest { lease: lease.clone(), ttl: seconds(1), ..call([instance("shop", 1)]) };
        let second = convoy.api.ask(face, Call::Register(joining)).await.expect("registered");
        assert_eq!((&second["lease"]["id"], &second["lease"]["ttl"]), (&json!(lease), &json!("1s")));
        let mut watch = Watch::all(&convoy.api, face).await;
        assert_eq!(watch.synced().await.len(), 4);
        // Not renewed, they go together: in one write.
        let mut gone = Vec::new();
        for _ in 0..3 {
            let event = watch.next().await;
            assert_eq!((event.kind(), event.cause().to_string()), (WatchKind::Removed, "expired".into()));
            gone.push((event.revision, event.instance.expect("an instance").id));
        }
        gone.sort();
        let revision = gone[0].0;
        assert_eq!(gone, ["shop-1", "web-1", "web-2"].map(|id| (revision, id.to_owned())));
        assert_eq!(convoy.api.heartbeat(&lease).await.outcome(), LeaseOutcome::RegisterAgain);
    }
}

#[tokio::test]
async fn a_lease_is_of_one_incarnation() {
    let convoy = Convoy::start().await;
    let lease = convoy.api.register(instances("web", 1..2)).await.expect("registered").lease.expect("a lease").id;
    for face in FACES {
        let incarnation = Some(2);
        let other = RegisterRequest { lease: lease.clone(), incarnation, ..call([instance("shop", 1)]) };
        let refused = convoy.api.ask(face, Call::Register(other)).await.expect_err("another incarnation");
        assert_eq!((&*refused.problem.code, &*refused.problem.value), ("lease_of_other_incarnation", "2"));
    }
    // A newer incarnation of the instance itself leaves the lease behind, which ends.
    let newer = RegisterRequest { incarnation: Some(2), ..instances("web", 1..2) };
    let newer = convoy.api.register(newer).await.expect("registered").lease.expect("a lease").id;
    assert_ne!(newer, lease);
    assert_eq!(convoy.api.heartbeat(&lease).await.outcome(), LeaseOutcome::RegisterAgain);
}

#[tokio::test]
async fn a_load_report_is_shown_and_is_no_change() {
    let convoy = Convoy::start().await;
    let answer = convoy.api.register(instances("web", 1..2)).await.expect("registered");
    let lease = answer.lease.expect("a lease").id;
    for (face, cpu) in [(Face::Http, 0.25), (Face::Grpc, 0.75)] {
        let load = Load { cpu: Some(cpu), metrics: [("tokens".to_owned(), 12.5)].into(), ..Default::default() };
        let request = HeartbeatRequest {
            leases: vec![LeaseHeartbeat { lease: lease.clone(), load: Some(load), ..Default::default() }],
        };
        convoy.api.ask(face, Call::Heartbeat(request)).await.expect("kept");
        let shown = convoy.api.http.get("/v1/namespaces/default/services/web/instances/web-1").await.ok();
        assert_eq!(shown["load"], json!({"cpu": cpu, "metrics": {"tokens": 12.5}}));
        assert_eq!(shown["revision"], answer.revision, "a report is no write");
    }
    let path = format!("/v1/leases/{lease}/heartbeat");
    convoy.api.http.post(&path, &json!({"load": {"queue_depth": 3}})).await.ok();
    let again = Registration { weight: Some(1), ..instance("web", 1) };
    let answer = convoy.api.register(call([again])).await.expect("registered");
    let load = answer.instances[0].load.clone().expect("a load");
    assert_eq!((load.queue_depth, load.cpu), (Some(3.0), None), "a report is the last one, whole");
}

#[tokio::test]
async fn load_becomes_weight_and_off_gives_it_back() {
    let convoy = Convoy::start().await;
    let http = &convoy.api.http;
    let service = "/v1/namespaces/default/services/web";
    let mut leases = Vec::new();
    for index in 1..3 {
        let answer = convoy.api.register(instances("web", index..index + 1)).await.expect("registered");
        leases.push(answer.lease.expect("a lease").id);
    }
    let put = http.put(service, &json!({"load": {"interval": "1s", "min_share": 15}})).await.ok();
    let policy = json!({"off": false, "min_share": 15, "slow_start": "0s", "interval": "1s"});
    assert_eq!(put["service"]["load"], policy);
    let weights = async || {
        let shown = http.get(&format!("{service}/instances")).await.ok();
        let of = |index: usize| shown["instances"][index]["effective_weight"].as_u64().unwrap_or_default();
        (of(0), of(1))
    };
    // In ORCA's form; the other one in Convoy's own.
    let loads = [json!({"orca": {"application_utilization": 1.0, "cpu_utilization": 0.1}}), json!({"cpu": 0.0})];
    let reach = async |wanted: (u64, u64)| {
        until(&format!("weights of {wanted:?}"), async || {
            for (lease, load) in leases.iter().zip(&loads) {
                http.post(&format!("/v1/leases/{lease}/heartbeat"), &json!({"load": load})).await.ok();
            }
            (weights().await == wanted).then_some(())
        })
        .await;
    };
    reach((15, 100)).await;
    http.put(service, &json!({"load": {"off": true, "interval": "1s"}})).await.ok();
    reach((100, 100)).await;
    let shown = http.get(&format!("{service}/load")).await.ok();
    assert_eq!(
        (&shown["proxies"], &shown["instances"][1]["reported"]),
        (&json!(0), &json!({"cpu": 0.0, "metrics": {}}))
    );
}
