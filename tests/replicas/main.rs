//! Several replicas of one mesh over a real etcd, as processes that are killed, paused and cut off; judged from outside, by
//! what each of them says, by watches, and by a real Envoy under traffic. Nothing is skipped: without an etcd or an Envoy
//! the tests fail; but those of `one_way` need root, and say that they are left out without (they fail if
//! `CONVOY_TEST_NAMESPACES_REQUIRED` is set).

#[path = "../envoy/agents.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod agents;
#[path = "../envoy/convoy.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod convoy;
#[path = "../envoy/envoy.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod envoy;
#[path = "../support/etcd.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod etcd;
#[path = "../envoy/http.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod http;
#[path = "../field/journal.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod journal;
#[path = "../etcd/link.rs"]
mod link;
#[path = "../envoy/load.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod load;
#[path = "../envoy/machine.rs"]
#[allow(dead_code, reason = "shared with the tests with Envoy, which use more of it")]
mod machine;
#[path = "../field/network.rs"]
mod network;
#[path = "../envoy/steady.rs"]
mod steady;
#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
#[path = "../api/support/mod.rs"]
mod support;
#[path = "../envoy/wait.rs"]
mod wait;
#[path = "../support/wheel.rs"]
mod wheel;

mod asked;
mod away;
mod backup;
mod barrier;
mod brake;
mod checks;
mod mesh;
mod one_way;
mod owners;
mod proxies;
mod quorum;
mod weights;
