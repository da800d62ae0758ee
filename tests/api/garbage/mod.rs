//! Garbage on every port of the real binary: it gets an error or an end, and nothing else notices. A witness looks: an
//! agent that heartbeats all the while, a proxy whose stream stays open and goes on being told, and the memory.

mod bytes;
mod files;
mod json;
mod protobuf;
mod resources;
mod xds;
mod xds_memory;

use std::time::Duration;

use convoy_client::proto::{LeaseOutcome, RegisterRequest, Registration};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use tokio::task::JoinHandle;

use crate::support::{
    ads::{ENDPOINT, Incremental, Stream, assignment, endpoints},
    api::Api,
    child::{Child, Home},
    sample::{call, instance, seconds},
};

/// How much more than at the start may be in use; what garbage is answered with comes to a few MiB at a time.
const ROOM_MIB: u64 = 96;

struct Witness {
    child: Child,
    beats: JoinHandle<()>,
    stream: Stream<Incremental>,
    weight: u32,
    memory_mib: u64,
    _home: Home,
}

impl Witness {
    async fn start() -> Self {
        let home = Home::new("storage: memory\nsettle: 0s\n");
        let child = Child::start(&home).await;
        let request = RegisterRequest { ttl: seconds(3), ..call([instance("witness", 1)]) };
        let lease = child.api.register(request).await.expect("registered").lease.expect("a lease").id;
        let beats = tokio::spawn(beat(child.api.clone(), lease));
        let mut stream =
            Stream::open(child.addresses.xds, <Incremental as crate::support::ads::Dialect>::AGGREGATED).await;
        let first = stream.ask(Stream::<Incremental>::subscribe(ENDPOINT, &["witness"])).await;
        stream.ack(&first).await;
        let memory_mib = child.memory_mib();
        Self { child, beats, stream, weight: 100, memory_mib, _home: home }
    }

    fn api(&self) -> &Api {
        &self.child.api
    }

    /// Everything still works, for those who did nothing wrong.
    async fn check(&mut self, after: &str) {
        self.child.assert_running();
        assert!(!self.beats.is_finished(), "the agent has lost its lease: {after}");
        self.weight += 1;
        let changed = Registration { weight: Some(self.weight), ..instance("witness", 1) };
        self.child.api.register(call([changed])).await.unwrap_or_else(|refused| panic!("{after}: {refused:?}"));
        let pushed = self.stream.next().await;
        let witness: ClusterLoadAssignment = assignment(&pushed.resources[0]);
        assert_eq!(endpoints(&witness)[0].1, self.weight, "{after}");
        self.stream.ack(&pushed).await;
        assert_eq!(self.child.api.http.get("/readyz").await.status, 200, "{after}");
        let memory = self.child.memory_mib();
        println!("{after}: {memory} MiB in use, {} at the start", self.memory_mib);
        assert!(memory < self.memory_mib + ROOM_MIB, "{after}: {memory} MiB in use, {} at the start", self.memory_mib);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// Heartbeats for as long as they are heard in time.
async fn beat(api: Api, lease: String) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while api.heartbeat(&lease).await.outcome() == LeaseOutcome::Kept {
        ticks.tick().await;
    }
}
