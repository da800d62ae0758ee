//! Services by themselves: put and deleted.

use std::sync::Arc;

use super::{Plan, check_protocol};
use crate::{
    model::{Invalid, Limits, Service, ServiceChange, ServiceKey, service::DEFAULT_DRAIN_TIME},
    registry::{command::Error, state::State},
    storage::{Key, Record},
};

impl State {
    pub(super) fn plan_put_service(
        &self,
        key: &ServiceKey,
        change: &ServiceChange,
        limits: &Limits,
    ) -> Result<Plan, Error> {
        let current = self.snapshot().services.get(key).map(|state| &state.service);
        let before = current.map(|current| &*current.value);
        let mut ports = before.map(|service| service.ports.clone()).unwrap_or_default();
        for (name, port) in &change.ports {
            let fixed = ports.insert(name.clone(), *port);
            check_protocol(key, name, fixed, port.protocol)?;
        }
        if ports.len() > limits.ports {
            return Err(Error::LimitReached { what: format!("the ports of {key}"), limit: limits.ports });
        }
        let first = || change.ports.first().map(|(name, _)| name);
        let default_port = change.default_port.as_ref().or(before.map(|service| &service.default_port)).or_else(first);
        let default_port = default_port
            .ok_or_else(|| Invalid::new("ports", "", "at least one port, since there is no such service yet"))?
            .clone();
        if !ports.contains_key(&default_port) {
            return Err(Invalid::new("default_port", default_port, "the name of one of the ports").into());
        }
        let drain_time = change.drain_time.or(before.map(|service| service.drain_time)).unwrap_or(DEFAULT_DRAIN_TIME);
        let exports = change.exports.as_ref().or(before.map(|service| &service.exports)).cloned().unwrap_or_default();
        let service = Service { default_port, ports, drain_time, exports };
        let mut plan = Plan::default();
        plan.expect(Key::Service(key.clone()), current.map(|current| current.revision).unwrap_or_default());
        if before != Some(&service) {
            plan.put(Key::Service(key.clone()), Record::Service(Arc::new(service)));
        }
        Ok(plan)
    }

    pub(super) fn plan_delete_service(&self, key: &ServiceKey) -> Result<Plan, Error> {
        let state = self.snapshot().services.get(key).ok_or_else(|| Error::no_service(key))?;
        if !state.instances.is_empty() {
            return Err(Error::NotEmpty { service: key.clone(), instances: state.instances.len() });
        }
        let mut plan = Plan::default();
        plan.expect(Key::Service(key.clone()), state.service.revision);
        plan.delete(Key::Service(key.clone()));
        Ok(plan)
    }
}
