//! What this replica is told and asked by the others.

use convoy_client::proto;
use tonic::{Request, Response, Status};

use super::{
    MESSAGE_BYTES, Peers, elsewhere,
    rpc::{
        GetFollowersRequest, GetFollowersResponse, GetProxiesRequest, TellRequest, TellResponse,
        peers_server::{Peers as Service, PeersServer},
    },
};
use crate::{
    model::{Namespace, Revision},
    xds::convergence::Survey,
};

#[derive(Debug)]
pub struct Shell {
    peers: Peers,
    survey: Survey,
}

pub fn server(peers: Peers, survey: Survey) -> PeersServer<Shell> {
    PeersServer::new(Shell { peers, survey }).max_decoding_message_size(MESSAGE_BYTES)
}

#[tonic::async_trait]
impl Service for Shell {
    async fn tell(&self, request: Request<TellRequest>) -> Result<Response<TellResponse>, Status> {
        self.peers.hear(request.into_inner()).map(Response::new)
    }

    async fn get_convergence(
        &self,
        request: Request<proto::GetConvergenceRequest>,
    ) -> Result<Response<proto::Convergence>, Status> {
        let request = request.into_inner();
        let parse = || Namespace::parse("namespace", &request.namespace);
        let namespace = (!request.namespace.is_empty()).then(parse).transpose();
        let namespace = namespace.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let revision = Revision(request.revision.unwrap_or_default());
        Ok(Response::new(self.survey.convergence(revision, namespace.as_ref())))
    }

    async fn get_followers(
        &self,
        request: Request<GetFollowersRequest>,
    ) -> Result<Response<GetFollowersResponse>, Status> {
        let GetFollowersRequest { clusters, revision } = request.into_inner();
        let clusters: Vec<_> = clusters.into_iter().map(Into::into).collect();
        let followers = self.survey.followers(&clusters, Revision(revision));
        Ok(Response::new(GetFollowersResponse { followers: followers.into_iter().map(elsewhere::write).collect() }))
    }

    async fn get_proxies(
        &self,
        request: Request<GetProxiesRequest>,
    ) -> Result<Response<proto::ListProxiesResponse>, Status> {
        let GetProxiesRequest { namespace, node } = request.into_inner();
        let node = Some(&*node).filter(|node| !node.is_empty());
        let mut proxies = self.survey.proxies.list(node, self.survey.told());
        proxies.retain(|proxy| namespace.is_empty() || namespace == proxy.namespace);
        let snapshot = self.peers.registry.snapshot();
        let name = snapshot.replicas.get(&self.peers.registry.replica()).map(|itself| elsewhere::name(itself));
        proxies.iter_mut().for_each(|proxy| proxy.replica = name.clone().unwrap_or_default());
        Ok(Response::new(proto::ListProxiesResponse { proxies, ..Default::default() }))
    }
}
