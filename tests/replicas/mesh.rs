//! Replicas, and agents that heartbeat where they are told to.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use convoy_client::proto::{LeaseOutcome, LeaseStatus, RegisterRequest, RemovalCause};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    etcd::Cluster,
    journal::Journal,
    support::{
        api::Api,
        child::{Child, Home},
        sample::{instance, seconds},
        server::Addresses,
        until,
    },
};

/// Short, so that tests are; heartbeats come five times in it, also on a busy machine.
pub const TTL: Duration = Duration::from_secs(5);
const HEARTBEATS: Duration = Duration::from_secs(1);

pub struct Replica {
    pub child: Child,
    _home: Home,
}

impl Replica {
    /// Goes on with the others of its etcd. `settings` are more lines of configuration.
    pub async fn start(endpoints: &[String], settings: &str) -> Self {
        let endpoints = endpoints.join(", ");
        let home = Home::new(&format!("storage: etcd\netcd: {{endpoints: [{endpoints}]}}\nsettle: 0s\n{settings}"));
        Self { child: Child::start(&home).await, _home: home }
    }

    /// In a network namespace, where it is called at an address; its ports are all its own there.
    pub async fn start_in(namespace: &str, address: Ipv4Addr, settings: &str) -> Self {
        let ports = "http_address: 0.0.0.0:7070\ngrpc_address: 0.0.0.0:7071\n";
        let home = Home::new(&format!("storage: etcd\nsettle: 0s\n{ports}{settings}"));
        let mut child = Child::start_in(&home, namespace).await;
        let [http, grpc] = [child.addresses.http, child.addresses.grpc].map(|at| (address, at.port()).into());
        child.api = Api::new(Addresses { http, grpc, ..child.addresses });
        Self { child, _home: home }
    }

    pub fn api(&self) -> &Api {
        &self.child.api
    }
}

pub async fn mesh<const N: usize>(cluster: &Cluster, settings: &str) -> [Replica; N] {
    let endpoints = cluster.endpoints();
    let mut replicas = Vec::new();
    for _ in 0..N {
        replicas.push(Replica::start(&endpoints, settings).await);
    }
    replicas.try_into().unwrap_or_else(|_| panic!("as many as were started"))
}

/// Agents of one service, each with an instance and a lease, which heartbeat in this process.
pub struct Agents {
    /// By number: the lease, where its agent heartbeats, and what it heard last; nothing while it is silent.
    agents: Arc<Mutex<BTreeMap<u32, Agent>>>,
    _heartbeats: JoinSet<()>,
}

struct Agent {
    lease: String,
    at: Option<Api>,
    heard: Option<LeaseStatus>,
}

impl Agents {
    /// None yet.
    pub fn new() -> Self {
        let agents = Arc::<Mutex<BTreeMap<u32, Agent>>>::default();
        let (mut heartbeats, of) = (JoinSet::new(), agents.clone());
        heartbeats.spawn(async move {
            let mut tick = tokio::time::interval(HEARTBEATS);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let now: Vec<(u32, String, Api)> = {
                    let agents = of.lock().expect("nobody panics with it");
                    let at = |(number, agent): (&u32, &Agent)| Some((*number, agent.lease.clone(), agent.at.clone()?));
                    agents.iter().filter_map(at).collect()
                };
                let mut beats = JoinSet::new();
                for (number, lease, api) in now {
                    beats.spawn(async move { (number, api.heartbeat(&lease).await) });
                }
                while let Some(Ok((number, heard))) = beats.join_next().await {
                    if let Some(agent) = of.lock().expect("nobody panics with it").get_mut(&number) {
                        agent.heard = Some(heard);
                    }
                }
            }
        });
        Self { agents, _heartbeats: heartbeats }
    }

    /// Registers at a replica, and heartbeats there.
    pub async fn join(&self, service: &str, number: u32, replica: &Replica) -> String {
        let ttl = seconds(TTL.as_secs().try_into().expect("a few"));
        let instances = vec![instance(service, number)];
        let request = RegisterRequest { incarnation: Some(1), ttl, instances, ..Default::default() };
        let lease = replica.api().register(request).await.expect("registered").lease.expect("a lease").id;
        let agent = Agent { lease: lease.clone(), at: Some(replica.api().clone()), heard: None };
        self.agents.lock().expect("nobody panics with it").insert(number, agent);
        lease
    }

    pub fn go_to(&self, number: u32, replica: &Replica) {
        self.change(number, |agent| agent.at = Some(replica.api().clone()));
    }

    pub fn fall_silent(&self, number: u32) {
        self.change(number, |agent| agent.at = None);
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Agent)) {
        change(self.agents.lock().expect("nobody panics with it").get_mut(&number).expect("it has joined"));
    }

    /// What an agent heard last.
    pub fn heard(&self, number: u32) -> Option<LeaseStatus> {
        self.agents.lock().expect("nobody panics with it").get(&number)?.heard.clone()
    }

    /// Those that are sent to another replica.
    pub fn sent_elsewhere(&self) -> Vec<u32> {
        let agents = self.agents.lock().expect("nobody panics with it");
        let sent = |agent: &Agent| agent.heard.as_ref().is_some_and(|heard| heard.elsewhere);
        agents.iter().filter(|(_, agent)| sent(agent)).map(|(number, _)| *number).collect()
    }

    /// Waits until an agent hears this.
    pub async fn hears(&self, number: u32, what: &str, is: impl Fn(&LeaseStatus) -> bool) {
        until(what, async || self.heard(number).filter(&is)).await;
    }

    /// Whether all of them heard last that they are kept.
    pub fn all_kept(&self) -> bool {
        let agents = self.agents.lock().expect("nobody panics with it");
        agents.values().all(|agent| agent.heard.as_ref().is_none_or(|heard| heard.outcome() == LeaseOutcome::Kept))
    }
}

/// Who has left, in order, and why, when so many have.
pub async fn left(journal: &Journal, count: usize) -> Vec<(String, RemovalCause)> {
    journal.all_left(0, count).await.into_iter().map(|(id, cause, _)| (id, cause)).collect()
}

/// Waits until a replica has so many instances of a service.
pub async fn has(replica: &Replica, service: &str, count: usize) {
    let what = format!("{count} instances of {service}");
    until(&what, async || (replica.api().ids(service).await.len() == count).then_some(())).await;
}
