//! The calls about proxies: what each has, who has everything, and the drain barrier.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use convoy_client::proto::{self, proxies_client::ProxiesClient};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Api, error::Problem, optional};
use crate::{
    model::{InstanceKey, Invalid, Namespace, ResourceType, Revision, ServiceKey, limits::quoted, parse},
    registry::virtual_service::places_of,
    translate::names::clusters_of,
    xds::{
        convergence::{Others, Place},
        holdings::describe,
        standing::Holding,
        status::{Stream, in_order},
    },
};

const MAX_QUOTED_BYTES: usize = 256;
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

impl Api {
    pub async fn list_proxies(
        &self,
        request: &proto::ListProxiesRequest,
    ) -> Result<proto::ListProxiesResponse, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let others = match &self.peers {
            Some(peers) => peers.proxies(&request.namespace, "").await,
            None => Others::default(),
        };
        let mut proxies = self.survey.proxies.list(None, self.survey.told());
        proxies.retain(|proxy| namespace.as_ref().is_none_or(|wanted| wanted.as_str() == proxy.namespace));
        let (proxies, unknown_replicas) = with_others(proxies, others);
        Ok(proto::ListProxiesResponse { proxies, unknown_replicas })
    }

    pub async fn get_proxy(&self, request: &proto::GetProxyRequest) -> Result<proto::GetProxyResponse, Problem> {
        let others = match &self.peers {
            Some(peers) if !request.node.is_empty() => peers.proxies("", &request.node).await,
            _ => Others::default(),
        };
        let proxies = self.survey.proxies.list(Some(&request.node), self.survey.told());
        let (proxies, unknown_replicas) = with_others(proxies, others);
        if proxies.is_empty() {
            return Err(no_proxy(&request.node, "is not known", "that of a proxy connected in the last 5 minutes"));
        }
        Ok(proto::GetProxyResponse { proxies, unknown_replicas })
    }

    pub async fn retry_proxy(&self, request: &proto::RetryProxyRequest) -> Result<proto::RetryProxyResponse, Problem> {
        let there = async |channel| ProxiesClient::new(channel).retry_proxy(request.clone()).await;
        self.or_at_its_replica(&request.node, self.retry_here(request), there).await
    }

    fn retry_here(&self, request: &proto::RetryProxyRequest) -> Result<proto::RetryProxyResponse, Problem> {
        let retried = self.survey.proxies.retry(&request.node);
        let retried =
            retried.ok_or_else(|| no_proxy(&request.node, "is not connected", "that of a connected proxy"))?;
        Ok(proto::RetryProxyResponse { resources: u32::try_from(retried).unwrap_or(u32::MAX) })
    }

    pub async fn get_proxy_config(
        &self,
        request: &proto::GetProxyConfigRequest,
    ) -> Result<proto::GetProxyConfigResponse, Problem> {
        let there = async |channel| {
            let client = ProxiesClient::new(channel).max_decoding_message_size(usize::MAX);
            { client }.get_proxy_config(request.clone()).await
        };
        self.or_at_its_replica(&request.node, self.config_here(request), there).await
    }

    fn config_here(&self, request: &proto::GetProxyConfigRequest) -> Result<proto::GetProxyConfigResponse, Problem> {
        let kind = optional(&request.r#type, resource_type)?;
        let mut streams = self.survey.proxies.streams();
        streams.retain(|stream| stream.client.id == request.node);
        in_order(&mut streams);
        if streams.is_empty() {
            let left = self.survey.proxies.departed().iter().any(|departed| departed.proxy.node == request.node);
            let why = if left { "has left: what it had is not remembered" } else { "is not connected" };
            return Err(no_proxy(&request.node, why, "that of a connected proxy"));
        }
        let wanted = |holding: &Holding| {
            let named = request.name.is_empty() || *holding.name == *request.name;
            named && kind.is_none_or(|kind| kind == holding.kind)
        };
        let of_stream = |stream: &Arc<Stream>| {
            let address = stream.address();
            stream.holdings(wanted).into_iter().map(move |holding| describe(holding, &address)).collect::<Vec<_>>()
        };
        Ok(proto::GetProxyConfigResponse { resources: streams.iter().flat_map(of_stream).collect() })
    }

    pub async fn get_convergence(&self, request: &proto::GetConvergenceRequest) -> Result<proto::Convergence, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let revision = self.asked_or_present(request.revision);
        let others = self.convergence_elsewhere(revision, &request.namespace).await;
        Ok(self.survey.convergence_of_all(revision, namespace.as_ref(), others))
    }

    fn convergence_elsewhere(
        &self,
        revision: Revision,
        namespace: &str,
    ) -> BoxFuture<'static, Others<proto::Convergence>> {
        let (peers, namespace) = (self.peers.clone(), namespace.to_owned());
        Box::pin(async move {
            match peers {
                Some(peers) => peers.convergence(revision, &namespace).await,
                None => Others::default(),
            }
        })
    }

    pub async fn wait_for_convergence(
        &self,
        request: &proto::WaitForConvergenceRequest,
    ) -> Result<proto::Convergence, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let timeout = parse::wait("timeout", request.timeout)?.unwrap_or(DEFAULT_WAIT);
        let revision = self.asked_or_present(request.revision);
        let (deadline, place) = (Instant::now() + timeout, self.survey.place()?);
        let others = || self.convergence_elsewhere(revision, &request.namespace);
        Ok(self.survey.converged(revision, namespace.as_ref(), deadline, place, others).await)
    }

    /// The services that lead to an instance: its own, and the virtual ones that it is a member of.
    pub(super) fn services_of(&self, instance: &InstanceKey) -> BTreeSet<ServiceKey> {
        let places = places_of(&self.registry.snapshot(), instance);
        [instance.service.clone()].into_iter().chain(places).collect()
    }

    /// Waits until no proxy picks an instance any more that began to leave these services at a revision.
    pub(super) async fn barrier(
        &self,
        services: BTreeSet<ServiceKey>,
        revision: Revision,
        wait: Duration,
        place: Place<'_>,
    ) -> proto::Barrier {
        let deadline = Instant::now() + wait;
        let snapshot = self.registry.snapshot();
        let of =
            |service: ServiceKey| snapshot.services.get(&service).map(|state| clusters_of(state).collect::<Vec<_>>());
        let clusters: Vec<Arc<str>> = services.into_iter().filter_map(of).flatten().collect();
        let others = || -> BoxFuture<'static, _> {
            let (peers, clusters) = (self.peers.clone(), clusters.clone());
            Box::pin(async move {
                match peers {
                    Some(peers) => peers.followers(&clusters, revision).await,
                    None => Others::default(),
                }
            })
        };
        self.survey.barrier(&clusters, revision, deadline, place, others).await
    }

    fn asked_or_present(&self, revision: Option<u64>) -> Revision {
        revision.map_or_else(|| self.registry.snapshot().revision, Revision)
    }
}

/// Those of this replica and of the others; one that left the one and is connected to another has not left.
fn with_others(here: Vec<proto::Proxy>, others: Others<proto::Proxy>) -> (Vec<proto::Proxy>, Vec<String>) {
    let mut all: Vec<proto::Proxy> = here.into_iter().chain(others.said).collect();
    let connected: BTreeSet<String> =
        all.iter().filter(|proxy| proxy.connected).map(|proxy| proxy.node.clone()).collect();
    all.retain(|proxy| proxy.connected || !connected.contains(&proxy.node));
    let since = |proxy: &proto::Proxy| proxy.connected_at.map(|at| (at.seconds, at.nanos));
    all.sort_by(|a, b| (&a.node, since(a)).cmp(&(&b.node, since(b))));
    (all, others.unknown)
}

pub(super) fn no_proxy(node: &str, why: &str, rule: &str) -> Problem {
    // A node id is whatever a client chose.
    let value = quoted(node, MAX_QUOTED_BYTES);
    let problem = Problem::new("not_found", format!("the proxy {value:?} {why}"));
    Problem { field: "node".into(), value, rule: rule.into(), ..problem }
}

fn resource_type(text: &str) -> Result<ResourceType, Invalid> {
    let names = ResourceType::ALL.map(ResourceType::as_str).join(", ");
    ResourceType::parse(text).ok_or_else(|| Invalid::new("type", text, format!("a type URL, or one of {names}")))
}
