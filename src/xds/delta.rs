//! The incremental dialect: reading a request.

use std::{collections::HashSet, sync::Arc};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{
    protocol::{Dialect, Interest, Now, Received, Refusal, Response},
    resource::{Resource, Version},
    response,
    session::{Session, check_lengths},
};

use crate::translate::ResourceType;

impl Session {
    /// Takes one request: of a first-of-its-type, an ACK or NACK, or one that only changes the subscription; or of
    /// several of these at once. Subscriptions hold whatever the nonce is.
    pub fn receive_incremental(&mut self, request: DeltaDiscoveryRequest, now: Now) -> Result<Received, Refusal> {
        let Some(kind) = self.kind_of(&request.type_url)? else {
            self.answer_unknown(request)?;
            return Ok(Received::default());
        };
        self.check_names(kind, request.resource_names_subscribe.iter())?;
        self.check_names(kind, request.initial_resource_versions.keys())?;
        let state = self.state(kind);
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let verdict = state.answered(&request.response_nonce, error, now);
        let first = !state.subscription.has_started();
        let mut subscribe = request.resource_names_subscribe;
        if first && !(subscribe.is_empty() && kind.is_full_set()) {
            // Some clients name what they hold only here. For a wildcard it means nothing more.
            let wildcard = subscribe.iter().any(|name| name == super::subscription::WILDCARD);
            let held = request.initial_resource_versions.keys().filter(|_| !wildcard);
            let named: HashSet<&String> = subscribe.iter().collect();
            let missing: Vec<String> = held.filter(|name| !named.contains(name)).cloned().collect();
            subscribe.extend(missing);
        }
        let changed = state.subscription.update(kind, &subscribe, &request.resource_names_unsubscribe);
        state.subscribe(kind, &changed, Dialect::Incremental);
        if first && !request.initial_resource_versions.is_empty() {
            for (name, version) in request.initial_resource_versions {
                // A version that is none of ours is one to replace.
                state.holds(name.into(), Version::parse(&version).unwrap_or(Version(1)));
            }
            self.set_returning();
        }
        if first && kind == ResourceType::Endpoint {
            self.ask_warming();
        }
        Ok(Received { interest: Some(Interest { kind, changed }), verdict: verdict.map(|verdict| (kind, verdict)) })
    }

    /// Of a type that Convoy does not know nothing exists; saying so keeps the client from waiting.
    fn answer_unknown(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Refusal> {
        if !request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty() {
            return Ok(());
        }
        check_lengths(0, request.resource_names_subscribe.iter())?;
        let contents: Vec<(Arc<str>, Option<Arc<Resource>>)> =
            request.resource_names_subscribe.into_iter().map(|name| (name.into(), None)).collect();
        self.answer_now(|nonce| Response {
            kind: None,
            chunks: response::incremental(&request.type_url, "0", nonce, &contents),
            overdue: false,
        });
        Ok(())
    }
}
