//! Endpoints that an Envoy must never be without.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::sleep};

use crate::envoy::Envoy;

/// Looks at an Envoy's hosts of `reviews` until it is asked how it was.
pub struct Steady(JoinHandle<()>);

impl Steady {
    pub fn watch(envoy: Arc<Envoy>, addresses: BTreeSet<SocketAddr>) -> Self {
        Self(tokio::spawn(never_loses(envoy, addresses)))
    }

    /// Each look found all of them, healthy.
    pub async fn has_lost_nothing(self) {
        self.0.abort();
        // One that has panicked was not cancelled.
        assert!(self.0.await.is_err_and(|error| error.is_cancelled()), "an endpoint was lost");
    }
}

async fn never_loses(envoy: Arc<Envoy>, addresses: BTreeSet<SocketAddr>) {
    loop {
        let hosts = envoy.hosts("reviews").await.unwrap_or_default();
        let healthy = |address: &SocketAddr| hosts.get(address).is_some_and(|host| host.health == "HEALTHY");
        assert!(addresses.iter().all(healthy), "{} has lost an endpoint: {hosts:?}", envoy.node);
        sleep(Duration::from_millis(10)).await;
    }
}
