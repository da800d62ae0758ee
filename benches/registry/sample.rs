//! What is registered: instances of a thousand services, each new, with one port, five labels and two capabilities.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use convoy_client::{
    Port, Protocol,
    proto::{Capability, RegisterRequest, Registration},
};

pub const SERVICES: u32 = 1_000;

/// Numbers instances; each is given once.
#[derive(Clone, Debug, Default)]
pub struct Numbers(Arc<AtomicU32>);

impl Numbers {
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

pub fn registration(number: u32) -> Registration {
    let [_, a, b, c] = number.to_be_bytes();
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let labels =
        [("language", "rust"), ("version", "1.4.2"), ("owner", "team-a"), ("tier", "web"), ("track", "stable")];
    let capability = |name: &str| Capability { name: name.into(), version: "1.0".into(), ..Capability::default() };
    Registration {
        service: format!("service-{}", number % SERVICES),
        id: format!("instance-{number}"),
        address: format!("10.{a}.{b}.{c}"),
        ports: vec![Port { name: "http".into(), port: 8080, protocol: Protocol::Http.into() }],
        labels: labels.map(label).into(),
        capabilities: vec![capability("checkout"), capability("orders.v2")],
        ..Registration::default()
    }
}

/// One call for one instance.
pub fn request(number: u32) -> RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 86_400, nanos: 0 });
    RegisterRequest { ttl, instances: vec![registration(number)], ..RegisterRequest::default() }
}
