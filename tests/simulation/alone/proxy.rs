//! A proxy of the one Convoy. What must hold: who is alive, and whom it had, it has all along, whatever becomes of Convoy and of
//! what that knows.

use std::{collections::BTreeMap, fmt::Debug};

use convoy::{
    model::{InstanceKey, ReplicaId},
    xds::protocol::Dialect,
};

use super::{agent::Agent, convoy::Convoy};
use crate::client::Client;

pub struct Proxy {
    client: Client,
    /// To which Convoy it is connected.
    at: ReplicaId,
    pub asleep: bool,
    /// In which incarnation it has had whom.
    has: BTreeMap<InstanceKey, u64>,
}

impl Proxy {
    pub fn connect(id: u64, convoy: &Convoy) -> Self {
        let dialect = [Dialect::StateOfTheWorld, Dialect::Incremental][id as usize % 2];
        let server = (convoy.cache.clone(), convoy.proxies.clone());
        let client = Client::connect(id, &id.to_string(), dialect, "default", None, server);
        Self { client, at: convoy.id, asleep: false, has: BTreeMap::new() }
    }

    pub fn reconnect(&mut self, id: u64, convoy: &Convoy) {
        self.client.reconnect(id, (convoy.cache.clone(), convoy.proxies.clone()));
        self.at = convoy.id;
    }

    /// Takes what there is.
    pub fn exchange(&mut self, id: u64, convoy: &Convoy) {
        if !convoy.runs() {
            return;
        }
        if self.at != convoy.id {
            self.reconnect(id, convoy);
        }
        for _ in 0..if self.asleep { 0 } else { 4 } {
            let (served, took) = (self.client.serve(), self.client.take(false));
            if !served && !took {
                break;
            }
        }
    }

    pub fn check(&mut self, agents: &[Agent]) {
        for agent in agents {
            let there = self.client.endpoints(agent.key.service.name.as_str()).contains_key(&agent.address());
            match self.has.get(&agent.key) {
                _ if !agent.is_alive() => drop(self.has.remove(&agent.key)),
                Some(had) if *had == agent.incarnation => {
                    assert!(there, "{} of {had} is alive, and a proxy has lost it", agent.key);
                }
                _ if there => drop(self.has.insert(agent.key.clone(), agent.incarnation)),
                _ => {}
            }
        }
    }

    pub fn has(&self) -> impl Debug {
        self.client.has()
    }

    pub fn check_view(&self) {
        self.client.check_view();
    }
}
