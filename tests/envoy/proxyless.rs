//! A gRPC client without a proxy finds the instances at `xds:///service`, and follows the registry.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use convoy_client::{
    Agent, Protocol,
    proto::{OverrideHealth, SetOverrideRequest},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    agents::{Backend, Member},
    convoy::Convoy,
    machine, python,
    wait::{PATIENCE, until},
};

const TTL: Duration = Duration::from_secs(30);
/// Within so many calls, in turn to each, everybody is called.
const TURN: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_follows_the_registry() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let first = Member::join(&convoy, "echo", "first", Protocol::Grpc, TTL).await;
    let _second = Member::join(&convoy, "echo", "second", Protocol::Grpc, TTL).await;
    let client = GrpcClient::start(&convoy, "xds:///echo").await;
    client.calls("the two that are registered", &["first", "second"]).await;

    let _third = Member::join(&convoy, "echo", "third", Protocol::Grpc, TTL).await;
    let begun = Instant::now();
    client.calls("a new one as well", &["first", "second", "third"]).await;
    println!(
        "a new instance was called {:?} after it was registered",
        client.first("third").saturating_duration_since(begun)
    );

    first.agent.deregister().await.expect("deregistered");
    let begun = Instant::now();
    client.calls("the removed one no more", &["second", "third"]).await;
    println!(
        "a removed instance was called until {:?} after it was removed",
        client.last("first").saturating_duration_since(begun)
    );
    first.backend.finish().await;

    client.calls("the others, after it is gone", &["second", "third"]).await;
    client.has_no_failure();

    // How Convoy shows such a client.
    let proxy = convoy.proxy("grpc-client").await.expect("connected");
    let types = proxy["types"].as_array().cloned().unwrap_or_default();
    assert!(types.iter().all(|of| of["sync"] == "synced" && of["nacks"].as_u64().unwrap_or_default() == 0), "{proxy}");
    assert!(proxy["user_agent"].as_str().is_some_and(|agent| agent.contains("gRPC")), "{proxy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_reaches_every_port_by_every_name() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    convoy.put_service("default", "echo", &[("rpc", 50051, Protocol::Grpc), ("admin", 50052, Protocol::Grpc)]).await;
    let (rpc, admin) = (Backend::start("rpc"), Backend::start("admin"));
    let agent = Agent::builder(convoy.server(), "echo").address("127.0.0.1");
    let agent =
        agent.port("rpc", rpc.address.port(), Protocol::Grpc).port("admin", admin.address.port(), Protocol::Grpc);
    let _agent = agent.start().await.expect("registered");
    for (target, answers) in [
        ("xds:///echo.default", "rpc"),
        ("xds:///echo:50051", "rpc"),
        ("xds:///echo.default:50052", "admin"),
        ("xds:///admin.echo.default", "admin"),
    ] {
        let client = GrpcClient::start(&convoy, target).await;
        client.calls(target, &[answers]).await;
        client.has_no_failure();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_calls_degraded_instances_when_there_are_no_others() {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let _first = Member::join(&convoy, "echo", "first", Protocol::Grpc, TTL).await;
    let _second = Member::join(&convoy, "echo", "second", Protocol::Grpc, TTL).await;
    let client = GrpcClient::start(&convoy, "xds:///echo").await;
    client.calls("both", &["first", "second"]).await;
    let say = async |id: &str, health: OverrideHealth| {
        let (service, id, health) = ("echo".into(), id.into(), health.into());
        let request = SetOverrideRequest { service, id, health, ..Default::default() };
        convoy.client().set_override(request).await.expect("said");
    };
    say("first", OverrideHealth::Degraded).await;
    client.calls("who is healthy", &["second"]).await;
    say("second", OverrideHealth::Degraded).await;
    client.calls("both, who are degraded", &["first", "second"]).await;
    say("first", OverrideHealth::Unspecified).await;
    client.calls("who is healthy again", &["first"]).await;
    client.has_no_failure();
}

/// `tests/grpc/client.py`: it calls all the time, and prints each answer.
struct GrpcClient {
    child: Child,
    answers: Arc<Mutex<Vec<Answer>>>,
}

/// When it came, and who answered or what went wrong.
type Answer = (Instant, Result<String, String>);

impl GrpcClient {
    async fn start(convoy: &Convoy, target: &str) -> Self {
        let python = python::with_grpc();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/client.py");
        let xds = convoy.xds.to_string();
        let bootstrap = convoy.run(&["bootstrap", "--grpc", "--node", "grpc-client", "--xds-address", &xds]).await;
        let mut command = Command::new(python);
        command.arg(script).arg(target).env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap);
        // It ends when its standard input does: with this test, however that ends.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the client starts");
        let answers = Arc::<Mutex<Vec<Answer>>>::default();
        let (output, into) = (child.stdout.take().expect("piped"), answers.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let answer: Value = serde_json::from_str(&line).unwrap_or_default();
                let text = |field: &str| answer[field].as_str().map(str::to_owned);
                let answer = text("answer").ok_or_else(|| text("error").unwrap_or(line));
                into.lock().expect("nobody panics with it").push((Instant::now(), answer));
            }
        });
        Self { child, answers }
    }

    fn answers(&self) -> Vec<Answer> {
        self.answers.lock().expect("nobody panics with it").clone()
    }

    /// When an instance answered first.
    fn first(&self, name: &str) -> Instant {
        let answers = self.answers();
        answers.iter().find(|(_, answer)| answer.as_deref() == Ok(name)).expect("it was called").0
    }

    /// When an instance answered last.
    fn last(&self, name: &str) -> Instant {
        let answers = self.answers();
        answers.iter().rfind(|(_, answer)| answer.as_deref() == Ok(name)).expect("it was called").0
    }

    /// Waits until the last calls went to these, and to nobody else.
    async fn calls(&self, what: &str, wanted: &[&str]) {
        let from = self.answers().len();
        until(what, PATIENCE, async || {
            let answers = self.answers();
            let Some(last) = answers.get(from.max(answers.len().saturating_sub(TURN))..) else { return Err("".into()) };
            let mut names: Vec<&str> = last.iter().map(|(_, answer)| answer.as_deref().unwrap_or("failed")).collect();
            names.sort_unstable();
            names.dedup();
            if last.len() == TURN && names == wanted { Ok(()) } else { Err(format!("{last:?}")) }
        })
        .await;
    }

    fn has_no_failure(&self) {
        let answers = self.answers();
        let failed: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_err()).collect();
        println!("{} calls, {} failed", answers.len(), failed.len());
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

impl Drop for GrpcClient {
    fn drop(&mut self) {
        // Only one that has ended cannot be killed.
        let _ = self.child.kill();
        self.child.wait().expect("our child");
    }
}
