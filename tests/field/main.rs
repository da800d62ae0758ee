//! Convoy and its agents as they run in the field: processes, which are killed, paused, cut off from each other and
//! told to stop; judged from outside, by the API, a watch, `explain`, and what a proxy holds.
//!
//!
//! First what the tests are made of, then the faults, a module each.

#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
#[path = "../api/support/mod.rs"]
mod support;

mod explain;
mod field;
mod fleet;
mod journal;
mod proxy;

mod killed;
mod paused;
mod scale_in;
