//! CSDS, and what else the xDS port tells of itself: health and reflection.

use envoy_types::pb::envoy::{
    admin::v3::ClientResourceStatus,
    service::status::v3::{
        ClientStatusRequest, ConfigStatus, client_config::GenericXdsConfig,
        client_status_discovery_service_client::ClientStatusDiscoveryServiceClient as Client,
    },
    r#type::matcher::v3::{NodeMatcher, RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus::{NotServing, Serving},
    health_client::HealthClient,
};

use super::{proxy, refusal, weigh, with_services};
use crate::support::{
    ads::{CLUSTER, ENDPOINT, connect},
    server::Convoy,
    until, within,
};

fn of(pattern: MatchPattern) -> ClientStatusRequest {
    let node_id = Some(StringMatcher { match_pattern: Some(pattern), ..Default::default() });
    ClientStatusRequest { node_matchers: vec![NodeMatcher { node_id, ..Default::default() }], ..Default::default() }
}

async fn channel(convoy: &Convoy) -> Channel {
    connect(convoy.addresses.xds).await
}

/// The resources of the only client that matches, by type and name.
async fn fetch(convoy: &Convoy, request: ClientStatusRequest) -> Vec<GenericXdsConfig> {
    let mut client = Client::new(channel(convoy).await);
    let mut answer = within("CSDS", client.fetch_client_status(request)).await.expect("an answer").into_inner();
    assert_eq!(answer.config.len(), 1, "{answer:?}");
    let config = answer.config.remove(0);
    assert_eq!(config.node.expect("a node").id, "web-1");
    config.generic_xds_configs
}

#[tokio::test]
async fn it_tells_what_each_proxy_has() {
    let convoy = with_services(&["web"]).await;
    let mut stream = proxy(&convoy, "web-1", &["web", "nothing"]).await;
    let _other = proxy(&convoy, "shop-1", &["web"]).await;
    let prefix = || of(MatchPattern::Prefix("web-".into()));
    let [cluster, nothing, web] = until("all is ACKed", async || {
        let all: [GenericXdsConfig; 3] = fetch(&convoy, prefix()).await.try_into().expect("three");
        (all[2].client_status() == ClientResourceStatus::Acked).then_some(all)
    })
    .await;
    assert_eq!((&*cluster.type_url, &*cluster.name), (CLUSTER.type_url(), "web"));
    assert_eq!((nothing.client_status(), &*nothing.version_info), (ClientResourceStatus::DoesNotExist, ""));
    assert_eq!((web.config_status(), web.version_info.len()), (ConfigStatus::Synced, 32));
    assert_eq!(web.xds_config.as_ref().expect("its content").type_url, ENDPOINT.type_url());
    assert!(web.last_updated.is_some() && web.error_state.is_none());

    weigh(&convoy, "web", 2).await;
    let pushed = stream.next().await;
    stream.say(refusal(&pushed, "web: too heavy")).await;
    let refused = until("the refusal", async || {
        let request = ClientStatusRequest { exclude_resource_contents: true, ..prefix() };
        fetch(&convoy, request).await.into_iter().find(|config| config.config_status() == ConfigStatus::Error)
    })
    .await;
    assert_eq!((refused.client_status(), &refused.xds_config), (ClientResourceStatus::Nacked, &None));
    assert_eq!(refused.version_info, web.version_info);
    assert_eq!(refused.error_state.expect("an error").details, "web: too heavy");
}

#[tokio::test]
async fn a_stream_answers_each_request_and_refuses_what_it_cannot_match() {
    let convoy = with_services(&["web"]).await;
    let _one = proxy(&convoy, "web-1", &["web"]).await;
    let mut client = Client::new(channel(&convoy).await);
    let regex = of(MatchPattern::SafeRegex(RegexMatcher::default()));
    let requests = [ClientStatusRequest::default(), of(MatchPattern::Exact("nobody".into())), regex];
    let answers = within("a stream", client.stream_client_status(tokio_stream::iter(requests))).await;
    let mut answers = answers.expect("a stream").into_inner();
    let mut next = async || within("an answer", answers.message()).await;
    assert_eq!(next().await.expect("all").expect("an answer").config.len(), 1);
    assert_eq!(next().await.expect("nobody").expect("an answer").config.len(), 0);
    let refused = next().await.expect_err("a regex");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("node_matchers[0].node_id.safe_regex"), "{refused:?}");
}

#[tokio::test]
async fn the_port_says_how_it_is_until_it_stops() {
    const ADS: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
    const CSDS: &str = "envoy.service.status.v3.ClientStatusDiscoveryService";
    let convoy = with_services(&[]).await;
    let mut client = HealthClient::new(channel(&convoy).await);
    for service in ["", ADS, CSDS] {
        let checked = within(service, client.check(HealthCheckRequest { service: service.into() })).await;
        assert_eq!(checked.expect("known").into_inner().status(), Serving, "{service}");
    }
    let unknown = within("an answer", client.check(HealthCheckRequest { service: "no.Such".into() })).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
    let watched = within("a watch", client.watch(HealthCheckRequest { service: ADS.into() })).await;
    let mut watched = watched.expect("a watch").into_inner();
    let mut next = async || within("a status", watched.message()).await;
    assert_eq!(next().await.expect("a status").expect("a status").status(), Serving);
    let stopped = tokio::spawn(convoy.stop());
    assert_eq!(next().await.expect("a status").expect("a status").status(), NotServing);
    within("the end", stopped).await.expect("stopped");
}

#[tokio::test]
async fn the_port_lists_its_services_in_both_versions_of_reflection() {
    use tonic_reflection::pb::{v1, v1alpha};
    let convoy = with_services(&[]).await;
    let channel = channel(&convoy).await;
    let mut services = Vec::new();
    {
        use v1::{server_reflection_request::MessageRequest, server_reflection_response::MessageResponse};
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let ask = tokio_stream::iter([v1::ServerReflectionRequest { message_request, ..Default::default() }]);
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let mut answers = client.server_reflection_info(ask).await.expect("a stream").into_inner();
        let answer = within("an answer", answers.message()).await.expect("no error").expect("an answer");
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
        services.push(list.service.into_iter().map(|service| service.name).collect::<Vec<_>>());
    }
    {
        use v1alpha::{server_reflection_request::MessageRequest, server_reflection_response::MessageResponse};
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let ask = tokio_stream::iter([v1alpha::ServerReflectionRequest { message_request, ..Default::default() }]);
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let mut answers = client.server_reflection_info(ask).await.expect("a stream").into_inner();
        let answer = within("an answer", answers.message()).await.expect("no error").expect("an answer");
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
        services.push(list.service.into_iter().map(|service| service.name).collect());
    }
    assert_eq!(services[0], services[1]);
    for name in ["envoy.service.discovery.v3.AggregatedDiscoveryService", "grpc.health.v1.Health"] {
        assert!(services[0].iter().any(|service| service == name), "{name} in {services:?}");
    }
}
