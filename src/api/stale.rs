//! While the store is away what is known is served on, and every answer says how old it may be.

use axum::{
    Router,
    http::{HeaderName, HeaderValue},
    middleware::map_response,
    response::Response,
};

use crate::{model::ReplicaId, registry::Registry, storage::Health};

/// For how many seconds the store has been away, and with it what others write. In answers over HTTP and gRPC alike.
const STALE: HeaderName = HeaderName::from_static("convoy-stale-seconds");

/// Where there is one writer nothing is stale: it knows what it wrote.
pub fn marked(router: Router, registry: &Registry) -> Router {
    if registry.replica() == ReplicaId::ONLY {
        return router;
    }
    let health = registry.store_health();
    router.layer(map_response(move |response: Response| {
        let since = match *health.borrow() {
            Health::Live => None,
            Health::Away { since, .. } => Some(since),
        };
        async move {
            let mut response = response;
            if let Some(since) = since {
                response.headers_mut().insert(STALE, HeaderValue::from(since.elapsed().as_secs()));
            }
            response
        }
    }))
}
