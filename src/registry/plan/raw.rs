//! Resources that somebody wrote: put and deleted. What they say has been checked at the border.

use std::sync::Arc;

use super::{Group, Plan};
use crate::{
    model::{Limits, RawKey, RawResource},
    registry::{command::Error, state::State},
    storage::{Key, Record},
};

impl State {
    pub(super) fn plan_put_raw(&self, key: &RawKey, resource: &RawResource, limits: &Limits) -> Result<Plan, Error> {
        let current = self.snapshot().raw.get(key);
        let mut plan = Plan::default();
        plan.expect(Key::Raw(key.clone()), current.map(|current| current.revision).unwrap_or_default());
        plan.join(
            Group::RawResources,
            usize::from(current.is_none()),
            self.snapshot().raw.len(),
            limits.raw_resources,
        )?;
        if current.is_none_or(|current| *current.value != *resource) {
            plan.put(Key::Raw(key.clone()), Record::Raw(Arc::new(resource.clone())));
        }
        Ok(plan)
    }

    pub(super) fn plan_delete_raw(&self, key: &RawKey) -> Result<Plan, Error> {
        let current = self.snapshot().raw.get(key).ok_or_else(|| Error::no_resource(key))?;
        let mut plan = Plan::default();
        plan.expect(Key::Raw(key.clone()), current.revision);
        plan.delete(Key::Raw(key.clone()));
        Ok(plan)
    }
}
