//! Generates the API's types from `proto/`, without `protoc`, and gives them the JSON form that `json.rs` describes.

use std::{env, path::PathBuf};

use prost::Message;

const FILES: [&str; 4] =
    ["convoy/v1/types.proto", "convoy/v1/registry.proto", "convoy/v1/proxies.proto", "convoy/v1/resources.proto"];
const DURATIONS: [&str; 14] = [
    "Sla.latency_p50",
    "Sla.latency_p99",
    "Lease.ttl",
    "Lease.heartbeat_interval",
    "Service.drain_time",
    "RegisterRequest.ttl",
    "DrainRequest.drain_time",
    "DrainRequest.wait",
    "DrainResponse.drain_time",
    "Barrier.waited",
    "PutServiceRequest.drain_time",
    "WaitForConvergenceRequest.timeout",
    "Resource.ttl",
    "PutResourceRequest.ttl",
];
const TIMES: [&str; 8] = [
    "Health.since",
    "Instance.registered_at",
    "Proxy.connected_at",
    "Proxy.left_at",
    "ProxyType.acked_at",
    "Nack.at",
    "Laggard.connected_at",
    "MissingProxy.left_at",
];
const ANYS: [&str; 1] = ["ProxyResource.resource"];
const ENUMS: [(&str, &str); 12] = [
    ("Port.protocol", "Protocol"),
    ("ServicePort.protocol", "Protocol"),
    ("Health.verdict", "Verdict"),
    ("LeaseStatus.outcome", "LeaseOutcome"),
    ("WatchEvent.kind", "WatchKind"),
    ("WatchEvent.cause", "RemovalCause"),
    ("Proxy.dialect", "Dialect"),
    ("Proxy.sync", "SyncState"),
    ("ProxyType.sync", "SyncState"),
    ("ProxyResource.sync", "SyncState"),
    ("Barrier.outcome", "BarrierOutcome"),
    ("MissingProxy.reason", "MissingReason"),
];
/// What is left out of JSON when absent.
const OPTIONAL: [&str; 31] = [
    "Registration.weight",
    "Registration.ready",
    "Registration.locality",
    "Registration.sla",
    "Sla.throughput_rps",
    "Sla.cost_per_request",
    "Load.cpu",
    "Load.memory",
    "Load.queue_depth",
    "Load.in_flight",
    "Instance.health",
    "Instance.locality",
    "Instance.sla",
    "Instance.load",
    "RegisterRequest.incarnation",
    "RegisterResponse.lease",
    "LeaseHeartbeat.load",
    "LeaseStatus.lease",
    "DeregisterRequest.incarnation",
    "DrainRequest.incarnation",
    "DrainResponse.instance",
    "DrainResponse.barrier",
    "PutServiceRequest.export_to",
    "PutServiceResponse.service",
    "WatchEvent.instance",
    "Proxy.locality",
    "Proxy.synced_revision",
    "ProxyType.last_nack",
    "ProxyType.synced_revision",
    "GetConvergenceRequest.revision",
    "WaitForConvergenceRequest.revision",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(FILES, ["../proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("convoy.v1.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::configure()
        .build_server(env::var("CARGO_FEATURE_SERVER").is_ok())
        .btree_map(".")
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default, deny_unknown_fields)]");
    for field in DURATIONS {
        let with = "#[serde(with = \"crate::json::duration\", skip_serializing_if = \"Option::is_none\")]";
        config = config.field_attribute(format!(".convoy.v1.{field}"), with);
    }
    for field in TIMES {
        let with = "#[serde(with = \"crate::json::time\", skip_serializing_if = \"Option::is_none\")]";
        config = config.field_attribute(format!(".convoy.v1.{field}"), with);
    }
    for field in ANYS {
        let with = "#[serde(with = \"crate::json::any\", skip_serializing_if = \"Option::is_none\")]";
        config = config.field_attribute(format!(".convoy.v1.{field}"), with);
    }
    for (field, name) in ENUMS {
        let with = format!(
            "#[serde(serialize_with = \"crate::json::write_enum::<{name}, _>\", \
             deserialize_with = \"crate::json::read_enum::<{name}, _>\")]"
        );
        config = config.field_attribute(format!(".convoy.v1.{field}"), with);
    }
    // A message of another's API has no JSON here; see `Resource.body`.
    for field in ["Resource.body", "PutResourceRequest.body"] {
        config = config.field_attribute(format!(".convoy.v1.{field}"), "#[serde(skip)]");
    }
    // Only a removal has a cause.
    let skip = "#[serde(skip_serializing_if = \"crate::json::is_unspecified\")]";
    config = config.field_attribute(".convoy.v1.WatchEvent.cause", skip);
    for field in OPTIONAL {
        config = config
            .field_attribute(format!(".convoy.v1.{field}"), "#[serde(skip_serializing_if = \"Option::is_none\")]");
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
