//! Laying out responses: a small head of their own, then the resources' shared bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::resource::{Resource, put};

/// `DeltaDiscoveryResponse`, in parts; a resource that is none is removed.
pub(super) fn incremental(
    type_url: &str,
    version: &str,
    nonce: &str,
    contents: &[(Arc<str>, Option<Arc<Resource>>)],
) -> Vec<Bytes> {
    let mut head = head(type_url, version, nonce);
    for (name, _) in contents.iter().filter(|(_, resource)| resource.is_none()) {
        put(6, name.as_bytes(), &mut head);
    }
    let resources = contents.iter().filter_map(|(_, resource)| Some(resource.as_ref()?.incremental().clone()));
    [Bytes::from(head)].into_iter().chain(resources).collect()
}

/// `DiscoveryResponse`, in parts.
pub(super) fn state_of_the_world(
    type_url: &str,
    version: &str,
    nonce: &str,
    resources: &[Arc<Resource>],
) -> Vec<Bytes> {
    let resources = resources.iter().map(|resource| resource.state_of_the_world().clone());
    [Bytes::from(head(type_url, version, nonce))].into_iter().chain(resources).collect()
}

/// Both messages have these fields at the same numbers.
fn head(type_url: &str, version: &str, nonce: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(160);
    put(1, version.as_bytes(), &mut head);
    put(4, type_url.as_bytes(), &mut head);
    put(5, nonce.as_bytes(), &mut head);
    head
}
