//! What replicas of one mesh tell each other directly, because it is not worth a write or would come too late by one:
//! heartbeats that one of them hears for a lease of another, the load that agents report, and which leases are overdue, so
//! that each one's brake counts all of them. What it is about is lost without harm: a heartbeat that cannot be passed on makes the lease the hearer's own,
//! and who is overdue is said anew.
//!
//! Each replica asks the others about their proxies as well (`elsewhere`). Replicas know each other from the store.

pub mod elsewhere;
mod service;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::transport::{Channel, Endpoint};

pub use self::service::server;
use crate::{
    model::{LeaseId, Replica, ReplicaId},
    registry::{
        Registry,
        lease::{HeardHere, Report},
    },
};

#[allow(clippy::wildcard_imports, reason = "generated")]
pub mod rpc {
    tonic::include_proto!("convoy.peers.v1");
}
use rpc::{Overdue, Renewal, TellRequest, peers_client::PeersClient};

/// How often others are told what there is.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long one may take to hear it.
const PATIENCE: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_millis(500);
/// Renewals in one message.
const RENEWALS: usize = 10_000;
/// A message may be this large: all overdue leases of a replica are one.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// A lease that is heard here so often in a row, and not at its owner, becomes this replica's.
const HEARINGS: u8 = 3;

/// The other replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    registry: Registry,
    channels: Arc<Mutex<HashMap<ReplicaId, Channel>>>,
    /// What each has said last of its overdue leases.
    overdue: Arc<Mutex<HashMap<ReplicaId, HashSet<LeaseId>>>>,
}

impl Peers {
    pub fn new(registry: Registry) -> Self {
        Self { registry, channels: Arc::default(), overdue: Arc::default() }
    }

    /// All others that are here.
    fn others(&self) -> Vec<(ReplicaId, Arc<Replica>)> {
        let me = self.registry.replica();
        let snapshot = self.registry.snapshot();
        snapshot.replicas.iter().filter(|(id, _)| **id != me).map(|(id, replica)| (*id, replica.clone())).collect()
    }

    fn client(&self, id: ReplicaId, replica: &Replica) -> PeersClient<Channel> {
        let mut channels = self.channels.lock().expect("nothing panics while it holds this lock");
        let connect = || {
            let endpoint = Endpoint::from(uri(replica)).connect_timeout(CONNECT).tcp_nodelay(true);
            endpoint.http2_keep_alive_interval(Duration::from_secs(5)).connect_lazy()
        };
        let channel = channels.entry(id).or_insert_with(connect).clone();
        PeersClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Forgets those that have gone.
    fn keep(&self, here: &[(ReplicaId, Arc<Replica>)]) {
        let is_here = |id: &ReplicaId| here.iter().any(|(other, _)| other == id);
        self.channels.lock().expect("nothing panics while it holds this lock").retain(|id, _| is_here(id));
        self.overdue.lock().expect("nothing panics while it holds this lock").retain(|id, _| is_here(id));
    }

    /// Tells the others, for ever.
    pub async fn run(self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What each was told last of those that are overdue.
        let mut told: HashMap<ReplicaId, Arc<Vec<LeaseId>>> = HashMap::new();
        loop {
            tick.tick().await;
            self.registry.send_elsewhere();
            let others = self.others();
            self.keep(&others);
            told.retain(|id, _| others.iter().any(|(other, _)| other == id));
            let mut heard: BTreeMap<ReplicaId, Vec<HeardHere>> = BTreeMap::new();
            for one in self.registry.take_heard() {
                heard.entry(one.owner).or_default().push(one);
            }
            let overdue = self.registry.overdue();
            // One that does not hear it hears the next ones.
            let reports = Arc::new(self.registry.take_reported(!others.is_empty()));
            let mut telling = JoinSet::new();
            for (id, replica) in others {
                let renewals = heard.remove(&id).unwrap_or_default();
                let known = told.get(&id).map_or_else(|| overdue.is_empty(), |told| Arc::ptr_eq(told, &overdue));
                if !renewals.is_empty() || !known || !reports.is_empty() {
                    let (peers, reports, overdue) = (self.clone(), reports.clone(), (!known).then(|| overdue.clone()));
                    telling.spawn(async move { (id, peers.tell(id, &replica, renewals, &reports, overdue).await) });
                }
            }
            // Their owner is gone.
            self.adopt(heard.into_values().flatten().map(|one| one.lease).collect());
            while let Some(outcome) = telling.join_next().await {
                if let Ok((id, true)) = outcome {
                    told.insert(id, overdue.clone());
                }
            }
        }
    }

    /// Tells one; whether it heard all. What it did not hear of a lease is this replica's to keep from now on.
    async fn tell(
        &self,
        id: ReplicaId,
        replica: &Replica,
        renewals: Vec<HeardHere>,
        reports: &[(LeaseId, Arc<Report>)],
        overdue: Option<Arc<Vec<LeaseId>>>,
    ) -> bool {
        let mut overdue = overdue.map(|leases| Overdue { leases: encode(leases.iter().copied()) });
        let (mut rest, mut reports) = (&renewals[..], reports);
        let renewal = |lease: LeaseId, report: Option<&Arc<Report>>| {
            let load = report.map(|report| report.load.clone());
            Renewal { lease: lease.0.to_be_bytes().into(), load }
        };
        loop {
            let (some, reported);
            (some, rest) = rest.split_at(rest.len().min(RENEWALS));
            (reported, reports) = reports.split_at(reports.len().min(RENEWALS));
            let request = TellRequest {
                from: self.registry.replica().0,
                to: id.0,
                renewals: some.iter().map(|one| renewal(one.lease, one.load.as_ref())).collect(),
                overdue: overdue.take(),
                reports: reported.iter().map(|(lease, report)| renewal(*lease, Some(report))).collect(),
            };
            let mut client = self.client(id, replica);
            let outcome = timeout(PATIENCE, client.tell(request)).await;
            let Ok(Ok(answer)) = outcome else {
                tracing::debug!(replica = %id, ?outcome, "a replica does not hear");
                self.adopt(some.iter().chain(rest).map(|one| one.lease).collect());
                return false;
            };
            let only_here: HashSet<LeaseId> = decode(&answer.into_inner().only_there).collect();
            let count = |one: &&HeardHere| self.registry.count_hearing(one.lease, only_here.contains(&one.lease));
            self.adopt(some.iter().filter(|one| count(one) >= HEARINGS).map(|one| one.lease).collect());
            if rest.is_empty() && reports.is_empty() {
                return true;
            }
        }
    }

    fn adopt(&self, leases: Vec<LeaseId>) {
        if !leases.is_empty() {
            self.registry.adopt(leases);
        }
    }
}

fn uri(replica: &Replica) -> tonic::transport::Uri {
    let uri =
        tonic::transport::Uri::builder().scheme("http").authority(replica.address.to_string()).path_and_query("/");
    uri.build().expect("an address and a port are an authority")
}

fn encode(leases: impl Iterator<Item = LeaseId>) -> Vec<u8> {
    leases.flat_map(|lease| lease.0.to_be_bytes()).collect()
}

fn decode(leases: &[u8]) -> impl Iterator<Item = LeaseId> {
    leases.as_chunks().0.iter().map(|lease| LeaseId(u128::from_be_bytes(*lease)))
}
