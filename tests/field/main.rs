//! Convoy and its agents as they run in the field: processes, which are killed, paused, cut off from each other and
//! told to stop; judged from outside, by the API, a watch, `explain`, and what a proxy holds.
//!
//! The network namespaces of `partition` and `loss` (which needs iptables, too) and the mounts of `disk` need root; without,
//! they say that they are left out, and they fail if `CONVOY_TEST_NAMESPACES_REQUIRED` is set. Figures are printed:
//! `cargo test --test field -- --nocapture`.
//!
//! First what the tests are made of, then the faults, a module each.

#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
#[path = "../api/support/mod.rs"]
mod support;

mod explain;
mod field;
mod fleet;
mod journal;
mod lossy;
mod mounted;
mod network;
mod proxy;
mod relay;

mod backup;
mod disk;
mod kill_loop;
mod killed;
mod loss;
mod partition;
mod paused;
mod scale_in;
mod story;
mod watchers;
