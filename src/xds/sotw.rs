//! The state-of-the-world dialect: reading a request.

use super::{
    protocol::{Catalog, Dialect, Interest, Now, Received, Refusal},
    request::StateOfTheWorld,
    resource::Version,
    resume::Claim,
    session::Session,
};
use crate::model::ResourceType;

impl Session {
    /// Takes one request. Its names are the whole subscription, unless it answers an older response than the last: then
    /// they are out of date, and another request follows.
    pub fn receive_state_of_the_world(
        &mut self,
        request: impl Into<StateOfTheWorld>,
        now: Now,
        catalog: &dyn Catalog,
    ) -> Result<Received, Refusal> {
        let request = request.into();
        let Some(kind) = self.kind_of(&request.type_url)? else { return Ok(Received::default()) };
        self.check_names(kind, request.resource_names.iter())?;
        let state = self.state_mut(kind);
        let stale = state.is_stale(&request.response_nonce);
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let verdict = state.answered(&request.response_nonce, error, now, catalog).map(|verdict| (kind, verdict));
        if stale {
            return Ok(Received { interest: None, verdict });
        }
        let first = !state.subscription.has_started();
        let changed = state.subscription.replace(kind, &request.resource_names, catalog);
        state.subscribe(&changed, Dialect::StateOfTheWorld, catalog);
        let names = state.subscription.names().clone();
        if first && !request.version_info.is_empty() {
            // A version may be of names that the client has dropped without a word since, and names again now. Only the
            // wildcard is surely the same.
            if state.subscription.is_wildcard()
                && let Some(version) = Version::parse(&request.version_info)
            {
                state.claims(Claim::Set(version));
            }
            self.set_returning();
        }
        if first && kind == ResourceType::Endpoint {
            self.ask_warming();
        }
        Ok(Received { interest: Some(Interest { kind, changed, names }), verdict })
    }
}
