//! The calls about what proxies report of load (LRS).

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use convoy_client::proto;

use super::{Api, error::Problem};
use crate::{
    model::{Instance, parse, wire},
    registry::{
        command::{Error, Versioned},
        state::ServiceState,
    },
    translate::names,
    xds::lrs::Rates,
};

impl Api {
    pub fn get_service_load(&self, request: &proto::GetServiceLoadRequest) -> Result<proto::ServiceLoad, Problem> {
        let key = parse::service_key(&request.namespace, &request.service)?;
        let snapshot = self.registry.snapshot();
        let state = snapshot.services.get(&key).ok_or_else(|| Error::no_service(&key))?;
        let clusters: Vec<Arc<str>> = names::clusters_of(state).collect();
        let (load, proxies) = self.loads.of(&clusters);
        let zone = |(locality, rates): (&_, &Rates)| proto::ZoneLoad {
            locality: wire::locality(locality),
            load: Some(reported(*rates)),
        };
        Ok(proto::ServiceLoad {
            namespace: key.namespace.to_string(),
            service: key.name.to_string(),
            proxies: u32::try_from(proxies).unwrap_or(u32::MAX),
            total: Some(reported(load.total)),
            dropped_rps: load.dropped,
            zones: load.places.iter().map(zone).collect(),
            instances: self.instance_loads(state, &load.endpoints),
        })
    }

    /// All instances, also those that no proxy sends to; the ones that are gone are not told.
    fn instance_loads(&self, state: &ServiceState, endpoints: &HashMap<SocketAddr, Rates>) -> Vec<proto::InstanceLoad> {
        let of = |instance: &Versioned<Instance>| {
            let (key, spec) = (&instance.value.key, &instance.value.spec);
            let addresses = spec.ports.iter().map(|port| SocketAddr::new(spec.address, port.number));
            let mut sum = Rates::default();
            for rates in addresses.clone().filter_map(|address| endpoints.get(&address)) {
                sum.add(*rates);
            }
            proto::InstanceLoad {
                namespace: key.service.namespace.to_string(),
                service: key.service.name.to_string(),
                id: key.id.to_string(),
                address: addresses.clone().next().map(|address| address.to_string()).unwrap_or_default(),
                load: Some(reported(sum)),
                reported: self.registry.load(instance.value.lease),
            }
        };
        state.all().map(of).collect()
    }
}

fn reported(rates: Rates) -> proto::ReportedLoad {
    proto::ReportedLoad {
        rps: rates.issued,
        success_rps: rates.succeeded,
        error_rps: rates.failed,
        in_progress: rates.in_progress,
    }
}
