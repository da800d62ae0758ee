//! Services by themselves: put and deleted.

use std::sync::Arc;

use super::{Group, Plan, check_protocol};
use crate::{
    model::{Invalid, Limits, ServiceKey, ServicePatch},
    registry::{command::Error, state::State},
    storage::{Key, Record},
};

impl State {
    pub(super) fn plan_put_service(
        &self,
        key: &ServiceKey,
        patch: &ServicePatch,
        limits: &Limits,
    ) -> Result<Plan, Error> {
        let current = self.snapshot().services.get(key).map(|state| &state.service);
        for (name, port) in &patch.ports {
            let fixed = current.and_then(|current| current.value.ports.get(name).copied());
            check_protocol(key, name, fixed, port.protocol)?;
        }
        let service = patch.apply(current.map(|current| &*current.value))?;
        if service.is_virtual() && !service.checks.is_empty() {
            let rule = "none of a virtual service: its members are checked by their own services";
            return Err(Invalid::new("checks", service.checks.len(), rule).into());
        }
        let begins = service.is_virtual() && current.is_none_or(|current| !current.value.is_virtual());
        if begins && current.is_some() {
            let rule = "a service is made virtual, and stays so: this one has instances of its own, or may get some";
            return Err(Invalid::new("selector", &key.name, rule).into());
        }
        if service.ports.len() > limits.ports {
            return Err(Error::LimitReached { what: format!("the ports of {key}"), limit: limits.ports });
        }
        let mut plan = Plan::default();
        plan.join(Group::VirtualServices, usize::from(begins), self.virtual_services(), limits.virtual_services)?;
        plan.expect(Key::Service(key.clone()), current.map(|current| current.revision).unwrap_or_default());
        if current.is_none_or(|current| *current.value != service) {
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
        // One that registers by way of another replica does not change the service.
        plan.transaction.still.push((key.clone(), self.snapshot().revision));
        plan.delete(Key::Service(key.clone()));
        Ok(plan)
    }
}
