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
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

pub use self::service::server;
use crate::{
    model::{LeaseId, Replica, ReplicaId},
    registry::{
        Registry,
        lease::{HeardHere, Report},
        timers::Notice,
    },
};

#[allow(clippy::wildcard_imports, reason = "generated")]
pub mod rpc {
    tonic::include_proto!("convoy.peers.v1");
}
use rpc::{Renewal, TellRequest, TellResponse, peers_client::PeersClient};

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
    channels: Arc<Channels>,
    link: Arc<dyn Link>,
    overdue: Arc<Overdue>,
}

/// How another replica is told.
pub trait Link: Debug + Send + Sync {
    fn tell(
        &self,
        to: ReplicaId,
        replica: &Replica,
        request: TellRequest,
    ) -> BoxFuture<'static, Result<TellResponse, Status>>;
}

/// Over their gRPC APIs.
#[derive(Debug, Default)]
struct Channels(Mutex<HashMap<ReplicaId, Channel>>);

impl Channels {
    fn channel(&self, id: ReplicaId, replica: &Replica) -> Channel {
        let mut channels = self.0.lock().expect("nothing panics while it holds this lock");
        let connect = || {
            let endpoint = Endpoint::from(uri(replica)).connect_timeout(CONNECT).tcp_nodelay(true);
            endpoint.http2_keep_alive_interval(Duration::from_secs(5)).connect_lazy()
        };
        channels.entry(id).or_insert_with(connect).clone()
    }

    fn client(&self, id: ReplicaId, replica: &Replica) -> PeersClient<Channel> {
        PeersClient::new(self.channel(id, replica)).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Forgets those that have gone.
    fn keep(&self, is_here: impl Fn(&ReplicaId) -> bool) {
        self.0.lock().expect("nothing panics while it holds this lock").retain(|id, _| is_here(id));
    }
}

impl Link for Channels {
    fn tell(
        &self,
        to: ReplicaId,
        replica: &Replica,
        request: TellRequest,
    ) -> BoxFuture<'static, Result<TellResponse, Status>> {
        let mut client = self.client(to, replica);
        Box::pin(async move { client.tell(request).await.map(Response::into_inner) })
    }
}

/// What each other replica has said last of its overdue leases. State, and not a queue: what the registry is told is what
/// has changed since it was told last.
#[derive(Debug, Default)]
struct Overdue {
    said: Mutex<HashMap<ReplicaId, Arc<HashSet<LeaseId>>>>,
    news: Notify,
}

impl Overdue {
    fn say(&self, by: ReplicaId, leases: HashSet<LeaseId>) {
        self.lock().insert(by, leases.into());
        self.news.notify_one();
    }

    /// What a replica said that has gone stands no longer.
    fn keep(&self, is_here: impl Fn(&ReplicaId) -> bool) {
        let mut said = self.lock();
        let before = said.len();
        said.retain(|id, _| is_here(id));
        if said.len() < before {
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReplicaId, Arc<HashSet<LeaseId>>>> {
        self.said.lock().expect("nothing panics while it holds this lock")
    }
}

/// What has changed from one time to another.
fn changes(
    before: &HashMap<ReplicaId, Arc<HashSet<LeaseId>>>,
    after: &HashMap<ReplicaId, Arc<HashSet<LeaseId>>>,
) -> Vec<Notice> {
    let none = Arc::default();
    let mut notices = Vec::new();
    for id in before.keys().chain(after.keys().filter(|id| !before.contains_key(id))) {
        let (was, is) = (before.get(id).unwrap_or(&none), after.get(id).unwrap_or(&none));
        if !Arc::ptr_eq(was, is) {
            notices.extend(was.difference(is).map(|lease| Notice::ReturnedElsewhere(*lease)));
            notices.extend(is.difference(was).map(|lease| Notice::OverdueElsewhere(*lease)));
        }
    }
    notices
}

impl Peers {
    pub fn new(registry: Registry) -> Self {
        let channels = Arc::<Channels>::default();
        Self { registry, link: channels.clone(), channels, overdue: Arc::default() }
    }

    /// Told by other ways, as in a simulation.
    pub fn over(registry: Registry, link: Arc<dyn Link>) -> Self {
        Self { link, ..Self::new(registry) }
    }

    /// What another replica tells this one.
    pub fn hear(&self, request: TellRequest) -> Result<TellResponse, Status> {
        let TellRequest { from, to, renewals, overdue, reports } = request;
        if ReplicaId(to) != self.registry.replica() {
            return Err(Status::failed_precondition("another replica is at this address now"));
        }
        for Renewal { lease, load } in reports {
            if let (Some(lease), Some(load)) = (decode(&lease).next(), load) {
                self.registry.reported(lease, load);
            }
        }
        let heard = |Renewal { lease, load }| {
            let lease = decode(&lease).next()?;
            self.registry.renew_for(lease, load).then_some(lease)
        };
        let only_there = encode(renewals.into_iter().filter_map(heard));
        if let Some(overdue) = overdue {
            self.overdue.say(ReplicaId(from), decode(&overdue.leases).collect());
        }
        Ok(TellResponse { only_there })
    }

    /// All others that are here.
    fn others(&self) -> Vec<(ReplicaId, Arc<Replica>)> {
        let me = self.registry.replica();
        let snapshot = self.registry.snapshot();
        snapshot.replicas.iter().filter(|(id, _)| **id != me).map(|(id, replica)| (*id, replica.clone())).collect()
    }

    /// Forgets those that have gone.
    fn keep(&self, here: &[(ReplicaId, Arc<Replica>)]) {
        let is_here = |id: &ReplicaId| here.iter().any(|(other, _)| other == id);
        self.channels.keep(is_here);
        self.overdue.keep(is_here);
    }

    /// Tells the others, and the registry what they say, for ever.
    pub async fn run(self) {
        tokio::join!(self.tell_others(), self.hear_overdue());
    }

    async fn hear_overdue(&self) {
        let mut before = HashMap::new();
        loop {
            self.overdue.news.notified().await;
            let now = self.overdue.lock().clone();
            self.registry.note(changes(&before, &now)).await;
            before = now;
        }
    }

    async fn tell_others(&self) {
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
        let mut overdue = overdue.map(|leases| rpc::Overdue { leases: encode(leases.iter().copied()) });
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
            let outcome = timeout(PATIENCE, self.link.tell(id, replica, request)).await;
            let Ok(Ok(answer)) = outcome else {
                tracing::debug!(replica = %id, ?outcome, "a replica does not hear");
                self.adopt(some.iter().chain(rest).map(|one| one.lease).collect());
                return false;
            };
            let only_here: HashSet<LeaseId> = decode(&answer.only_there).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_told_what_has_changed_and_that_who_is_gone_says_nothing() {
        let said = |of: &[(u64, &[u128])]| {
            let leases = |leases: &[u128]| Arc::new(leases.iter().copied().map(LeaseId).collect::<HashSet<_>>());
            of.iter().map(|(id, all)| (ReplicaId(*id), leases(all))).collect::<HashMap<_, _>>()
        };
        let told = |before: &[(u64, &[u128])], after: &[(u64, &[u128])]| {
            let mut told: Vec<String> =
                changes(&said(before), &said(after)).iter().map(|of| format!("{of:?}")).collect();
            told.sort_unstable();
            told
        };
        let overdue = |lease| format!("{:?}", Notice::OverdueElsewhere(LeaseId(lease)));
        let returned = |lease| format!("{:?}", Notice::ReturnedElsewhere(LeaseId(lease)));
        assert_eq!(told(&[], &[(1, &[7, 8]), (2, &[])]), [overdue(7), overdue(8)]);
        assert_eq!(told(&[(1, &[7, 8]), (2, &[9])], &[(1, &[8, 5]), (2, &[9])]), [overdue(5), returned(7)]);
        assert_eq!(told(&[(1, &[7]), (2, &[9])], &[(2, &[9])]), [returned(7)]);
    }

    #[test]
    fn leases_read_as_they_are_written() {
        let leases = [LeaseId(1), LeaseId(u128::MAX)];
        assert_eq!(decode(&encode(leases.into_iter())).collect::<Vec<_>>(), leases);
        assert_eq!(decode(&[1; 15]).count(), 0);
    }
}
