//! The public API: one set of calls, in the API's own messages. `grpc` and `http` are thin shells over them, with the
//! same names, limits and errors (`error`).

mod backup;
mod brake;
mod cards;
pub mod elsewhere;
pub mod error;
mod explain;
pub mod grpc;
pub mod http;
mod load;
mod passed_on;
mod proxies;
mod query;
mod resources;
mod stale;
pub mod starting;
mod watch;

use std::{net::IpAddr, sync::Arc, time::Duration};

use convoy_client::proto::{self, LeaseOutcome};

use self::error::Problem;
use crate::{
    model::{
        Incarnation, Instance, Invalid, LeaseId, Namespace, Revision, agent_card,
        limits::at_most,
        load::report,
        parse,
        wire::{self, duration},
    },
    peers::Peers,
    registry::{
        Heard, Held, Registry,
        command::{Error, Versioned},
        digest::Digest,
        lease::Known,
        query::Queries,
        state::ServiceState,
    },
    telemetry::Metrics,
    xds::{convergence::Survey, lrs::LoadReports},
};

/// The calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    pub registry: Registry,
    pub queries: Queries,
    pub survey: Survey,
    pub metrics: Arc<Metrics>,
    /// What proxies report.
    pub loads: Arc<LoadReports>,
    /// The other replicas, where there may be some.
    pub peers: Option<Peers>,
}

impl Api {
    pub async fn register(
        &self,
        request: proto::RegisterRequest,
        peer: Option<IpAddr>,
    ) -> Result<proto::RegisterResponse, Problem> {
        let limits = self.registry.limits();
        at_most("instances", request.instances.len(), limits.instances_per_call, "instances in one call")?;
        let lease = optional(&request.lease, |lease| LeaseId::parse("lease", lease))?;
        let ttl = request.ttl.map(|ttl| parse::duration("ttl", ttl).and_then(|ttl| limits.check_ttl("ttl", ttl)));
        let parse = |(index, mut registration)| {
            agent_card::complete(&mut registration, limits)
                .and_then(|()| parse::registration(registration, peer, limits))
                .map_err(|invalid: Invalid| invalid.inside(&format!("instances[{index}]")))
        };
        let instances = request.instances.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        let incarnation = request.incarnation.map(Incarnation);
        let (outcome, held) = self.registry.register(lease, ttl.transpose()?, incarnation, instances).await?;
        Ok(proto::RegisterResponse {
            instances: outcome.instances.iter().map(|instance| self.instance(instance)).collect(),
            lease: Some(lease_of(held, held.lease.to_string())),
            revision: outcome.revision.0,
            digest: outcome.digest.to_string(),
        })
    }

    /// No write: only deadlines move.
    pub fn heartbeat(&self, mut request: proto::HeartbeatRequest) -> Result<proto::HeartbeatResponse, Problem> {
        let limit = self.registry.limits().leases_per_heartbeat;
        at_most("leases", request.leases.len(), limit, "leases in one call")?;
        // All is checked before any is renewed: an error changes nothing.
        let check = |(index, heartbeat): (usize, &mut proto::LeaseHeartbeat)| {
            check_heartbeat(heartbeat).map_err(|invalid| invalid.inside(&format!("leases[{index}]")))
        };
        let checked: Vec<_> = request.leases.iter_mut().enumerate().map(check).collect::<Result<_, _>>()?;
        let renew = |(heartbeat, (lease, known)): (proto::LeaseHeartbeat, _)| {
            let heard = self.registry.heartbeat(lease, known, heartbeat.load);
            status_of(heard, heartbeat.lease)
        };
        let leases = request.leases.into_iter().zip(checked).map(renew).collect();
        Ok(proto::HeartbeatResponse { leases })
    }

    pub async fn deregister(&self, request: proto::DeregisterRequest) -> Result<proto::DeregisterResponse, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let outcome = self.registry.deregister(key, request.incarnation.map(Incarnation)).await?;
        Ok(proto::DeregisterResponse { revision: outcome.revision.0 })
    }

    pub async fn drain(&self, request: proto::DrainRequest) -> Result<proto::DrainResponse, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let time = parse::drain_time(request.drain_time)?;
        let wait = parse::wait("wait", request.wait)?;
        // Nothing is drained if nobody could wait for it.
        let wait = wait.map(|wait| self.survey.place().map(|place| (wait, place))).transpose()?;
        let drained = key.clone();
        // A drain may be what ends a selector's match: proxies have the instance by those that matched before, too.
        let before = wait.as_ref().map(|_| self.services_of(&drained)).unwrap_or_default();
        let outcome = self.registry.drain(key, request.incarnation.map(Incarnation), time).await?;
        let instance = outcome.instances.first();
        // One that drained before did so at the revision it has.
        let revision = instance.map_or(outcome.revision, |instance| instance.revision);
        let barrier = match wait {
            Some((wait, place)) => {
                let services = before.into_iter().chain(self.services_of(&drained)).collect();
                Some(self.barrier(services, revision, wait, place).await)
            }
            None => None,
        };
        let drain_time = instance.and_then(|instance| instance.value.drain).map_or(Duration::ZERO, |drain| drain.time);
        Ok(proto::DrainResponse {
            instance: instance.map(|instance| self.instance(instance)),
            drain_time: Some(duration(drain_time)),
            revision: outcome.revision.0,
            barrier,
        })
    }

    pub fn get_instance(&self, request: &proto::GetInstanceRequest) -> Result<proto::Instance, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let snapshot = self.registry.snapshot();
        let instance = snapshot.instance(&key).ok_or_else(|| Error::no_instance(&key))?;
        Ok(proto::Instance { history: wire::history(&instance.value.history), ..self.instance(instance) })
    }

    pub async fn set_override(
        &self,
        request: proto::SetOverrideRequest,
    ) -> Result<proto::SetOverrideResponse, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let say = parse::override_of(request.health, request.reason)?;
        let outcome = self.registry.set_override(key, say).await?;
        let instance = outcome.instances.first().map(|instance| self.instance(instance));
        Ok(proto::SetOverrideResponse { instance, revision: outcome.revision.0 })
    }

    pub fn list_instances(
        &self,
        request: &proto::ListInstancesRequest,
    ) -> Result<proto::ListInstancesResponse, Problem> {
        let key = parse::service_key(&request.namespace, &request.service)?;
        let snapshot = self.registry.snapshot();
        let service = snapshot.services.get(&key).ok_or_else(|| Error::no_service(&key))?;
        let instances = service.all().map(|instance| self.instance(instance)).collect();
        Ok(proto::ListInstancesResponse { instances, revision: snapshot.revision.0 })
    }

    pub fn get_service(&self, request: &proto::GetServiceRequest) -> Result<proto::Service, Problem> {
        let key = parse::service_key(&request.namespace, &request.service)?;
        let snapshot = self.registry.snapshot();
        Ok(service_of(snapshot.services.get(&key).ok_or_else(|| Error::no_service(&key))?))
    }

    pub fn list_services(&self, request: &proto::ListServicesRequest) -> Result<proto::ListServicesResponse, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let snapshot = self.registry.snapshot();
        let wanted = |state: &&Arc<ServiceState>| namespace.as_ref().is_none_or(|name| *name == state.key.namespace);
        let services = snapshot.services.values().filter(wanted).map(service_of).collect();
        Ok(proto::ListServicesResponse { services, revision: snapshot.revision.0 })
    }

    pub async fn put_service(&self, request: proto::PutServiceRequest) -> Result<proto::PutServiceResponse, Problem> {
        let key = parse::service_key(&request.namespace, &request.service)?;
        let patch = parse::service(&request, self.registry.limits())?;
        let outcome = self.registry.put_service(key.clone(), patch).await?;
        let snapshot = self.registry.snapshot();
        let service = snapshot.services.get(&key).map(service_of);
        Ok(proto::PutServiceResponse { service, revision: outcome.revision.0 })
    }

    pub async fn delete_service(
        &self,
        request: proto::DeleteServiceRequest,
    ) -> Result<proto::DeleteServiceResponse, Problem> {
        let key = parse::service_key(&request.namespace, &request.service)?;
        let outcome = self.registry.delete_service(key).await?;
        Ok(proto::DeleteServiceResponse { revision: outcome.revision.0 })
    }

    fn instance(&self, from: &Versioned<Instance>) -> proto::Instance {
        wire::instance(&from.value, from.revision, self.registry.load(from.value.lease))
    }
}

fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Option<T>, Invalid> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn lease_of(held: Held, id: String) -> proto::Lease {
    proto::Lease { id, ttl: Some(duration(held.ttl)), heartbeat_interval: Some(duration(held.heartbeat_interval)) }
}

/// The lease's id is the request's own text.
fn status_of(heard: Heard, id: String) -> proto::LeaseStatus {
    let (outcome, lease, elsewhere) = match heard {
        Heard::Kept(held) => (LeaseOutcome::Kept, lease_of(held, id), held.elsewhere),
        Heard::RegisterAgain => (LeaseOutcome::RegisterAgain, proto::Lease { id, ..Default::default() }, false),
        Heard::Retry => (LeaseOutcome::Retry, proto::Lease { id, ..Default::default() }, false),
    };
    proto::LeaseStatus { outcome: outcome.into(), lease: Some(lease), elsewhere }
}

/// Its load is then as it is kept.
fn check_heartbeat(heartbeat: &mut proto::LeaseHeartbeat) -> Result<(LeaseId, Option<Known>), Invalid> {
    let lease = LeaseId::parse("lease", &heartbeat.lease)?;
    heartbeat.load = heartbeat.load.take().map(report).transpose()?;
    let digest = optional(&heartbeat.digest, |digest| Digest::parse("digest", digest))?;
    Ok((lease, digest.map(|digest| Known { digest, revision: Revision(heartbeat.revision) })))
}

fn service_of(state: &Arc<ServiceState>) -> proto::Service {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (instances, healthy) = (count(state.all().count()), count(state.healthy()));
    let service = wire::service(&state.key, &state.service.value, state.service.revision, instances, healthy);
    proto::Service { left_out: count(state.left_out()), ..service }
}
