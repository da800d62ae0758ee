//! ADS and the single-type services over real gRPC streams, in both dialects. The protocol's rules are tested one by one
//! beside the session; here the promises are held end to end: registry in, resources out.

mod fetch;
mod incremental;
mod nacks;
mod raw;
mod rules;
mod settling;
mod single_type;
mod state_of_the_world;
mod streams;
mod views;

use convoy_client::proto::{Protocol, Registration};

use crate::support::{
    sample::{call, instance, instances, port},
    server::Convoy,
};

/// A Convoy with these services, of one instance each.
async fn with_services(services: &[&str]) -> Convoy {
    let convoy = Convoy::start().await;
    for service in services {
        convoy.api.register(instances(service, 1..2)).await.expect("registered");
    }
    convoy
}

async fn weigh(convoy: &Convoy, service: &str, weight: u32) {
    let registration = Registration { weight: Some(weight), ..instance(service, 1) };
    convoy.api.register(call([registration])).await.expect("changed");
}

/// One more port is one more cluster.
fn with_admin_port(service: &str) -> Registration {
    let ports = vec![port("http", 8080, Protocol::Http), port("admin", 9090, Protocol::Grpc)];
    Registration { ports, ..instance(service, 1) }
}
