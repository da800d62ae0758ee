//! The store over a real etcd, with faults: what a replica has been told at the end is what etcd holds, and nothing was told
//! twice. Nothing is skipped: without an etcd the tests fail. See `support/etcd.rs` for where it comes from.

#[path = "../support/etcd.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod etcd;
mod link;
mod replica;
#[path = "../support/wheel.rs"]
mod wheel;

mod access;
mod faults;
mod gaps;
mod members;
mod replicas;
