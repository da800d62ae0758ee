//! The calls about proxies: what each has, who has everything, and the drain barrier.

use std::{sync::Arc, time::Duration};

use convoy_client::proto;
use tokio::time::Instant;

use super::{Api, error::Problem, optional};
use crate::{
    model::{InstanceKey, Invalid, Namespace, ResourceType, Revision, ServiceKey, limits::quoted, parse},
    registry::virtual_service::places_of,
    translate::names::clusters_of,
    xds::{
        convergence::Place,
        holdings::describe,
        standing::Holding,
        status::{Stream, in_order},
    },
};

const MAX_QUOTED_BYTES: usize = 256;
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

impl Api {
    pub fn list_proxies(&self, request: &proto::ListProxiesRequest) -> Result<proto::ListProxiesResponse, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let mut proxies = self.survey.proxies.list(None, self.survey.told());
        proxies.retain(|proxy| namespace.as_ref().is_none_or(|wanted| wanted.as_str() == proxy.namespace));
        Ok(proto::ListProxiesResponse { proxies })
    }

    pub fn get_proxy(&self, request: &proto::GetProxyRequest) -> Result<proto::GetProxyResponse, Problem> {
        let proxies = self.survey.proxies.list(Some(&request.node), self.survey.told());
        if proxies.is_empty() {
            return Err(no_proxy(&request.node, "is not known", "that of a proxy connected in the last 5 minutes"));
        }
        Ok(proto::GetProxyResponse { proxies })
    }

    pub fn retry_proxy(&self, request: &proto::RetryProxyRequest) -> Result<proto::RetryProxyResponse, Problem> {
        let retried = self.survey.proxies.retry(&request.node);
        let retried =
            retried.ok_or_else(|| no_proxy(&request.node, "is not connected", "that of a connected proxy"))?;
        Ok(proto::RetryProxyResponse { resources: u32::try_from(retried).unwrap_or(u32::MAX) })
    }

    pub fn get_proxy_config(
        &self,
        request: &proto::GetProxyConfigRequest,
    ) -> Result<proto::GetProxyConfigResponse, Problem> {
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

    pub fn get_convergence(&self, request: &proto::GetConvergenceRequest) -> Result<proto::Convergence, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        Ok(self.survey.convergence(self.asked_or_present(request.revision), namespace.as_ref()))
    }

    pub async fn wait_for_convergence(
        &self,
        request: &proto::WaitForConvergenceRequest,
    ) -> Result<proto::Convergence, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let timeout = parse::wait("timeout", request.timeout)?.unwrap_or(DEFAULT_WAIT);
        let revision = self.asked_or_present(request.revision);
        Ok(self.survey.converged(revision, namespace.as_ref(), Instant::now() + timeout, self.survey.place()?).await)
    }

    /// Waits until no proxy picks an instance any more that began to leave at a revision.
    pub(super) async fn barrier(
        &self,
        instance: &InstanceKey,
        revision: Revision,
        wait: Duration,
        place: Place<'_>,
    ) -> proto::Barrier {
        let deadline = Instant::now() + wait;
        let snapshot = self.registry.snapshot();
        // Virtual services lead to it as well.
        let places = [instance.service.clone()].into_iter().chain(places_of(&snapshot, instance));
        let of =
            |service: ServiceKey| snapshot.services.get(&service).map(|state| clusters_of(state).collect::<Vec<_>>());
        let clusters: Vec<Arc<str>> = places.filter_map(of).flatten().collect();
        self.survey.barrier(&clusters, revision, deadline, place).await
    }

    fn asked_or_present(&self, revision: Option<u64>) -> Revision {
        revision.map_or_else(|| self.registry.snapshot().revision, Revision)
    }
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
