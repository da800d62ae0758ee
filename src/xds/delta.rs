//! The incremental dialect: reading a request.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    protocol::{Catalog, Dialect, Interest, Now, Received, Refusal, Response},
    request::{Incremental, text},
    resource::Version,
    response::{Absent, Head},
    resume::Claim,
    session::{Session, check_lengths},
    subscription::WILDCARD,
};
use crate::model::ResourceType;

impl Session {
    /// Takes one request: of a first-of-its-type, an ACK or NACK, or one that only changes the subscription; or of
    /// several of these at once. Subscriptions hold whatever the nonce is.
    pub fn receive_incremental(
        &mut self,
        request: impl Into<Incremental>,
        now: Now,
        catalog: &dyn Catalog,
    ) -> Result<Received, Refusal> {
        let request = request.into();
        let Some(kind) = self.kind_of(&request.type_url)? else {
            self.answer_unknown(&request)?;
            return Ok(Received::default());
        };
        self.check_names(kind, request.resource_names_subscribe.iter())?;
        self.check_names(kind, request.initial_resource_versions.iter().map(|initial| &initial.name))?;
        let state = self.state_mut(kind);
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let verdict = state.answered(&request.response_nonce, error, now, catalog);
        let first = !state.subscription.has_started();
        let mut subscribe = request.resource_names_subscribe;
        let returns = first && !request.initial_resource_versions.is_empty();
        if returns && !(subscribe.is_empty() && kind.is_full_set()) {
            // Some clients name what they hold only here. For a wildcard it means nothing more.
            let wildcard = subscribe.iter().any(|name| name == WILDCARD);
            let held = request.initial_resource_versions.iter().map(|initial| &initial.name).filter(|_| !wildcard);
            let named: HashSet<&Bytes> = subscribe.iter().collect();
            let missing: Vec<Bytes> = held.filter(|name| !named.contains(name)).cloned().collect();
            subscribe.extend(missing);
        }
        let changed = state.subscription.update(kind, &subscribe, &request.resource_names_unsubscribe, catalog);
        state.subscribe(&changed, Dialect::Incremental, catalog);
        let names = state.subscription.names().clone();
        if returns {
            state.claims(Claim::versions(request.initial_resource_versions));
            self.set_returning();
        }
        if first && kind == ResourceType::Endpoint {
            self.ask_warming();
        }
        let verdict = verdict.map(|verdict| (kind, verdict));
        Ok(Received { interest: Some(Interest { kind, changed, names }), verdict })
    }

    /// Of a type that Convoy does not know nothing exists; saying so keeps the client from waiting.
    fn answer_unknown(&mut self, request: &Incremental) -> Result<(), Refusal> {
        let names = &request.resource_names_subscribe;
        if !request.response_nonce.is_empty() && names.is_empty() {
            return Ok(());
        }
        check_lengths((0, 0), names.iter())?;
        let absent = |name: &str| Absent { name: name.into(), named: true, held: false };
        let absent: Vec<Absent> = names.iter().filter_map(text).map(absent).collect();
        let (dialect, features) = (self.dialect(), self.features());
        self.answer_now(|nonce| {
            let head = Head { dialect, features, type_url: &request.type_url, version: Version(0), nonce };
            Response { kind: None, chunks: head.respond([].into_iter(), &absent), overdue: false }
        });
        Ok(())
    }
}
