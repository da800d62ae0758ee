//! Laying out responses: a small head of their own, then the resources' shared bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    full::Full,
    protocol::{Dialect, Features},
    resource::{Resource, Version, put},
};
use crate::model::ResourceType;

/// `google.rpc.Code.NOT_FOUND`
const NOT_FOUND: u8 = 5;

/// A name of which there is nothing, or not any more.
pub(super) struct Absent {
    pub(super) name: Arc<str>,
    /// The client asks for it by name, and not only by the wildcard, of which no errors are told.
    pub(super) named: bool,
    /// The client has it, and is to lose it.
    pub(super) held: bool,
}

/// A response's head and what it needs to be laid out.
pub(super) struct Head<'a> {
    pub(super) dialect: Dialect,
    pub(super) features: Features,
    pub(super) type_url: &'a str,
    pub(super) version: Version,
    pub(super) nonce: u64,
}

impl Head<'_> {
    /// Both messages have these fields at the same numbers.
    fn start(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(160);
        put(1, self.version.to_string().as_bytes(), &mut head);
        put(4, self.type_url.as_bytes(), &mut head);
        put(5, self.nonce.to_string().as_bytes(), &mut head);
        head
    }

    fn absent(&self, absent: &[Absent], head: &mut Vec<u8>) {
        let virtual_hosts = self.type_url == ResourceType::VirtualHost.type_url();
        for Absent { name, named, held } in absent {
            match self.dialect {
                // A host that is asked for on demand: a resource without a body lets Envoy answer 404 at once. One that
                // Envoy has already would stay.
                Dialect::Incremental if virtual_hosts && !held => put(2, &no_such_host(name), head),
                Dialect::Incremental => put(6, name.as_bytes(), head),
                Dialect::StateOfTheWorld => {}
            }
            if self.features.resource_errors && *named {
                let field = if self.dialect == Dialect::Incremental { 9 } else { 7 };
                put(field, &not_found(name), head);
            }
        }
    }

    pub(super) fn respond<'a>(
        &self,
        resources: impl Iterator<Item = &'a Arc<Resource>>,
        absent: &[Absent],
    ) -> Vec<Bytes> {
        let mut head = self.start();
        self.absent(absent, &mut head);
        [Bytes::from(head)].into_iter().chain(resources.map(|resource| self.element(resource))).collect()
    }

    pub(super) fn respond_full(&self, full: &Full, absent: &[Absent]) -> Vec<Bytes> {
        let mut head = self.start();
        self.absent(absent, &mut head);
        vec![head.into(), full.elements(self.dialect)]
    }

    fn element(&self, resource: &Resource) -> Bytes {
        match self.dialect {
            Dialect::Incremental if self.features.resource_ttl => resource.with_ttl(),
            Dialect::Incremental => resource.incremental().clone(),
            Dialect::StateOfTheWorld => resource.state_of_the_world().clone(),
        }
    }

    /// Tells the client that it may keep these for another TTL.
    pub(super) fn heartbeat<'a>(&self, resources: impl Iterator<Item = &'a Resource>) -> Vec<Bytes> {
        let mut head = self.start();
        for resource in resources {
            put(2, &resource.heartbeat(), &mut head);
        }
        vec![head.into()]
    }
}

/// `envoy.service.discovery.v3.Resource` with a name and itself as its alias.
fn no_such_host(name: &str) -> Vec<u8> {
    let mut resource = Vec::with_capacity(2 * name.len() + 8);
    put(3, name.as_bytes(), &mut resource);
    put(4, name.as_bytes(), &mut resource);
    resource
}

/// `envoy.service.discovery.v3.ResourceError`, as in xRFC TP3.
fn not_found(name: &str) -> Vec<u8> {
    let (mut resource_name, mut status, mut error) = (Vec::new(), vec![8, NOT_FOUND], Vec::new());
    put(1, name.as_bytes(), &mut resource_name);
    put(2, b"there is no such resource, or this client may not see it", &mut status);
    put(1, &resource_name, &mut error);
    put(2, &status, &mut error);
    error
}
