//! Which thread does a call's work. Connections are read and written by the intake, which must never be kept from
//! heartbeats: so a heartbeat is answered where it is read, and every other call is carried out by the threads given
//! here, with the making of its answer. Only the finished frames come back.
//!
//! An answer that is whole at once comes back whole; of one that goes on, a few frames wait at a time, so that a slow
//! reader holds back its call. A client that goes away ends its call: dropping what is here aborts it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body as _, Frame};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tower::{Layer, Service};

/// Frames of an answer that wait to be written. Each is a message, or a piece of one.
const FRAMES_WAITING: usize = 4;
/// So many come back with the head of the answer, if they are there at once.
const FRAMES_AT_ONCE: usize = 16;

type Request = axum::extract::Request;
type FrameResult = Result<Frame<Bytes>, axum::Error>;

/// Says whether a request is answered where it is read.
pub type IsHere = fn(&Request) -> bool;

/// The layer: around a service whose requests are carried out elsewhere, but for some.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    threads: Handle,
    is_here: IsHere,
}

impl Elsewhere {
    pub fn new(threads: Handle, is_here: IsHere) -> Self {
        Self { threads, is_here }
    }
}

impl<S> Layer<S> for Elsewhere {
    type Service = Sorted<S>;

    fn layer(&self, service: S) -> Sorted<S> {
        Sorted { service, elsewhere: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Sorted<S> {
    service: S,
    elsewhere: Elsewhere,
}

impl<S> Service<Request> for Sorted<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if (self.elsewhere.is_here)(&request) {
            return Answer::Here(Box::pin(self.service.call(request)));
        }
        let (reply, answer) = oneshot::channel();
        // The one that is ready is used; its clone may have to become so.
        let next = self.service.clone();
        let service = std::mem::replace(&mut self.service, next);
        // In a box: a task is aligned to cache lines, and to allocate a large one so takes the allocator long.
        let task = self.elsewhere.threads.spawn(Box::pin(carry_out(service, request, reply)));
        Answer::Elsewhere(answer, Some(AbortOnDrop(task)))
    }
}

/// Carries out a call, and hands over its answer as it comes.
async fn carry_out<S>(mut service: S, request: Request, reply: oneshot::Sender<Relayed>)
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let Ok(response) = service.call(request).await;
    if response.body().size_hint().exact().is_some() {
        // It is made already. Nobody may wait for it any more.
        let _ = reply.send(Relayed::Whole(response));
        return;
    }
    let (head, mut body) = response.into_parts();
    let mut at_once = VecDeque::new();
    let ended = loop {
        if at_once.len() == FRAMES_AT_ONCE {
            break false;
        }
        match next_frame(&mut body).now_or_never() {
            Some(Some(frame)) => at_once.push_back(frame),
            Some(None) => break true,
            None => break false,
        }
    };
    let (more, rest) = mpsc::channel(FRAMES_WAITING);
    let rest = (!ended).then_some(rest);
    let frames = FramesOf { at_once, rest, _task: None };
    let sent = reply.send(Relayed::Frames(Response::from_parts(head, ()), frames));
    if sent.is_err() || ended {
        return;
    }
    while let Some(frame) = next_frame(&mut body).await {
        if more.send(frame).await.is_err() {
            return;
        }
    }
}

fn next_frame(body: &mut Body) -> impl Future<Output = Option<FrameResult>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context))
}

/// A task that ends with whoever waits for it.
#[derive(Debug)]
pub struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer as it comes from elsewhere.
#[derive(Debug)]
pub enum Relayed {
    Whole(Response),
    Frames(Response<()>, FramesOf),
}

/// The body of an answer that is made elsewhere.
#[derive(Debug)]
pub struct FramesOf {
    at_once: VecDeque<FrameResult>,
    rest: Option<mpsc::Receiver<FrameResult>>,
    /// Ends the call when the client goes away.
    _task: Option<AbortOnDrop>,
}

impl http_body::Body for FramesOf {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        if let Some(frame) = self.at_once.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => rest.poll_recv(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at_once.is_empty() && self.rest.is_none()
    }
}

/// The future of an answer.
#[derive(Debug)]
pub enum Answer<F> {
    Here(Pin<Box<F>>),
    Elsewhere(oneshot::Receiver<Relayed>, Option<AbortOnDrop>),
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Answer<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Here(answer) => answer.as_mut().poll(context),
            Self::Elsewhere(answer, task) => Poll::Ready(Ok(match ready!(answer.poll_unpin(context)) {
                Ok(Relayed::Whole(response)) => response,
                Ok(Relayed::Frames(head, frames)) => {
                    let task = task.take();
                    head.map(|()| Body::new(FramesOf { _task: task, ..frames }))
                }
                // The call has panicked, or its threads are gone.
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use axum::{Router, routing::get};
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// The threads that carry out what is not for here; their name tells them.
    fn threads() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).thread_name("elsewhere").enable_all().build().expect("threads")
    }

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    fn sorted(router: Router, threads: &Runtime) -> Sorted<Router> {
        Elsewhere::new(threads.handle().clone(), |request| request.uri().path() == "/here").layer(router)
    }

    async fn call(service: &mut Sorted<Router>, path: &str) -> Response {
        let request = axum::http::Request::get(path).body(Body::empty()).expect("a request");
        let Ok(response) = service.call(request).await;
        response
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.expect("no error").to_bytes();
        String::from_utf8(bytes.into()).expect("text")
    }

    #[test]
    fn what_is_not_for_here_is_carried_out_elsewhere_with_its_body() {
        let threads = threads();
        let pieces = || async {
            let pieces = stream::iter(0..40).then(|_| async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(thread() + ",")
            });
            Body::from_stream(pieces)
        };
        let router = Router::new().route("/here", get(|| async { thread() }));
        let router = router.route("/whole", get(|| async { thread() })).route("/pieces", get(pieces));
        let mut service = sorted(router, &threads);
        Builder::new_current_thread().build().expect("a runtime").block_on(async {
            assert_ne!(text(call(&mut service, "/here").await).await, "elsewhere");
            assert_eq!(text(call(&mut service, "/whole").await).await, "elsewhere");
            assert_eq!(text(call(&mut service, "/pieces").await).await, "elsewhere,".repeat(40));
            assert_eq!(call(&mut service, "/nowhere").await.status(), StatusCode::NOT_FOUND);
        });
        threads.shutdown_background();
    }

    #[test]
    fn who_goes_away_ends_the_call_and_a_slow_reader_holds_it_back() {
        let threads = threads();
        let (made, alive) = (Arc::new(Mutex::new(0)), Arc::new(()));
        let (counted, held) = (made.clone(), alive.clone());
        let endless = move || {
            let (made, held) = (counted.clone(), held.clone());
            async move {
                Body::from_stream(stream::repeat_with(move || {
                    let _held = &held;
                    *made.lock().expect("a number") += 1;
                    Ok::<_, Infallible>("piece")
                }))
            }
        };
        let held = alive.clone();
        let never = move || {
            let held = held.clone();
            async move {
                let _held = held;
                std::future::pending::<()>().await;
            }
        };
        let router = Router::new().route("/endless", get(endless)).route("/never", get(never));
        let mut service = sorted(router, &threads);
        Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
            let before = Arc::strong_count(&alive);
            let ended = async || {
                while Arc::strong_count(&alive) > before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let mut body = call(&mut service, "/endless").await.into_body();
            for _ in 0..100 {
                body.frame().await.expect("it is endless").expect("no error");
            }
            // What waits, what is on its way, and what came at once.
            assert!(*made.lock().expect("a number") <= 100 + FRAMES_WAITING + 2);
            drop(body);
            ended().await;
            assert!(call(&mut service, "/never").now_or_never().is_none());
            ended().await;
        });
        threads.shutdown_background();
    }

    #[test]
    fn a_panic_is_an_error_of_its_call_alone() {
        let threads = threads();
        async fn panics() {
            panic!("on purpose");
        }
        let router = Router::new().route("/panics", get(panics)).route("/whole", get(|| async { thread() }));
        let mut service = sorted(router, &threads);
        Builder::new_current_thread().build().expect("a runtime").block_on(async {
            assert_eq!(call(&mut service, "/panics").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(text(call(&mut service, "/whole").await).await, "elsewhere");
        });
        threads.shutdown_background();
    }
}
