//! What the other replicas know of their proxies. Each is asked for its own; who does not answer in time is named.

use std::sync::Arc;

use convoy_client::proto;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;
use tonic::{Response, Status, transport::Channel};

use super::{
    PATIENCE, Peers,
    rpc::{self, GetFollowersRequest, GetProxiesRequest, follower, peers_client::PeersClient},
};
use crate::{
    model::{Replica, Revision},
    xds::{
        barrier::{Follower, State},
        convergence::Others,
    },
};

impl Peers {
    /// Who of their proxies has everything up to a revision.
    pub async fn convergence(&self, revision: Revision, namespace: &str) -> Others<proto::Convergence> {
        let request = proto::GetConvergenceRequest { revision: Some(revision.0), namespace: namespace.into() };
        self.ask(|mut client| {
            let request = request.clone();
            Box::pin(async move { client.get_convergence(request).await })
        })
        .await
    }

    /// How their proxies stand to the endpoints of some clusters.
    pub async fn followers(&self, clusters: &[Arc<str>], revision: Revision) -> Others<Follower> {
        let clusters = clusters.iter().map(|name| name.to_string()).collect();
        let request = GetFollowersRequest { clusters, revision: revision.0 };
        let asked = self.ask(|mut client| {
            let request = request.clone();
            Box::pin(async move { client.get_followers(request).await })
        });
        let Others { said, unknown } = asked.await;
        Others { said: said.into_iter().flat_map(|of| of.followers).map(read).collect(), unknown }
    }

    /// Their proxies: those of a namespace, or streams of a node, if one is given.
    pub async fn proxies(&self, namespace: &str, node: &str) -> Others<proto::Proxy> {
        let request = GetProxiesRequest { namespace: namespace.into(), node: node.into() };
        let asked = self.ask(|mut client| {
            let request = request.clone();
            Box::pin(async move { client.get_proxies(request).await })
        });
        let Others { said, unknown } = asked.await;
        Others { said: said.into_iter().flat_map(|of| of.proxies).collect(), unknown }
    }

    /// Another replica that a node is connected to: its name, and its API.
    pub async fn replica_of(&self, node: &str) -> Option<(String, Channel)> {
        let proxies = self.proxies("", node).await.said;
        let at = proxies.into_iter().find(|proxy| proxy.connected)?.replica;
        let (id, replica) = self.others().into_iter().find(|(_, replica)| name(replica) == at)?;
        Some((at, self.channels.channel(id, &replica)))
    }

    async fn ask<T>(
        &self,
        ask: impl Fn(PeersClient<Channel>) -> BoxFuture<'static, Result<Response<T>, Status>>,
    ) -> Others<T> {
        let others = self.others();
        let answer = |(id, replica): &(_, Arc<Replica>)| timeout(PATIENCE, ask(self.channels.client(*id, replica)));
        let answers: Vec<_> = others.iter().map(answer).collect();
        let mut all = Others::default();
        for (answer, (_, replica)) in join_all(answers).await.into_iter().zip(&others) {
            match answer {
                Ok(Ok(answer)) => all.said.push(answer.into_inner()),
                _ => all.unknown.push(name(replica)),
            }
        }
        all
    }
}

/// For people.
pub fn name(replica: &Replica) -> String {
    format!("{} ({})", replica.name, replica.address)
}

/// A state that is not known here is of a newer replica: nobody waits in vain for less than it.
fn read(from: rpc::Follower) -> Follower {
    use follower::State::{Acked, Elsewhere, Lagging, Left, LeftAcked, Rejected, Unspecified};
    let at = from.left_at.unwrap_or_default();
    let state = match from.state() {
        Unspecified | Lagging => State::Lagging,
        Elsewhere => State::Elsewhere,
        Acked => State::Acked,
        Rejected => State::Rejected(from.message),
        Left => State::Left { at, acked: false },
        LeftAcked => State::Left { at, acked: true },
    };
    Follower { node: from.node, namespace: from.namespace, address: from.address, state }
}

pub fn write(from: Follower) -> rpc::Follower {
    let (state, message, left_at) = match from.state {
        State::Elsewhere => (follower::State::Elsewhere, String::new(), None),
        State::Acked => (follower::State::Acked, String::new(), None),
        State::Lagging => (follower::State::Lagging, String::new(), None),
        State::Rejected(message) => (follower::State::Rejected, message, None),
        State::Left { at, acked: false } => (follower::State::Left, String::new(), Some(at)),
        State::Left { at, acked: true } => (follower::State::LeftAcked, String::new(), Some(at)),
    };
    let Follower { node, namespace, address, .. } = from;
    rpc::Follower { node, namespace, address, state: state.into(), message, left_at }
}
