//! Filling a registry.

use anyhow::Context;
use convoy_client::{
    Client,
    proto::{RegisterRequest, Registration},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::change::{Change, TTL, registration};

/// What one call may register.
const INSTANCES_OF_A_CALL: usize = 50;
const CALLS_AT_ONCE: usize = 64;

/// Registers services, each with one instance that changes later and others that do not.
pub async fn fill(client: &Client, services: usize, endpoints: usize) -> anyhow::Result<()> {
    let all: Vec<Registration> = (0..services as u16).flat_map(|service| instances(service, endpoints)).collect();
    let calls = all.chunks(INSTANCES_OF_A_CALL).map(|instances| RegisterRequest {
        ttl: Some(convoy_client::duration(TTL)),
        instances: instances.to_vec(),
        ..RegisterRequest::default()
    });
    let calls = stream::iter(calls.collect::<Vec<_>>()).map(|call| client.register(call));
    let filled = calls.buffer_unordered(CALLS_AT_ONCE).try_for_each(|_| async { Ok(()) }).await;
    filled.context("the registry does not take what it is to be filled with")
}

fn instances(service: u16, endpoints: usize) -> impl Iterator<Item = Registration> {
    let others = (1..endpoints).map(move |number| {
        let (a, b) = (100 + service / 100, 100 + service % 100);
        registration(service, &format!("instance-{number}"), format!("10.{a}.{b}.{number}"), 8080)
    });
    std::iter::once(Change { service, number: 0 }.registration()).chain(others)
}
