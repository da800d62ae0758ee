//! The paths about agent cards: the body is the card itself; all else is in the path and the query.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
    routing::{get, put},
};
use convoy_client::{json::parse_duration, proto};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::{Answer, At, InstancePath, Peer, QueryError, Registered, Shared, Shell, bytes, parsed, register_one};
use crate::{
    api::error::Problem,
    model::{Invalid, agent_card::AgentCard, wire::duration},
};

pub(super) fn router(instance: &str) -> Router<Arc<Shell>> {
    Router::new()
        .route(&format!("{instance}/agent-card"), put(put_card).get(get_card))
        .route("/v1/agent-cards", get(list_cards))
}

/// What is said of the instance beside its card.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PutQuery {
    address: String,
    /// Instead of that of the card's first interface.
    port: Option<u16>,
    weight: Option<u32>,
    ready: Option<bool>,
    lease: String,
    ttl: Option<String>,
    incarnation: Option<u64>,
}

/// Registers the instance that the card is about, as a PUT of the instance does.
async fn put_card(
    State(shell): Shared,
    ConnectInfo(peer): Peer,
    At(InstancePath { namespace, service, id }): At<InstancePath>,
    query: Result<Query<PutQuery>, QueryError>,
    request: Request,
) -> Answer<Registered> {
    let PutQuery { address, port, weight, ready, lease, ttl, incarnation } = parsed(query)?;
    let body = bytes(request, &()).await?;
    let text = std::str::from_utf8(&body).map_err(|error| Invalid::new("agent_card", "…", error.to_string()))?;
    let card = AgentCard::parse(text, shell.api.registry.limits())?;
    let (agent_card, of_path) =
        (card.text.clone(), proto::Registration { namespace, service, id, ..Default::default() });
    let mut registration = proto::Registration { address, weight, ready, agent_card, ..of_path };
    if port.is_some() {
        card.place(&mut registration, port)?;
    }
    let parse = |text: String| parse_duration(&text).map_err(|error| Invalid::new("ttl", text, error));
    let ttl = ttl.map(parse).transpose()?.map(duration);
    let request = proto::RegisterRequest { lease, ttl, incarnation, instances: vec![registration] };
    register_one(&shell, request, peer).await
}

/// The card as it came.
async fn get_card(
    State(shell): Shared,
    At(InstancePath { namespace, service, id }): At<InstancePath>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let card = shell.api.get_agent_card(&proto::GetAgentCardRequest { namespace, service, id })?.card;
    let tag = format!("\"{:016x}\"", xxh3_64(card.as_bytes()));
    let named = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let known =
        named.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == tag || known == "*");
    // Whether the agent is still there is asked each time.
    let about = [(ETAG, tag), (CACHE_CONTROL, "no-cache".to_owned())];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, [(CONTENT_TYPE, "application/json")], card).into_response())
}

async fn list_cards(
    State(shell): Shared,
    query: Result<Query<proto::ListAgentCardsRequest>, QueryError>,
) -> Answer<proto::ListAgentCardsResponse> {
    shell.api.list_agent_cards(&parsed(query)?).map(Json)
}
