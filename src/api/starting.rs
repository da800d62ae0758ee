//! The HTTP API while the store is being read. Nothing is known then, and nobody is to take that for an empty mesh: every
//! call is refused as unavailable, `/readyz` as well, and `/livez` says that the process is well.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::future::{Either, Ready, ready};
use tower::Service;

use super::error::Problem;

/// Answers by itself until there is a service to ask.
pub struct Starting<S>(Arc<OnceLock<S>>);

impl<S> Starting<S> {
    /// From now on this one is asked, on open connections as well.
    pub fn go_on_with(&self, service: S) {
        // There is one start.
        let _ = self.0.set(service);
    }
}

impl<S> Default for Starting<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Clone for Starting<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for Starting<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Starting").field("started", &self.0.get().is_some()).finish()
    }
}

impl<S> Service<Request> for Starting<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, S::Future>;

    /// The service behind it is always ready, as axum's are.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.0.get() {
            Some(service) => Either::Right(service.clone().call(request)),
            None => Either::Left(ready(Ok(of_a_start(request.uri().path())))),
        }
    }
}

fn of_a_start(path: &str) -> Response {
    match path {
        "/livez" => "ok\n".into_response(),
        _ => Problem::new("unavailable", "the store is being read: try again").into_response(),
    }
}
