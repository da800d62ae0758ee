//! Several replicas of one mesh over a real etcd, as processes that are killed, paused and cut off; judged from outside, by
//! what each of them says and by watches. Nothing is skipped: without an etcd the tests fail.

#[path = "../support/etcd.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod etcd;
#[path = "../field/journal.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod journal;
#[path = "../etcd/link.rs"]
mod link;
#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
#[path = "../api/support/mod.rs"]
mod support;
#[path = "../support/wheel.rs"]
mod wheel;

mod away;
mod barrier;
mod brake;
mod checks;
mod load;
mod mesh;
mod owners;
