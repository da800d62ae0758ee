//! What listeners and routes share: the HTTP connection manager, and the route to a cluster.

use envoy_types::pb::envoy::{
    config::route::v3::{
        RetryPolicy, Route, RouteAction, RouteMatch,
        retry_policy::{RetryHostPredicate, retry_host_predicate},
        route,
        route_action::{ClusterSpecifier, MaxStreamDuration},
        route_match::PathSpecifier,
    },
    extensions::{
        filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter,
                http_connection_manager::{RouteSpecifier, UpgradeConfig},
                http_filter::ConfigType,
            },
        },
        retry::host::previous_hosts::v3::PreviousHostsPredicate,
    },
};

use super::{any, number, seconds};

/// What is safe to try again: the request did not reach the application.
const RETRY_ON: &str = "connect-failure,refused-stream,reset-before-request";
const RETRIES: u32 = 2;
/// How often a retry picks another host when it has drawn one that failed.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

pub(super) fn connection_manager(stat_prefix: &str, routes: RouteSpecifier) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        route_specifier: Some(routes),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(ConfigType::TypedConfig(any(&Router::default()))),
            ..Default::default()
        }],
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        ..Default::default()
    }
}

/// Everything to one cluster. No timeout of its own: streams may last, and a gRPC client's deadline is honoured.
pub(super) fn route_to(cluster: &str) -> Route {
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        timeout: seconds(0),
        max_stream_duration: Some(MaxStreamDuration { grpc_timeout_header_max: seconds(0), ..Default::default() }),
        retry_policy: Some(RetryPolicy {
            retry_on: RETRY_ON.into(),
            num_retries: number(RETRIES),
            retry_host_predicate: vec![previous_hosts],
            host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
            ..Default::default()
        }),
        ..Default::default()
    };
    Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix(String::new())), ..Default::default() }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}
