//! A proxy of the mesh: it takes what it is sent, now and then not for a while, and goes to another replica when its own is
//! gone. What must hold: an instance that is alive, and that it had, it has all along, whichever replica tells it; and what
//! it could know of one that is alive, it has.

use std::{collections::BTreeMap, fmt::Debug, net::IpAddr, time::Duration};

use convoy::{
    model::{InstanceKey, ReplicaId},
    xds::protocol::Dialect,
};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use tokio::time::Instant;

use super::{TOLD, node::Node};
use crate::client::Client;

/// After this it finds out that its replica does not answer.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// What was told is here by then.
const SENT: Duration = Duration::from_secs(1);

pub struct Proxy {
    client: Client,
    pub at: ReplicaId,
    connected: Instant,
    /// It has come to another replica, and has yet to hear what that knows.
    pub catches_up: bool,
    pub asleep: bool,
    /// It has nothing more to take.
    is_idle: bool,
    /// Since when its replica does not answer.
    silence: Option<Instant>,
    /// In which incarnation it has had whom.
    has: BTreeMap<InstanceKey, u64>,
}

/// An instance that is alive, as all that was told says.
pub struct Alive<'a> {
    pub key: &'a InstanceKey,
    pub address: IpAddr,
    pub incarnation: u64,
}

impl Proxy {
    pub fn connect(id: u64, name: &str, dialect: Dialect, node: &Node) -> Self {
        let server = (node.cache.clone(), node.proxies.clone());
        Self {
            client: node.wall.on(|| Client::connect(id, name, dialect, "default", None, server)),
            at: node.id,
            connected: Instant::now(),
            catches_up: true,
            asleep: false,
            is_idle: false,
            silence: None,
            has: BTreeMap::new(),
        }
    }

    /// Goes to another replica, or comes back to its own.
    pub fn reconnect(&mut self, id: u64, node: &Node) {
        let server = (node.cache.clone(), node.proxies.clone());
        node.wall.on(|| self.client.reconnect(id, server));
        (self.at, self.connected, self.silence) = (node.id, Instant::now(), None);
        (self.catches_up, self.is_idle) = (true, false);
        if !node.is_up_to_date(TOLD) {
            self.has.clear();
        }
    }

    /// Takes what there is; whether it has to look for another replica.
    pub fn exchange(&mut self, node: Option<&Node>) -> bool {
        let Some(node) = node else { return true };
        if !node.runs() {
            let since = *self.silence.get_or_insert_with(Instant::now);
            return since.elapsed() > KEEP_ALIVE;
        }
        self.silence = None;
        self.is_idle = false;
        for _ in 0..if self.asleep { 0 } else { 4 } {
            let (served, took) = node.wall.on(|| (self.client.serve(), self.client.take(false)));
            if !served && !took {
                self.is_idle = true;
                self.catches_up &= !node.is_up_to_date(TOLD);
                break;
            }
        }
        false
    }

    pub fn check(&mut self, node: Option<&Node>, alive: &[Alive<'_>]) {
        self.has.retain(|key, incarnation| alive.iter().any(|one| one.key == key && one.incarnation == *incarnation));
        let knows = node.is_some_and(|node| node.is_up_to_date(TOLD + SENT) && node.runs());
        let must = self.is_idle && knows && self.connected.elapsed() > TOLD + SENT;
        for one in alive {
            let is_there = self.client.endpoints(one.key.service.name.as_str()).contains_key(&one.address);
            let had = self.has.contains_key(one.key);
            assert!(
                is_there || !(had || must),
                "{} of {} is alive, and a proxy lacks it (had it: {had}, could know of it: {must})",
                one.key,
                one.incarnation
            );
            if is_there && self.is_idle {
                self.has.insert(one.key.clone(), one.incarnation);
            }
        }
    }

    /// Whether it would send new requests there.
    pub fn uses(&self, key: &InstanceKey, address: IpAddr) -> bool {
        let health = self.client.endpoints(key.service.name.as_str()).get(&address);
        health.is_some_and(|health| *health != HealthStatus::Draining)
    }

    pub fn has(&self) -> impl Debug {
        self.client.has()
    }

    pub fn check_view(&self) {
        self.client.check_view();
    }
}
