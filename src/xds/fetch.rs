//! One request, one response: what a client without a stream has asked for, as it is now. It is a session of one step.

use std::sync::Arc;

use tonic::Status;

use super::{
    node,
    protocol::{Dialect, Readiness, Received, Response},
    request::StateOfTheWorld,
    session::Session,
    stream::{Shared, now, refuse},
    view_catalog::ViewCatalog,
};
use crate::model::{Invalid, ResourceType};

/// `id` is that of a stream, which this is for a moment.
pub fn fetch(shared: &Shared, id: u64, only: ResourceType, request: StateOfTheWorld) -> Result<Response, Status> {
    let client = request.node.as_ref().map(node::client).transpose();
    let missing = || Invalid::new("node", "", "a request without a stream names its node");
    let client = client.and_then(|client| client.ok_or_else(missing));
    let client = client.map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
    let readiness = *shared.cache.readiness().borrow();
    if readiness < Readiness::Ready {
        return Err(Status::unavailable("Convoy has just started, and does not know yet who is there"));
    }
    let mut catalog = ViewCatalog::new(shared.cache.clone(), &client.view, client.node.clone(), id);
    let mut session = Session::new(Dialect::StateOfTheWorld, Some(only), client.features);
    // Each answer stands for itself: what the client has had before is of no matter.
    let request = StateOfTheWorld { version_info: String::new(), response_nonce: String::new(), ..request };
    let Received { interest, .. } = session.receive_state_of_the_world(request, now(), &catalog).map_err(refuse)?;
    if let Some(interest) = interest {
        catalog.follow(&interest);
    }
    Ok(session.poll(now(), &catalog, readiness).unwrap_or_else(|| session.nothing(only)))
}

/// As a sequence of one, to be written like that of a stream.
pub fn answer(
    shared: Arc<Shared>,
    id: u64,
    only: ResourceType,
    mut requests: tonic::Streaming<super::codec::Incoming>,
) -> impl futures_util::Stream<Item = Result<Response, Status>> + Send {
    futures_util::stream::once(async move {
        match requests.message().await? {
            Some(super::codec::Incoming::StateOfTheWorld(request)) => fetch(&shared, id, only, request),
            _ => Err(Status::invalid_argument("the request is missing")),
        }
    })
}
