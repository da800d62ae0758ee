//! The calls about agent cards, and their gRPC shell. A card is served while its agent takes requests: whoever reads it
//! is going to call it.

use std::ops::Bound;

use convoy_client::proto::{self, agent_cards_server::AgentCards};
use tonic::{Request, Response, Status};

use super::{Api, error::Problem, grpc::Shell, optional};
use crate::{
    model::{Instance, InstanceKey, Invalid, Namespace, ServiceName, parse, wire},
    registry::command::{Error, Versioned},
};

const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// A page fits in a gRPC message of the usual 4 MiB, with one card more.
const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// A call that looks for cards among many that have none ends soon enough for those beside it.
const MAX_SCANNED: usize = 100_000;

impl Api {
    pub fn get_agent_card(&self, request: &proto::GetAgentCardRequest) -> Result<proto::AgentCard, Problem> {
        let key = parse::instance_key(&request.namespace, &request.service, &request.id)?;
        let snapshot = self.registry.snapshot();
        let instance = snapshot.instance(&key).ok_or_else(|| Error::no_instance(&key))?;
        let verdict = instance.value.verdict();
        match card_of(instance) {
            Some(card) if verdict.serves() => Ok(card),
            Some(_) => Err(none(&key, &format!("it is {}, and its card is not served", verdict.as_str()))),
            None => Err(none(&key, "it has registered none")),
        }
    }

    pub fn list_agent_cards(
        &self,
        request: &proto::ListAgentCardsRequest,
    ) -> Result<proto::ListAgentCardsResponse, Problem> {
        let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
        let service = optional(&request.service, |name| ServiceName::parse("service", name))?;
        let size = page_size(request.page_size)?;
        let after = optional(&request.page_token, page_token)?;
        let snapshot = self.registry.snapshot();
        let mut answer = proto::ListAgentCardsResponse { revision: snapshot.revision.0, ..Default::default() };
        let (mut scanned, mut bytes) = (0, 0);
        let mut last: Option<&InstanceKey> = None;
        let first = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Included(after.service.clone()));
        for (key, state) in snapshot.services.range((first, Bound::Unbounded)) {
            let wanted = namespace.as_ref().is_none_or(|name| *name == key.namespace)
                && service.as_ref().is_none_or(|name| *name == key.name);
            if !wanted {
                continue;
            }
            let resumed = after.as_ref().filter(|after| after.service == *key);
            let first = resumed.map_or(Bound::Unbounded, |after| Bound::Excluded(after.id.clone()));
            for (_, instance) in state.instances.range((first, Bound::Unbounded)) {
                let length = instance.value.spec.card.as_ref().map_or(0, |card| card.len());
                let full = answer.cards.len() == size || bytes + length > MAX_PAGE_BYTES && bytes > 0;
                if let Some(last) = last.filter(|_| full || scanned == MAX_SCANNED) {
                    answer.next_page_token = last.to_string();
                    return Ok(answer);
                }
                if length > 0 && instance.value.verdict().serves() {
                    bytes += length;
                    answer.cards.extend(card_of(instance));
                }
                scanned += 1;
                last = Some(&instance.value.key);
            }
        }
        Ok(answer)
    }
}

fn card_of(instance: &Versioned<Instance>) -> Option<proto::AgentCard> {
    let card = instance.value.spec.card.as_deref()?;
    let key = &instance.value.key;
    Some(proto::AgentCard {
        namespace: key.service.namespace.to_string(),
        service: key.service.name.to_string(),
        id: key.id.to_string(),
        verdict: wire::verdict(instance.value.verdict()).into(),
        revision: instance.revision.0,
        card: card.to_owned(),
    })
}

fn none(key: &InstanceKey, why: &str) -> Problem {
    Problem {
        field: "agent card".into(),
        value: key.to_string(),
        rule: "that of an instance that takes requests".into(),
        ..Problem::new("not_found", format!("there is no agent card of {key}: {why}"))
    }
}

fn page_size(asked: u32) -> Result<usize, Invalid> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE),
        Ok(size @ 1..=MAX_PAGE) => Ok(size),
        _ => Err(Invalid::new("page_size", asked, format!("from 1 to {MAX_PAGE}"))),
    }
}

/// The last instance that was looked at.
fn page_token(token: &str) -> Result<InstanceKey, Invalid> {
    let bad = || Invalid::new("page_token", token, "the `next_page_token` of an answer");
    let [namespace, service, id] = token.split('/').collect::<Vec<_>>()[..] else { return Err(bad()) };
    parse::instance_key(namespace, service, id).map_err(|_| bad())
}

#[tonic::async_trait]
impl AgentCards for Shell {
    async fn get_agent_card(
        &self,
        request: Request<proto::GetAgentCardRequest>,
    ) -> Result<Response<proto::AgentCard>, Status> {
        Ok(Response::new(self.api.get_agent_card(request.get_ref())?))
    }

    async fn list_agent_cards(
        &self,
        request: Request<proto::ListAgentCardsRequest>,
    ) -> Result<Response<proto::ListAgentCardsResponse>, Status> {
        Ok(Response::new(self.api.list_agent_cards(request.get_ref())?))
    }
}
