//! The incremental dialect: reading a request, laying out a response.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{
    resource::{Resource, Version, put},
    session::{Dialect, Interest, Now, Received, Refusal, Response, Session, check_lengths},
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
            chunks: layout(&request.type_url, "0", nonce, &contents),
            overdue: false,
        });
        Ok(())
    }
}

/// `DeltaDiscoveryResponse`, in parts.
pub(super) fn response(
    kind: ResourceType,
    version: &str,
    nonce: &str,
    contents: &[(Arc<str>, Option<Arc<Resource>>)],
) -> Vec<Bytes> {
    layout(kind.type_url(), version, nonce, contents)
}

fn layout(type_url: &str, version: &str, nonce: &str, contents: &[(Arc<str>, Option<Arc<Resource>>)]) -> Vec<Bytes> {
    let mut head = Vec::with_capacity(160);
    put(1, version.as_bytes(), &mut head);
    put(4, type_url.as_bytes(), &mut head);
    put(5, nonce.as_bytes(), &mut head);
    for (name, _) in contents.iter().filter(|(_, resource)| resource.is_none()) {
        put(6, name.as_bytes(), &mut head);
    }
    let resources = contents.iter().filter_map(|(_, resource)| Some(resource.as_ref()?.incremental().clone()));
    [Bytes::from(head)].into_iter().chain(resources).collect()
}
