//! A Convoy with a fleet of agents, a proxy, and a watch: what a fault is put upon, and what is seen of it.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use convoy_client::proto::{BrakeScope, Instance, ListInstancesRequest, Verdict};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use serde_json::Value;

use crate::{
    explain::Explained,
    fleet::{Fleet, Orders, SERVICE, id},
    journal::Journal,
    proxy::{NODE, Proxy},
    support::{
        child::{Child, Home},
        until, within,
    },
};

/// Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long after a change it may be explained in the old way: to the proxy's ACK.
const EXPLAINED: Duration = PATIENCE;

/// Who somebody is, for as long as nobody had to register anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub incarnation: u64,
    pub lease: String,
}

pub struct Field {
    pub fleet: Fleet,
    pub journal: Journal,
    pub proxy: Proxy,
    pub convoy: Child,
    /// Who was there at the start, by id.
    pub identities: BTreeMap<String, Identity>,
    // Last: its files are in use until the process has ended.
    _home: Home,
}

impl Field {
    /// All agents are registered and healthy, and the proxy has them.
    pub async fn start(settings: &str, orders: Orders, numbers: Range<u32>) -> Self {
        let home = Home::new(&format!("storage: memory\nsettle: 0s\n{settings}"));
        let convoy = Child::start(&home).await;
        let mut fleet = Fleet::of(convoy.addresses.grpc, orders);
        fleet.start(numbers.clone());
        let expected = numbers.len();
        let registered = async || {
            let request = ListInstancesRequest { service: SERVICE.into(), ..Default::default() };
            // Before the first of them there is no service.
            let listed = convoy.api.registry.clone().list_instances(request).await.ok()?;
            (listed.into_inner().instances.len() == expected).then_some(())
        };
        until("all agents", registered).await;
        let journal = Journal::begin(&convoy.api).await;
        let proxy = Proxy::connect(convoy.addresses).await;
        until("all endpoints", async || (proxy.count(HealthStatus::Healthy) == expected).then_some(())).await;
        let mut field = Self { fleet, journal, proxy, convoy, identities: BTreeMap::new(), _home: home };
        field.identities = field.identities().await;
        field
    }

    pub async fn instances(&self) -> Vec<Instance> {
        let request = ListInstancesRequest { service: SERVICE.into(), ..Default::default() };
        let mut registry = self.convoy.api.registry.clone();
        within("list", registry.list_instances(request)).await.expect("a service").into_inner().instances
    }

    pub async fn identities(&self) -> BTreeMap<String, Identity> {
        let identity =
            |instance: Instance| (instance.id, Identity { incarnation: instance.incarnation, lease: instance.lease });
        self.instances().await.into_iter().map(identity).collect()
    }

    /// How many instances have each verdict.
    pub async fn verdicts(&self) -> BTreeMap<Verdict, usize> {
        let mut verdicts = BTreeMap::new();
        for instance in self.instances().await {
            *verdicts.entry(verdict(&instance)).or_default() += 1;
        }
        verdicts
    }

    /// Waits until all that there is are so many of this verdict; how long it took.
    pub async fn all_are(&self, verdict: Verdict, count: usize) -> Duration {
        let begun = Instant::now();
        let mut again = tokio::time::interval(Duration::from_millis(5));
        loop {
            again.tick().await;
            let verdicts = self.verdicts().await;
            if verdicts == BTreeMap::from([(verdict, count)]) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "not {count} instances, all {verdict}, but {verdicts:?}");
        }
    }

    /// Waits until only these are left; how long it took.
    pub async fn only_are_left(&self, ids: &[String]) -> Duration {
        let begun = Instant::now();
        until("those that go to be gone", async || (self.convoy.api.ids(SERVICE).await == *ids).then_some(())).await;
        begun.elapsed()
    }

    /// Looks all the time, for so long, that what must hold does hold.
    pub async fn holds(&self, time: Duration, mut look: impl AsyncFnMut()) {
        let begun = Instant::now();
        let mut again = tokio::time::interval(Duration::from_millis(100));
        while begun.elapsed() < time {
            again.tick().await;
            look().await;
        }
    }

    /// Why an instance is, or is not, in the proxy's endpoints.
    pub async fn explain(&self, number: u32) -> Explained {
        let path = format!("/v1/namespaces/default/services/{SERVICE}/instances/{}/explain?proxy={NODE}", id(number));
        Explained(self.convoy.api.http.get(&path).await.ok())
    }

    /// Waits until it is explained so, in one sentence.
    pub async fn is_explained(&self, number: u32, summary: &str) -> Explained {
        let mut explained = self.explain(number).await;
        let looking = async {
            let mut again = tokio::time::interval(Duration::from_millis(10));
            while explained.summary() != summary {
                again.tick().await;
                explained = self.explain(number).await;
            }
        };
        // What is said in its place is told below.
        let _ = tokio::time::timeout(EXPLAINED, looking).await;
        explained.says(summary);
        explained
    }

    /// Runs the command line against this Convoy; what it prints.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.env_clear().args(["--server", &format!("http://{}", self.convoy.addresses.grpc)]).args(arguments);
        let output = within("a command", command.output()).await.expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What is being braked.
    pub async fn brakes(&self) -> Vec<Value> {
        let brakes = self.convoy.api.http.get("/v1/brakes").await.ok();
        brakes["brakes"].as_array().cloned().unwrap_or_default()
    }
}

pub fn verdict(instance: &Instance) -> Verdict {
    instance.health.as_ref().map(|health| health.verdict()).unwrap_or_default()
}

/// By what an instance is braked.
pub fn braked_by(instance: &Instance) -> Option<BrakeScope> {
    Some(instance.health.as_ref()?.brake.as_ref()?.scope())
}
