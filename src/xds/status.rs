//! What is known of the connected proxies, for people: read from their sessions when somebody asks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use convoy_client::proto;
use dashmap::DashMap;

use super::{
    index::Mailbox,
    node::Client,
    protocol::{Dialect, TypeStatus},
    session::Session,
};
use crate::{
    model::{UnixMillis, wire::time},
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
    pub mailbox: Arc<Mailbox>,
}

#[derive(Debug, Default)]
pub struct Proxies {
    streams: DashMap<u64, Arc<Stream>>,
}

impl Proxies {
    pub fn insert(&self, id: u64, stream: Arc<Stream>) {
        self.streams.insert(id, stream);
    }

    pub fn remove(&self, id: u64) {
        self.streams.remove(&id);
    }

    /// By node id, then connection time.
    pub fn list(&self) -> Vec<proto::Proxy> {
        let mut streams: Vec<Arc<Stream>> = self.streams.iter().map(|stream| stream.clone()).collect();
        streams.sort_by(|a, b| (&a.client.id, a.connected_at).cmp(&(&b.client.id, b.connected_at)));
        streams.iter().map(|stream| stream.describe()).collect()
    }
}

impl Stream {
    fn describe(&self) -> proto::Proxy {
        let session = self.session.lock().expect("nothing panics while it holds this lock");
        let dialect = match self.dialect {
            Dialect::StateOfTheWorld => proto::Dialect::StateOfTheWorld,
            Dialect::Incremental => proto::Dialect::Incremental,
        };
        proto::Proxy {
            node: self.client.id.clone(),
            cluster: self.client.cluster.clone(),
            namespace: self.client.view.namespace.to_string(),
            user_agent: self.client.user_agent.clone(),
            address: self.address.map(|address| address.to_string()).unwrap_or_default(),
            dialect: dialect.into(),
            connected_at: Some(time(self.connected_at)),
            types: session.status().map(describe_type).collect(),
        }
    }
}

fn describe_type((kind, status): (ResourceType, TypeStatus)) -> proto::ProxyType {
    let sync = match (status.rejected, status.pending) {
        (true, _) => proto::SyncState::Rejected,
        (false, true) => proto::SyncState::Pending,
        (false, false) => proto::SyncState::Synced,
    };
    proto::ProxyType {
        r#type: kind.as_str().into(),
        sync: sync.into(),
        wildcard: status.wildcard,
        subscribed: u32::try_from(status.subscribed).unwrap_or(u32::MAX),
        version_sent: status.version_sent.map(|version| version.to_string()).unwrap_or_default(),
        version_acked: status.version_acked.map(|version| version.to_string()).unwrap_or_default(),
        acked_at: status.acked_at.map(time),
        responses: status.responses,
        nacks: status.nacks,
        last_nack: status.last_nack.map(|nack| proto::Nack {
            message: nack.message,
            version: nack.version,
            resources: nack.resources.iter().map(ToString::to_string).collect(),
            at: Some(time(nack.at)),
        }),
    }
}
