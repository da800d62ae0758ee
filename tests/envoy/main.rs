//! Convoy as a real Envoy and a real gRPC client see it.
//!
//! Convoy runs as the `convoy` binary, Envoy as the one that `examples/envoy/get-envoy.sh` finds, agents as small HTTP
//! servers in this process. Nothing is skipped: without an Envoy, or Python for the gRPC client, the tests fail. Figures
//! are printed: `cargo test --test envoy -- --nocapture`.
//!
//! First what the tests are made of, then the promises, a module each.

mod agents;
mod convoy;
mod dump;
mod envoy;
mod http;
mod load;
mod machine;
mod python;
mod steady;
mod times;
mod wait;
#[path = "../support/wheel.rs"]
mod wheel;
mod written;

mod barrier;
mod crash;
mod drift;
mod golden;
mod hosts;
mod locality;
mod nack;
mod on_demand;
mod overrides;
mod propagation;
mod proxyless;
mod raw;
mod restart;
mod selected;
mod traffic;
mod views;
mod weights;
