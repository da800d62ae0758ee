//! All that a subscription means, laid out once. A client that has nothing yet is sent these bytes, whoever it is, and
//! then holds this table: thousands that connect at once cost one of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{
    held::Base,
    protocol::{Dialect, RESPONSE_BYTES},
    resource::Resource,
};

#[derive(Debug)]
pub struct Full {
    pub base: Arc<Base>,
    /// Names that are asked for and do not exist.
    pub missing: Vec<Arc<str>>,
    bytes: usize,
    incremental: OnceLock<Bytes>,
    state_of_the_world: OnceLock<Bytes>,
}

impl Full {
    /// Looks every name up.
    pub fn of(names: impl Iterator<Item = Arc<str>>, mut get: impl FnMut(&Arc<str>) -> Option<Arc<Resource>>) -> Self {
        let mut missing = Vec::new();
        let base = names.filter_map(|name| {
            let resource = get(&name);
            if resource.is_none() {
                missing.push(name);
            }
            resource
        });
        let base = base.collect();
        Self::new(base, missing)
    }

    fn new(base: Base, missing: Vec<Arc<str>>) -> Self {
        let resources = base.iter().map(|(_, resource)| resource.incremental().len());
        let bytes = resources.chain(missing.iter().map(|name| name.len() + 3)).sum();
        let (incremental, state_of_the_world) = Default::default();
        Self { base: Arc::new(base), missing, bytes, incremental, state_of_the_world }
    }

    /// Whether it can go in one response.
    pub fn fits(&self) -> bool {
        self.bytes <= RESPONSE_BYTES
    }

    /// The resources' elements, one after the other.
    pub fn elements(&self, dialect: Dialect) -> Bytes {
        let join = |bytes: &mut Vec<u8>| {
            for (_, resource) in self.base.iter() {
                bytes.extend_from_slice(match dialect {
                    Dialect::Incremental => resource.incremental(),
                    Dialect::StateOfTheWorld => resource.state_of_the_world(),
                });
            }
        };
        let of_dialect = match dialect {
            Dialect::Incremental => &self.incremental,
            Dialect::StateOfTheWorld => &self.state_of_the_world,
        };
        let make = || {
            let mut bytes = Vec::with_capacity(self.bytes);
            join(&mut bytes);
            bytes.into()
        };
        of_dialect.get_or_init(make).clone()
    }
}
