//! Clusters: one for each service and named port. A cluster says how to talk to the service, never who is in it, so
//! that it changes only with the service's definition.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy},
            },
            core::v3::{Http1ProtocolOptions, Http2ProtocolOptions},
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::Duration,
};
use prost::Message;

use super::{Built, any, names::parse_cluster, number, over_ads, seconds};
use crate::{model::Protocol, registry::state::Snapshot};

/// After this an Envoy that has not been told a cluster's endpoints uses those it has cached, or none.
const EDS_FETCH_TIMEOUT_SECONDS: i64 = 2;

/// Retries under way in one proxy for a cluster: as many as Envoy lets requests be.
const MAX_RETRIES: u32 = 1024;

pub fn build(name: &str, snapshot: &Snapshot) -> Option<Built> {
    let (key, port) = parse_cluster(name)?;
    let state = snapshot.services.get(&key)?;
    let service = &state.service.value;
    let port = match &port {
        // The default port's cluster has no port in its name: nothing has two names.
        Some(port) if *port == service.default_port => return None,
        Some(port) => port,
        None => &service.default_port,
    };
    let protocol = service.ports.get(port)?.protocol;
    Some(Built { bytes: cluster(name, protocol).encode_to_vec(), service: Some(state.owner()), ..Built::default() })
}

fn cluster(name: &str, protocol: Protocol) -> Cluster {
    let no_window = Some(Duration { seconds: 0, nanos: 0 });
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(over_ads(seconds(EDS_FETCH_TIMEOUT_SECONDS))),
            // One assignment for each cluster: its name.
            service_name: String::new(),
        }),
        connect_timeout: seconds(1),
        // The one policy that Envoy and every proxyless gRPC client have.
        lb_policy: LbPolicy::RoundRobin.into(),
        common_lb_config: Some(CommonLbConfig {
            // Envoy's 50 % would send requests to draining instances of small services.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            // Envoy's 1 s would hold a second change back from the workers, though it is ACKed at once.
            update_merge_window: no_window,
            ..Default::default()
        }),
        ignore_health_on_host_removal: true,
        circuit_breakers: Some(circuit_breakers()),
        outlier_detection: Some(outlier_detection()),
        typed_extension_protocol_options: protocol_options(protocol),
        ..Default::default()
    }
}

/// Envoy's 3 retries at a time would let the fourth of the requests that wait for a dead instance fail. What is retried
/// never reached an application and goes to other instances, twice at most: it is no storm.
fn circuit_breakers() -> CircuitBreakers {
    let thresholds = Thresholds { max_retries: number(MAX_RETRIES), ..Default::default() };
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// Ejects only who cannot be reached, for a short time. What an instance answers is its service's own business.
fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: number(3),
        interval: seconds(1),
        base_ejection_time: seconds(2),
        max_ejection_time: seconds(10),
        max_ejection_percent: number(50),
        enforcing_consecutive_5xx: number(0),
        enforcing_consecutive_gateway_failure: number(0),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..Default::default()
    }
}

fn protocol_options(protocol: Protocol) -> std::collections::HashMap<String, envoy_types::pb::google::protobuf::Any> {
    let protocol_config = match protocol {
        Protocol::Tcp => return Default::default(),
        Protocol::Http => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        Protocol::Http2 | Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol_config),
        })),
        ..Default::default()
    };
    [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options))].into()
}
