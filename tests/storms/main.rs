//! Storms: many clients at once, coming back together, going up and down, or behaving badly; against the real binary, and
//! judged by what the others are told meanwhile. Each test takes the machine for itself, and is small unless its
//! variables say otherwise (docs/reliability.md has them). Figures are printed:
//! `cargo test --test storms -- --nocapture`.
//!
//! First what the tests are made of, then the storms, a module each.

#[path = "../field/explain.rs"]
#[allow(dead_code, reason = "shared with the tests in the field, which use more of it")]
mod explain;
#[path = "../field/field.rs"]
#[allow(dead_code, reason = "shared with the tests in the field, which use more of it")]
mod field;
#[path = "../field/fleet.rs"]
#[allow(dead_code, reason = "shared with the tests in the field, which use more of it")]
mod fleet;
#[path = "../field/journal.rs"]
#[allow(dead_code, reason = "shared with the tests in the field, which use more of it")]
mod journal;
#[path = "../envoy/machine.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod machine;
#[path = "../field/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests in the field, which use more of it")]
mod proxy;
#[path = "../api/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
mod support;

mod sidecar;
mod size;

mod bad_clients;
mod flapping;
mod reconnect;
