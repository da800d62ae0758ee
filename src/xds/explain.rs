//! Why an instance is, or is not, in what one stream's client has: its view, the assignment as it would be made for it now,
//! and the one that it accepted last. Nothing is worked out anew here: the assignments themselves are looked at.

use std::{net::IpAddr, sync::Arc};

use convoy_client::proto::{
    ClusterExplanation, ExplainedEndpoint, ExplanationStep, ProxyExplanation, StepOutcome, SyncState,
};
use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, address::Address, socket_address::PortSpecifier},
    endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
};
use prost::Message;

use super::{resource::Resource, shared_view::assignment_key, status::Stream};
use crate::{
    model::{Instance, Locality, PortName, ResourceType, Revision, ServiceKey, wire},
    registry::{
        state::{ServiceState, Snapshot},
        virtual_service::places_of,
    },
    translate::{self, View, eds::endpoint_port, names::cluster},
};

const KIND: ResourceType = ResourceType::Endpoint;

impl Stream {
    /// What concerns an instance of a service, if everything up to `told` has been told.
    pub fn explain(&self, instance: &Instance, snapshot: &Snapshot, told: Revision) -> ProxyExplanation {
        let view = &self.client.view;
        let services = snapshot.services.get(&instance.key.service);
        let places = places_of(snapshot, &instance.key);
        // Its own service, and the virtual ones that it is a member of.
        let all = services.into_iter().chain(places.iter().filter_map(|key| snapshot.services.get(key)));
        let clusters = all.flat_map(|state| {
            state.service.value.ports.keys().map(move |port| self.cluster(state, port, instance, snapshot, told))
        });
        ProxyExplanation {
            node: self.client.id.clone(),
            namespace: view.namespace.to_string(),
            address: self.address(),
            steps: services.map(|state| steps(view, state)).unwrap_or_default(),
            clusters: clusters.collect(),
        }
    }

    fn cluster(
        &self,
        state: &ServiceState,
        port: &PortName,
        instance: &Instance,
        snapshot: &Snapshot,
        told: Revision,
    ) -> ClusterExplanation {
        let name = cluster(&state.key, port, &state.service.value.default_port);
        let number = endpoint_port(state, port, instance).map(|port| port.number);
        let find = |bytes: &[u8]| number.and_then(|number| endpoint(bytes, instance.spec.address, number));
        let now = self.assignment(&name, &state.key, state, snapshot);
        let wanted = |holding: &super::standing::Holding| holding.kind == KIND && holding.name == name;
        let held = self.holdings(wanted).into_iter().next();
        let version = |version: Option<super::resource::Version>| version.map(|v| v.to_string()).unwrap_or_default();
        let of_type = self.look(|standing| standing.types(told, self.connected_at));
        let of_type = of_type.into_iter().find(|of| of.r#type == KIND.as_str());
        let (holding, sync) = held.map_or((None, SyncState::Absent), |(holding, sync)| (Some(holding), sync));
        ClusterExplanation {
            port: port.to_string(),
            now: now.as_ref().and_then(|resource| find(&resource.body())),
            accepted: holding.as_ref().and_then(|of| find(&of.acked_resource.as_ref()?.body())),
            subscribed: self.look(|standing| standing.session.is_subscribed(KIND, &name)),
            sync: sync.into(),
            version_now: version(now.map(|resource| resource.version)),
            version_sent: version(holding.as_ref().and_then(|of| of.sent)),
            version_acked: version(holding.as_ref().and_then(|of| of.acked)),
            last_nack: of_type.and_then(|of| of.last_nack),
            cluster: name.to_string(),
        }
    }

    /// The assignment as it would be made for this client now.
    fn assignment(
        &self,
        name: &Arc<str>,
        service: &ServiceKey,
        state: &ServiceState,
        snapshot: &Snapshot,
    ) -> Option<Resource> {
        let view = &self.client.view;
        view.sees(service, &state.service.value.exports).then_some(())?;
        let key = assignment_key(view, &self.client.node, name, state, snapshot);
        translate::build(&key, snapshot).map(|built| Resource::new(KIND, name.clone(), built))
    }
}

fn steps(view: &View, state: &ServiceState) -> Vec<ExplanationStep> {
    let (service, exports) = (&state.key, &state.service.value.exports);
    let step = |step: &str, outcome: StepOutcome, detail: String| ExplanationStep {
        step: step.into(),
        outcome: outcome.into(),
        detail,
        since: None,
    };
    let seen = if service.namespace == view.namespace {
        step("view", StepOutcome::Passes, format!("{service} is in the proxy's own namespace"))
    } else if view.sees(service, exports) {
        step("view", StepOutcome::Passes, format!("{service} is exported to the namespace {}", view.namespace))
    } else {
        let detail = format!("{service} is not exported to the namespace {}", view.namespace);
        step("view", StepOutcome::Blocks, detail)
    };
    let default = cluster(service, &state.service.value.default_port, &state.service.value.default_port);
    let imported = match (&view.imports, view.in_wildcard(ResourceType::Cluster, &default)) {
        (None, _) => None,
        (Some(_), true) => Some(step("imports", StepOutcome::Passes, "the proxy imports it".into())),
        (Some(_), false) => {
            let detail = "the proxy does not import it: it has it only if it asks for it by name";
            Some(step("imports", StepOutcome::Note, detail.into()))
        }
    };
    [seen].into_iter().chain(imported).collect()
}

/// The endpoint of an address and port in an assignment.
fn endpoint(assignment: &[u8], address: IpAddr, port: u16) -> Option<ExplainedEndpoint> {
    let assignment = ClusterLoadAssignment::decode(assignment).ok()?;
    assignment.endpoints.iter().find_map(|group| {
        let of = group.lb_endpoints.iter().find(|endpoint| {
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return false };
            match endpoint.address.as_ref().and_then(|address| address.address.as_ref()) {
                Some(Address::SocketAddress(socket)) => {
                    socket.address.parse() == Ok(address)
                        && socket.port_specifier == Some(PortSpecifier::PortValue(port.into()))
                }
                _ => false,
            }
        })?;
        let locality = group.locality.clone().unwrap_or_default();
        let locality = Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone };
        Some(ExplainedEndpoint {
            address: address.to_string(),
            port: port.into(),
            health_status: HealthStatus::try_from(of.health_status).unwrap_or_default().as_str_name().into(),
            weight: of.load_balancing_weight.map_or(0, |weight| weight.value),
            locality: wire::locality(&locality),
            priority: group.priority,
        })
    })
}
