//! A Convoy as its users run it: the `convoy` binary, on ports that it keeps when it is started again.

use std::{net::SocketAddr, path::Path, process::Command};

use convoy_client::{
    Client, Protocol, Watch,
    proto::{ListInstancesRequest, PutServiceRequest, ServicePort, WatchEvent, WatchKind, WatchRequest},
};
use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http::Connection,
    machine::{Process, free_address},
    wait::{PATIENCE, until},
};

pub struct Convoy {
    pub xds: SocketAddr,
    http: SocketAddr,
    grpc: SocketAddr,
    arguments: Vec<String>,
    process: Process,
    // Last: its files are in use until the process has ended.
    directory: TempDir,
}

impl Convoy {
    /// One that knows from its start that there is nothing but what it is told, so that no test waits for the settle
    /// window.
    pub async fn start() -> Self {
        Self::start_with("memory", "settle: 0s\n").await
    }

    pub async fn start_with(storage: &str, configuration: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (http, grpc, xds) = (free_address(), free_address(), free_address());
        let file = directory.path().join("convoy.yaml");
        std::fs::write(&file, configuration).expect("a configuration");
        let path = |path: &Path| path.to_str().expect("a printable path").to_owned();
        let arguments = [
            ("--config", path(&file)),
            ("--http-address", http.to_string()),
            ("--grpc-address", grpc.to_string()),
            ("--xds-address", xds.to_string()),
            ("--storage", storage.to_owned()),
            ("--data-dir", path(&directory.path().join("data"))),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect::<Vec<_>>();
        let process = serve(&arguments, directory.path());
        let mut convoy = Self { xds, http, grpc, arguments, process, directory };
        convoy.ready().await;
        convoy
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it as a debugger would, or lets it go on.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        self.process = serve(&self.arguments, self.directory.path());
        self.ready().await;
    }

    async fn ready(&mut self) {
        let mut connection = Connection::new(self.http);
        until("Convoy is ready", PATIENCE, async || {
            if let Some(status) = self.process.ended() {
                panic!("convoy serve has ended: {status}");
            }
            let answer = connection.get("convoy", "/readyz").await?;
            if answer.status.is_success() { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    pub fn server(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.server()).expect("an address")
    }

    /// Runs the command line against this Convoy; what it prints.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
        let output = command.args(["--server", &self.server()]).args(arguments).output().await.expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "convoy {}: {}: {errors}", arguments.join(" "), output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// A call of the HTTP API that succeeds: its answer.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = Connection::new(self.http).send(method, "convoy", path, body).await.expect("an answer");
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer.json()
    }

    /// Puts a resource of the user's own; `to` is its type and name, and a query if it has one.
    pub async fn put_resource(&self, to: &str, resource: &Value) {
        self.call(Method::PUT, &format!("/v1/resources/{to}"), resource).await;
    }

    pub async fn delete_resource(&self, to: &str) {
        self.call(Method::DELETE, &format!("/v1/resources/{to}"), &Value::Null).await;
    }

    /// `GET /v1/proxies`, of one node: none before it has connected.
    pub async fn proxy(&self, node: &str) -> Option<Value> {
        let answer = Connection::new(self.http).get("convoy", "/v1/proxies").await.expect("an answer");
        let proxies = answer.json()["proxies"].as_array().cloned().unwrap_or_default();
        proxies.into_iter().find(|proxy| proxy["node"] == node)
    }

    /// Makes a service with its ports, as `name:number:protocol`; the first is the default one.
    pub async fn put_service(&self, namespace: &str, service: &str, ports: &[(&str, u32, Protocol)]) {
        let default_port = ports[0].0.to_owned();
        let port = |(name, port, protocol): &(&str, u32, Protocol)| ServicePort {
            name: (*name).to_owned(),
            protocol: (*protocol).into(),
            port: *port,
        };
        let ports = ports.iter().map(port).collect();
        let (namespace, service) = (namespace.to_owned(), service.to_owned());
        let request = PutServiceRequest { namespace, service, default_port, ports, ..Default::default() };
        self.client().put_service(request).await.expect("made");
    }

    /// The ids of a service's instances, in order.
    pub async fn instances(&self, service: &str) -> Vec<String> {
        let request = ListInstancesRequest { service: service.to_owned(), ..Default::default() };
        match self.client().list_instances(request).await {
            Ok(answer) => answer.instances.into_iter().map(|instance| instance.id).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// The instances that leave a service, from now on.
pub struct Removals(Watch);

impl Removals {
    pub async fn of(convoy: &Convoy, service: &str) -> Self {
        let watch = convoy.client().watch(WatchRequest { service: service.to_owned(), ..Default::default() });
        let mut removals = Self(watch);
        removals.until(WatchKind::Synced).await;
        removals
    }

    pub async fn next(&mut self) -> WatchEvent {
        self.until(WatchKind::Removed).await
    }

    async fn until(&mut self, kind: WatchKind) -> WatchEvent {
        until(&format!("{kind} in a watch"), PATIENCE, async || {
            let event = self.0.next().await.map_err(|error| error.to_string())?;
            if event.kind() == kind { Ok(event) } else { Err(event.kind().to_string()) }
        })
        .await
    }
}

fn serve(arguments: &[String], directory: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    // What the shell that runs the tests has set for its own Convoy is not meant for this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONVOY_") {
            command.env_remove(name);
        }
    }
    Process::spawn("convoy", directory, command.arg("serve").args(arguments))
}
