//! What is known of the proxies, connected or just gone, for people: read from their sessions when somebody asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use convoy_client::proto;
use dashmap::DashMap;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{
    departed::{Departed, Memory},
    index::{Mailbox, News},
    node::Client,
    protocol::{Dialect, Now, TypeStatus},
    resource::Version,
    session::Session,
    standing::Lag,
};
use crate::{
    model::{Revision, UnixMillis, wire, wire::time},
    translate::ResourceType,
};

/// One stream of a client that has said who it is.
#[derive(Debug)]
pub struct Stream {
    pub client: Client,
    pub address: Option<SocketAddr>,
    pub dialect: Dialect,
    pub connected_at: UnixMillis,
    pub session: Mutex<Session>,
    /// What is marked here is on its way into the session.
    pub mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Connected {
    since: Instant,
    stream: Arc<Stream>,
}

#[derive(Debug, Default)]
pub struct Proxies {
    streams: DashMap<u64, Connected>,
    departed: Mutex<Memory>,
    changed: Notify,
}

impl Proxies {
    pub fn insert(&self, id: u64, stream: Arc<Stream>) {
        self.streams.insert(id, Connected { since: Instant::now(), stream });
        self.raise();
    }

    /// The stream has ended; up to `told` everything was marked in its mailbox. It is still in the index: one that looks
    /// sees it as it was, here or among the departed.
    pub fn remove(&self, id: u64, told: Revision, now: Now) {
        let Some((since, stream)) = self.streams.get(&id).map(|one| (one.since, one.stream.clone())) else { return };
        let departed = stream.departed(told, now);
        lock(&self.departed).remember(departed, since);
        self.streams.remove(&id);
        self.raise();
    }

    /// Sends a node once more what it refused; gives how much that is, and none if it is not connected.
    pub fn retry(&self, node: &str) -> Option<usize> {
        let mut streams = self.streams();
        streams.retain(|stream| stream.client.id == node);
        let retry = |stream: &Arc<Stream>| {
            let retried = lock(&stream.session).retry();
            stream.mailbox.wake();
            retried
        };
        (!streams.is_empty()).then(|| streams.iter().map(retry).sum())
    }

    /// A stream's standing has changed.
    pub fn raise(&self) {
        self.changed.notify_waiters();
    }

    /// The next change of somebody's standing: enabled before one looks, it misses none.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Those connected, in no order.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.iter().map(|connected| connected.stream.clone()).collect()
    }

    /// Who has left in the last minutes, back or not.
    pub fn departed(&self) -> Vec<Arc<Departed>> {
        lock(&self.departed).all(Instant::now())
    }

    /// Of a node, or all: who is connected, and who has left and is not back; by node id, then connection time. Metadata
    /// is told only of one node: of all it would be too much.
    pub fn list(&self, node: Option<&str>, told: Revision) -> Vec<proto::Proxy> {
        let wanted = |id: &str| node.is_none_or(|node| node == id);
        let streams = self.streams().into_iter().filter(|stream| wanted(&stream.client.id));
        let describe = |stream: Arc<Stream>| {
            let metadata = node.map(|_| stream.client.node.metadata.to_string());
            proto::Proxy { metadata: metadata.unwrap_or_default(), ..stream.describe(told) }
        };
        let mut proxies: Vec<proto::Proxy> = streams.map(describe).collect();
        let back: BTreeSet<String> = proxies.iter().map(|proxy| proxy.node.clone()).collect();
        let departed = self.departed();
        let gone = departed.iter().map(|departed| &departed.proxy);
        proxies.extend(gone.filter(|proxy| wanted(&proxy.node) && !back.contains(&proxy.node)).cloned());
        proxies.sort_by(|a, b| (&a.node, key(a)).cmp(&(&b.node, key(b))));
        proxies
    }
}

/// By node id, then connection time.
pub fn in_order(streams: &mut [Arc<Stream>]) {
    streams.sort_by(|a, b| (&a.client.id, a.connected_at).cmp(&(&b.client.id, b.connected_at)));
}

fn key(proxy: &proto::Proxy) -> Option<(i64, i32)> {
    proxy.connected_at.map(|at| (at.seconds, at.nanos))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind these locks is only read here, or written whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session, and the news that are on their way into it: together they know all that is due.
#[derive(Debug)]
pub struct Standing<'a> {
    pub session: &'a Session,
    news: &'a News,
}

impl Standing<'_> {
    /// As `Session::pending`.
    pub fn pending(&self, kind: ResourceType) -> Option<Revision> {
        let names = self.news.names.iter().filter(|((of, _), _)| *of == kind).map(|(_, since)| *since);
        // Of which resources it is to have others is not looked at yet.
        names.chain(self.news.selection).chain(self.session.pending(kind)).min()
    }

    /// As `Session::lags`.
    pub fn lags(&self, kind: ResourceType, name: &Arc<str>, revision: Revision) -> Option<Lag> {
        let told = self.news.names.get(&(kind, name.clone())).copied();
        match told.into_iter().chain(self.news.selection).min().filter(|since| *since <= revision) {
            Some(_) if self.session.is_subscribed(kind, name) => Some(Lag::Pending),
            _ => self.session.lags(kind, name, revision),
        }
    }

    /// As `Session::lagging`.
    pub fn lagging(&self, kind: ResourceType) -> BTreeMap<Arc<str>, Lag> {
        let names = self.news.names.keys().filter(|(of, _)| *of == kind).map(|(_, name)| (name.clone(), Lag::Pending));
        self.session.lagging(kind).into_iter().chain(names).collect()
    }

    /// Up to which revision the client has everything, if everything up to `told` has been told.
    pub fn synced(&self, told: Revision) -> Option<Revision> {
        self.session.kinds().map(|kind| synced(self.pending(kind), told)).min().unwrap_or(Some(told))
    }

    /// The client's last refusal of a type, in its words.
    pub fn refusal(&self, kind: ResourceType) -> String {
        let mut status = self.session.status().filter(|(of, _)| *of == kind);
        status.next().and_then(|(_, status)| status.last_nack).map(|nack| nack.message).unwrap_or_default()
    }

    /// Each type as it is shown, if everything up to `told` has been told.
    pub fn types(&self, told: Revision, connected_at: UnixMillis) -> Vec<proto::ProxyType> {
        let of = |(kind, status): (ResourceType, TypeStatus)| {
            let (pending, rejected) = (self.pending(kind), self.session.has_rejected(kind));
            describe_type(kind, status, sync(pending.is_some(), rejected), synced(pending, told), connected_at)
        };
        self.session.status().map(of).collect()
    }
}

/// The revision up to which there is nothing pending; none if what is pending may be of any.
fn synced(pending: Option<Revision>, told: Revision) -> Option<Revision> {
    match pending {
        None => Some(told),
        Some(oldest) => oldest.0.checked_sub(1).map(|before| told.min(Revision(before))),
    }
}

pub fn sync(pending: bool, rejected: bool) -> proto::SyncState {
    match (rejected, pending) {
        (true, _) => proto::SyncState::Rejected,
        (false, true) => proto::SyncState::Pending,
        (false, false) => proto::SyncState::Synced,
    }
}

/// Of several parts: the worst of them.
fn worst(parts: impl Iterator<Item = proto::SyncState>) -> proto::SyncState {
    parts.fold(proto::SyncState::Synced, |worst, part| match (worst, part) {
        (proto::SyncState::Rejected, _) | (_, proto::SyncState::Rejected) => proto::SyncState::Rejected,
        (proto::SyncState::Pending, _) | (_, proto::SyncState::Pending) => proto::SyncState::Pending,
        _ => worst,
    })
}

impl Stream {
    /// Looks at the session and its mailbox at once: the stream moves names from the one to the other under this lock.
    pub fn look<T>(&self, look: impl FnOnce(&Standing<'_>) -> T) -> T {
        let session = lock(&self.session);
        self.mailbox.look(|news| look(&Standing { session: &session, news }))
    }

    pub fn address(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// As it is shown, if everything up to `told` has been told.
    pub fn describe(&self, told: Revision) -> proto::Proxy {
        let dialect = match self.dialect {
            Dialect::StateOfTheWorld => proto::Dialect::StateOfTheWorld,
            Dialect::Incremental => proto::Dialect::Incremental,
        };
        let client = &self.client;
        let types = self.look(|standing| standing.types(told, self.connected_at));
        // Nothing asked for, nothing missing.
        let synced = types.iter().map(|of| of.synced_revision).min().unwrap_or(Some(told.0));
        proto::Proxy {
            node: client.id.clone(),
            cluster: client.cluster.clone(),
            namespace: client.view.namespace.to_string(),
            user_agent: client.user_agent.clone(),
            address: self.address(),
            dialect: dialect.into(),
            connected_at: Some(time(self.connected_at)),
            sync: worst(types.iter().map(proto::ProxyType::sync)).into(),
            synced_revision: synced,
            types,
            locality: wire::locality(&client.node.locality),
            metadata: String::new(),
            connected: true,
            own_names: self.look(|standing| standing.session.own_names()) as u64,
            left_at: None,
            replica: String::new(),
        }
    }

    fn departed(&self, told: Revision, now: Now) -> Departed {
        let proxy = proto::Proxy { connected: false, left_at: Some(time(now.unix)), ..self.describe(told) };
        let (endpoints, lagging) = self.look(|standing| {
            let named = standing.session.names(ResourceType::Endpoint).cloned().unwrap_or_default();
            (named, standing.lagging(ResourceType::Endpoint))
        });
        Departed { proxy, left_at: now.at, told, endpoints, lagging }
    }
}

fn describe_type(
    kind: ResourceType,
    status: TypeStatus,
    sync: proto::SyncState,
    synced: Option<Revision>,
    connected_at: UnixMillis,
) -> proto::ProxyType {
    // Who came back with what it has had it then.
    let brought = status.version_acked.is_some().then_some(connected_at);
    let version = |version: Option<Version>| version.map(|version| version.to_string()).unwrap_or_default();
    proto::ProxyType {
        r#type: kind.as_str().into(),
        sync: sync.into(),
        wildcard: status.wildcard,
        subscribed: u32::try_from(status.subscribed).unwrap_or(u32::MAX),
        version_sent: version(status.version_sent),
        version_acked: version(status.version_acked),
        acked_at: status.acked_at.or(brought).map(time),
        responses: status.responses,
        nacks: status.nacks,
        last_nack: status.last_nack.map(|nack| proto::Nack {
            message: nack.message,
            version: nack.version,
            resources: nack.resources.iter().map(ToString::to_string).collect(),
            at: Some(time(nack.at)),
        }),
        synced_revision: synced.map(|revision| revision.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::SyncState::{Pending, Rejected, Synced};

    #[test]
    fn a_proxy_has_what_was_told_and_is_not_pending() {
        for (pending, told, expected) in
            [(None, 7, Some(7)), (Some(5), 7, Some(4)), (Some(9), 7, Some(7)), (Some(0), 7, None)]
        {
            let revision = synced(pending.map(Revision), Revision(told));
            assert_eq!(revision, expected.map(Revision), "{pending:?} {told}");
        }
    }

    #[test]
    fn who_has_yet_to_look_which_resources_are_meant_for_it_is_behind() {
        let session = Session::new(Dialect::Incremental, None, Default::default());
        let news = News { selection: Some(Revision(5)), ..News::default() };
        let standing = Standing { session: &session, news: &news };
        assert_eq!(standing.pending(ResourceType::Cluster), Some(Revision(5)));
    }

    #[test]
    fn the_worst_part_is_told() {
        for (parts, expected) in [
            (&[][..], Synced),
            (&[Synced, Synced], Synced),
            (&[Synced, Pending, Synced], Pending),
            (&[Pending, Rejected, Pending], Rejected),
        ] {
            assert_eq!(worst(parts.iter().copied()), expected, "{parts:?}");
        }
    }
}
