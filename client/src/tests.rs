//! The agent and the watch against a server that answers, refuses, forgets, goes away and comes back.

mod stub;

use std::collections::HashMap;

use stub::{Heard, PATIENCE, Serving, agent_of};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::{Agent, Drained, Error, Load, Protocol, State, proto};

fn registration(heard: Heard) -> Option<proto::RegisterRequest> {
    if let Heard::Register(request) = heard { Some(request) } else { None }
}

fn heartbeat(heard: Heard) -> Option<proto::LeaseHeartbeat> {
    if let Heard::Heartbeat(heartbeat) = heard { Some(heartbeat) } else { None }
}

async fn is_over(agent: &Agent) -> Option<Error> {
    let mut states = agent.states();
    let over = states.wait_for(|state| matches!(state, State::Over(_)));
    match &*tokio::time::timeout(PATIENCE, over).await.expect("over in time").expect("the task told its end") {
        State::Over(error) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn registers_then_heartbeats_with_the_latest_load() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    let request = server.hears(registration).await;
    assert_eq!((request.incarnation, request.lease.as_str()), (Some(7), ""));
    let instance = &request.instances[0];
    assert_eq!((instance.id.as_str(), instance.ports[0].port), ("reviews-1", 8080));
    agent.report(Load { cpu: Some(0.9), ..Default::default() });
    agent.report(Load { cpu: Some(0.4), ..Default::default() });
    let loads = [Some(0.4), Some(0.4)];
    for load in loads {
        let heard = server.hears(|heard| heartbeat(heard).filter(|heartbeat| heartbeat.load.is_some())).await;
        assert_eq!((heard.lease.as_str(), heard.load.and_then(|load| load.cpu)), ("lease-1", load));
    }
}

#[tokio::test]
async fn a_refused_load_does_not_cost_the_lease() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    agent.report(Load { cpu: Some(0.4), ..Default::default() });
    server.hears(|heard| heartbeat(heard).filter(|heartbeat| heartbeat.load.is_some())).await;
    agent.report(Load { cpu: Some(-1.0), ..Default::default() });
    server.hears(|heard| heartbeat(heard).filter(|heartbeat| heartbeat.load.is_none())).await;
    agent.report(Load { cpu: Some(0.5), ..Default::default() });
    server.hears(|heard| heartbeat(heard).filter(|heartbeat| heartbeat.load.is_some())).await;
    assert_eq!(server.stub.memory().registrations, 1);
}

#[tokio::test]
async fn registers_again_when_told() {
    let mut server = Serving::start();
    let _agent = server.agent().await.expect("registered");
    server.hears(registration).await;
    server.stub.memory().instances.clear();
    let request = server.hears(registration).await;
    assert_eq!((request.incarnation, request.lease.as_str()), (Some(7), ""));
    let heard = server.hears(|heard| heartbeat(heard).filter(|heartbeat| heartbeat.lease == "lease-2")).await;
    assert_eq!((heard.digest.as_str(), heard.revision), ("digest-2", 2), "what it was answered last");
}

#[tokio::test]
async fn heals_when_the_server_comes_back_without_its_memory() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    server.hears(heartbeat).await;
    server.stop();
    let mut states = agent.states();
    let away = states.wait_for(|state| matches!(state, State::Away(_)));
    tokio::time::timeout(PATIENCE, away).await.expect("noticed in time").expect("the task runs");
    let error = agent.set_ready(false).await.expect_err("nobody is there");
    assert!(error.is_temporary(), "{error}");
    server.stub.memory().instances.clear();
    server.serve();
    // The wish that was not heard goes with the registration that is.
    server.hears(|heard| registration(heard).filter(|request| request.instances[0].ready == Some(false))).await;
    let back = states.wait_for(|state| matches!(state, State::Registered { .. }));
    tokio::time::timeout(PATIENCE, back).await.expect("back in time").expect("the task runs");
}

#[tokio::test]
async fn starts_when_the_server_does() {
    let mut server = Serving::start();
    server.stop();
    let address = format!("http://{}", server.address);
    let agent = tokio::spawn(Agent::builder(address, "reviews").port("http", 8080, Protocol::Http).start());
    server.serve();
    tokio::time::timeout(PATIENCE, agent).await.expect("in time").expect("no panic").expect("registered");
}

#[tokio::test]
async fn a_drain_ends_when_the_instance_is_gone() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    let stub = server.stub.clone();
    let gone = async {
        server.hears(|heard| matches!(heard, Heard::Drain).then_some(())).await;
        server.hears(heartbeat).await;
        stub.memory().instances.clear();
    };
    let (drained, ()) = tokio::join!(agent.drain(), gone);
    assert_eq!(drained.expect("drained"), Drained::Gone);
    assert!(is_over(&agent).await.is_none());
    assert_eq!(server.stub.memory().registrations, 1, "an agent that was drained does not come back");
    agent.deregister().await.expect("gone is gone");
    assert!(matches!(agent.set_ready(true).await, Err(Error::Over)));
}

#[tokio::test]
async fn deregisters_and_ends() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    agent.deregister().await.expect("deregistered");
    server.hears(|heard| matches!(heard, Heard::Deregister).then_some(())).await;
    assert!(is_over(&agent).await.is_none());
    assert!(server.stub.memory().instances.is_empty());
}

#[tokio::test]
async fn a_refusal_ends_the_start_at_once() {
    let server = Serving::start();
    server.stub.memory().refuse = Some(Status::invalid_argument("ports is empty: 1 to 16 are needed"));
    let error = server.agent().await.expect_err("refused");
    assert_eq!(error.to_string(), "ports is empty: 1 to 16 are needed");
}

#[tokio::test]
async fn ends_when_a_newer_incarnation_has_taken_over() {
    let server = Serving::start();
    let agent = server.agent().await.expect("registered");
    {
        let mut memory = server.stub.memory();
        memory.refuse = Some(Status::with_error_details(
            tonic::Code::FailedPrecondition,
            "incarnation 7 is older than 8",
            ErrorDetails::with_error_info("older_incarnation", "convoy", HashMap::new()),
        ));
        memory.instances.clear();
    }
    let error = is_over(&agent).await.expect("the reason");
    assert!(error.is_superseded(), "{error}");
}

#[tokio::test]
async fn dropping_the_agent_ends_its_heartbeats_and_does_not_deregister() {
    let mut server = Serving::start();
    let agent = server.agent().await.expect("registered");
    server.hears(heartbeat).await;
    drop(agent);
    server.hears(|heard| matches!(heard, Heard::HeartbeatsEnded).then_some(())).await;
    assert_eq!(server.stub.memory().instances.len(), 1);
}

#[tokio::test]
async fn a_watch_goes_on_after_the_last_event_when_its_stream_breaks() {
    let server = Serving::start();
    let client = crate::Client::new(&server.address.to_string()).expect("an address");
    let mut watch = client.watch(proto::WatchRequest::default());
    let mut revisions = Vec::new();
    while revisions.len() < 4 {
        match watch.next().await {
            Ok(event) => revisions.push(event.revision),
            Err(error) => assert!(error.is_temporary(), "{error}"),
        }
    }
    assert_eq!(revisions, [1, 2, 3, 4]);
}

#[tokio::test]
async fn of_several_replicas_another_one_is_asked_when_one_is_away() {
    let (mut first, mut second) = (Serving::start(), Serving::start());
    let servers = format!("{}, {}", first.address, second.address);
    let _agent = agent_of(&servers).await.expect("registered");
    first.hears(heartbeat).await;
    first.stop();
    // It does not know the lease, which is another's in this test: so it hears a registration.
    second.hears(heartbeat).await;
    second.hears(registration).await;
    second.hears(heartbeat).await;
    // Single calls go to who is there, at the first attempt.
    let client = crate::Client::new(&servers).expect("addresses");
    let deregister = proto::DeregisterRequest { id: "reviews-1".into(), ..Default::default() };
    client.deregister(deregister).await.expect("the second one answers");
}

#[tokio::test]
async fn an_agent_goes_where_it_is_sent() {
    let (mut first, mut second) = (Serving::start(), Serving::start());
    let agent = agent_of(&format!("{},{}", first.address, second.address)).await.expect("registered");
    first.hears(heartbeat).await;
    first.stub.memory().elsewhere = true;
    second.hears(heartbeat).await;
    second.hears(registration).await;
    // It stays there, and is not taken for one that is away.
    second.hears(heartbeat).await;
    assert!(matches!(&*agent.states().borrow(), State::Registered { .. }));
}

#[tokio::test]
async fn each_address_has_to_be_one() {
    for (addresses, bad) in [("a:1,b", "b"), ("a:1,", ""), ("https://a:1", "https://a:1"), ("", "")] {
        match crate::Client::new(addresses) {
            Err(Error::Address { address, .. }) => assert_eq!(address, bad, "{addresses}"),
            other => panic!("{addresses}: {other:?}"),
        }
    }
}
