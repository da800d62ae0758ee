//! CSDS: what each proxy has, as the field's own tools ask for it. The same facts as the API's `GetProxyConfig`, in
//! Envoy's words. An xDS stream is a client here: one that has several appears once for each, told apart by its address
//! (`client_scope`).

use std::{pin::Pin, sync::Arc};

use convoy_client::proto::{self, SyncState};
use envoy_types::pb::{
    envoy::{
        admin::v3::{ClientResourceStatus, UpdateFailureState},
        config::core::v3::{Locality, Node},
        service::status::v3::{
            ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
            client_config::GenericXdsConfig,
            client_status_discovery_service_server::{
                ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
            },
        },
        r#type::matcher::v3::{NodeMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::Timestamp,
};
use futures_util::{Stream as Messages, StreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convergence::Survey,
    standing::{Holding, any},
    status::{Stream, in_order},
};
use crate::model::Revision;

pub const NAME: &str = "envoy.service.status.v3.ClientStatusDiscoveryService";
/// An answer is one message, made in memory: who wants more asks for fewer nodes at a time.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub struct Csds {
    survey: Survey,
}

pub fn service(survey: Survey) -> ClientStatusDiscoveryServiceServer<Csds> {
    ClientStatusDiscoveryServiceServer::new(Csds { survey })
}

type Answers = Pin<Box<dyn Messages<Item = Result<ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream = Answers;

    /// One answer to each request.
    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (survey, mut stopping) = (self.survey.clone(), self.survey.stopping.clone());
        let stopped = async move {
            // An error is the sender's end: Convoy has stopped.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let answers = request.into_inner().map(move |request| answer(&survey, &request?));
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(stopped)))))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        Ok(Response::new(answer(&self.survey, request.get_ref())?))
    }
}

fn answer(survey: &Survey, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
    let matchers = parse(&request.node_matchers)?;
    let (mut config, mut bytes) = (Vec::new(), 0);
    let mut streams = survey.proxies.streams();
    in_order(&mut streams);
    for stream in streams {
        // Without matchers, all are asked for.
        if matchers.is_empty() || matchers.iter().any(|matcher| matcher.matches(&stream.client.id)) {
            let client = client_config(&stream, request.exclude_resource_contents);
            bytes += client.encoded_len();
            if bytes > MAX_ANSWER_BYTES {
                let fix = "narrow node_matchers, or set exclude_resource_contents";
                return Err(Status::resource_exhausted(format!("the answer is over {MAX_ANSWER_BYTES} bytes: {fix}")));
            }
            config.push(client);
        }
    }
    Ok(ClientStatusResponse { config })
}

/// A condition on a node id.
#[derive(Debug)]
struct Matcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
}

impl Matcher {
    fn matches(&self, id: &str) -> bool {
        let folded = |text: &str| if self.ignore_case { text.to_lowercase() } else { text.to_owned() };
        let id = folded(id);
        match &self.pattern {
            Pattern::Exact(text) => id == folded(text),
            Pattern::Prefix(text) => id.starts_with(&folded(text)),
            Pattern::Suffix(text) => id.ends_with(&folded(text)),
            Pattern::Contains(text) => id.contains(&folded(text)),
        }
    }
}

fn parse(matchers: &[NodeMatcher]) -> Result<Vec<Matcher>, Status> {
    let parse = |(index, matcher): (usize, &NodeMatcher)| {
        let refused = |field: &str| Status::invalid_argument(format!("node_matchers[{index}].{field}"));
        if !matcher.node_metadatas.is_empty() {
            return Err(refused("node_metadatas: only node_id can be matched here"));
        }
        let id = matcher.node_id.as_ref().ok_or_else(|| refused("node_id: it must be set"))?;
        pattern(id).map_err(|why| refused(&format!("node_id.{why}")))
    };
    matchers.iter().enumerate().map(parse).collect()
}

fn pattern(matcher: &StringMatcher) -> Result<Matcher, &'static str> {
    let pattern = match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => Pattern::Exact(text.clone()),
        Some(MatchPattern::Prefix(text)) => Pattern::Prefix(text.clone()),
        Some(MatchPattern::Suffix(text)) => Pattern::Suffix(text.clone()),
        Some(MatchPattern::Contains(text)) => Pattern::Contains(text.clone()),
        Some(MatchPattern::SafeRegex(_)) => return Err("safe_regex: it is not supported; use prefix or contains"),
        Some(MatchPattern::Custom(_)) => return Err("custom: it is not supported"),
        None => return Err("match_pattern: it must be set"),
    };
    Ok(Matcher { pattern, ignore_case: matcher.ignore_case })
}

fn client_config(stream: &Arc<Stream>, without_contents: bool) -> ClientConfig {
    let shown = stream.describe(Revision(0));
    let configs = stream.holdings(|_| true).into_iter().map(|(holding, sync)| {
        let of_type = shown.types.iter().find(|of| of.r#type == holding.kind.as_str());
        generic_config(&holding, sync, of_type, without_contents)
    });
    ClientConfig {
        node: Some(node(&shown)),
        generic_xds_configs: configs.collect(),
        client_scope: shown.address.clone(),
        ..Default::default()
    }
}

/// As the client said who it is; its metadata is not repeated.
fn node(shown: &proto::Proxy) -> Node {
    let locality = shown.locality.clone();
    let locality = locality.map(|proto::Locality { region, zone, sub_zone }| Locality { region, zone, sub_zone });
    Node {
        id: shown.node.clone(),
        cluster: shown.cluster.clone(),
        user_agent_name: shown.user_agent.clone(),
        locality,
        ..Default::default()
    }
}

fn generic_config(
    holding: &Holding,
    sync: SyncState,
    of_type: Option<&proto::ProxyType>,
    without_contents: bool,
) -> GenericXdsConfig {
    let (config_status, client_status) = statuses(holding, sync);
    let time = |at: prost_types::Timestamp| Timestamp { seconds: at.seconds, nanos: at.nanos };
    let resource = holding.acked_resource.as_deref().filter(|_| !without_contents);
    let nack = of_type.and_then(|of| of.last_nack.as_ref()).filter(|_| sync == SyncState::Rejected);
    GenericXdsConfig {
        type_url: holding.kind.type_url().into(),
        name: holding.name.to_string(),
        version_info: holding.acked.map(|version| version.to_string()).unwrap_or_default(),
        xds_config: resource.map(any),
        last_updated: of_type.and_then(|of| of.acked_at).filter(|_| holding.acked.is_some()).map(time),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state: nack.map(|nack| UpdateFailureState {
            last_update_attempt: nack.at.map(time),
            details: nack.message.clone(),
            version_info: nack.version.clone(),
            ..Default::default()
        }),
        is_static_resource: false,
    }
}

/// How it stands as the server sees it, and as the client does.
fn statuses(holding: &Holding, sync: SyncState) -> (ConfigStatus, ClientResourceStatus) {
    match sync {
        SyncState::Synced => (ConfigStatus::Synced, ClientResourceStatus::Acked),
        SyncState::Rejected => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        SyncState::Absent => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist),
        SyncState::Pending | SyncState::Unspecified => {
            let unanswered = holding.sent.is_some() && holding.sent != holding.acked;
            let of_server = if unanswered { ConfigStatus::Stale } else { ConfigStatus::NotSent };
            let has = holding.acked.is_some();
            (of_server, if has { ClientResourceStatus::Acked } else { ClientResourceStatus::Requested })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{translate::ResourceType, xds::resource::Version};
    use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StructMatcher};

    fn by_id(pattern: Option<MatchPattern>, ignore_case: bool) -> NodeMatcher {
        let node_id = Some(StringMatcher { ignore_case, match_pattern: pattern });
        NodeMatcher { node_id, ..Default::default() }
    }

    #[test]
    fn nodes_are_matched_by_id() {
        use MatchPattern::{Contains, Exact, Prefix, Suffix};
        for (pattern, ignore_case, matched) in [
            (Exact("web-1".into()), false, true),
            (Exact("Web-1".into()), false, false),
            (Exact("Web-1".into()), true, true),
            (Prefix("web".into()), false, true),
            (Prefix("1".into()), false, false),
            (Suffix("-1".into()), false, true),
            (Contains("b-".into()), false, true),
            (Contains("x".into()), false, false),
        ] {
            let matchers = parse(&[by_id(Some(pattern.clone()), ignore_case)]).expect("supported");
            assert_eq!(matchers[0].matches("web-1"), matched, "{pattern:?}");
        }
    }

    #[test]
    fn what_cannot_be_matched_is_refused_by_name() {
        let by_metadata = NodeMatcher { node_metadatas: vec![StructMatcher::default()], ..Default::default() };
        let good = by_id(Some(MatchPattern::Exact("a".into())), false);
        for (matcher, says) in [
            (by_metadata, "node_matchers[1].node_metadatas"),
            (NodeMatcher::default(), "node_matchers[1].node_id"),
            (by_id(None, false), "node_matchers[1].node_id.match_pattern"),
            (
                by_id(Some(MatchPattern::SafeRegex(RegexMatcher::default())), false),
                "node_matchers[1].node_id.safe_regex",
            ),
        ] {
            let refused = parse(&[good.clone(), matcher]).expect_err(says);
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().starts_with(says), "{refused:?}");
        }
    }

    #[test]
    fn a_resource_stands_in_envoys_words() {
        use ClientResourceStatus::{Acked, DoesNotExist, Nacked, Requested};
        for (sent, acked, sync, expected) in [
            (1, 1, SyncState::Synced, (ConfigStatus::Synced, Acked)),
            (1, 1, SyncState::Pending, (ConfigStatus::NotSent, Acked)),
            (2, 1, SyncState::Pending, (ConfigStatus::Stale, Acked)),
            (1, 0, SyncState::Pending, (ConfigStatus::Stale, Requested)),
            (0, 0, SyncState::Pending, (ConfigStatus::NotSent, Requested)),
            (1, 1, SyncState::Rejected, (ConfigStatus::Error, Nacked)),
            (0, 0, SyncState::Absent, (ConfigStatus::NotSent, DoesNotExist)),
        ] {
            let version = |number: u128| (number > 0).then_some(Version(number));
            let (sent, acked) = (version(sent), version(acked));
            let (kind, name) = (ResourceType::Cluster, "web".into());
            let holding = Holding { kind, name, sent, acked, acked_resource: None, rejected: false };
            assert_eq!(statuses(&holding, sync), expected, "{holding:?} {sync:?}");
        }
    }
}
