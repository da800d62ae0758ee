//! The state-of-the-world dialect: reading a request.

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::{
    protocol::{Catalog, Dialect, Interest, Now, Received, Refusal},
    resource::{Resource, Version},
    session::Session,
};
use crate::translate::ResourceType;

impl Session {
    /// Takes one request. Its names are the whole subscription, unless it answers an older response than the last: then
    /// they are out of date, and another request follows.
    pub fn receive_state_of_the_world(
        &mut self,
        request: DiscoveryRequest,
        now: Now,
        catalog: &dyn Catalog,
    ) -> Result<Received, Refusal> {
        let Some(kind) = self.kind_of(&request.type_url)? else { return Ok(Received::default()) };
        self.check_names(kind, request.resource_names.iter())?;
        let state = self.state(kind);
        let stale = state.is_stale(&request.response_nonce);
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let verdict = state.answered(&request.response_nonce, error, now).map(|verdict| (kind, verdict));
        if stale {
            return Ok(Received { interest: None, verdict });
        }
        let first = !state.subscription.has_started();
        let changed = state.subscription.replace(kind, &request.resource_names);
        state.subscribe(kind, &changed, Dialect::StateOfTheWorld);
        if first && !request.version_info.is_empty() {
            self.set_returning();
            // Of other types the version may be of names that the client has dropped without a word since.
            if kind.is_full_set() {
                self.resume(kind, &request.version_info, catalog);
            }
        }
        if first && kind == ResourceType::Endpoint {
            self.ask_warming();
        }
        Ok(Received { interest: Some(Interest { kind, changed }), verdict })
    }

    /// A client that comes back with a version has everything if that is the version of what it asks for now.
    fn resume(&mut self, kind: ResourceType, version: &str, catalog: &dyn Catalog) {
        let state = self.state(kind);
        let mut names: Vec<Arc<str>> = state.subscription.names().iter().cloned().collect();
        if state.subscription.is_wildcard() {
            names.extend(catalog.wildcard(kind));
            names.sort();
            names.dedup();
        }
        let resources: Vec<Arc<Resource>> = names.iter().filter_map(|name| catalog.get(kind, name)).collect();
        let digest = resources.iter().fold(0u128, |sum, resource| sum.wrapping_add(resource.version.0));
        if Version(digest).to_string() == version {
            state.holds_all(resources, version);
        }
    }
}
