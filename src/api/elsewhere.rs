//! Which thread does a call's work. Connections are read and written by the intake, which must never be kept from
//! heartbeats: so a heartbeat is answered where it is read, and every other call is carried out by the threads given
//! here, with the making of its answer. Only the finished frames come back. A small registration costs no more than a
//! heartbeat, and less than to carry it over: it is read here, and carried out here if it proves to be small.
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
    http::{StatusCode, request::Parts},
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

/// Up to here a request's body is small.
const SMALL_BYTES: usize = 4096;

/// Where a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where it is read.
    Here,
    /// Where it is read if its body is small. Not for calls whose client waits for an answer before its body ends.
    HereIfSmall,
    Elsewhere,
}

pub type PlaceOf = fn(&Request) -> Place;

/// The layer: around a service whose requests are carried out elsewhere, but for some.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    threads: Handle,
    place_of: PlaceOf,
}

impl Elsewhere {
    pub fn new(threads: Handle, place_of: PlaceOf) -> Self {
        Self { threads, place_of }
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
    type Future = Answer<S>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready is used; its clone may have to become so.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        let threads = &self.elsewhere.threads;
        match (self.elsewhere.place_of)(&request) {
            Place::Here => Answer::Here(Box::pin(service.call(request))),
            Place::Elsewhere => Answer::elsewhere(threads, service, request),
            Place::HereIfSmall => {
                // It may say so itself.
                let bytes = request.body().size_hint();
                if bytes.lower() > SMALL_BYTES as u64 {
                    return Answer::elsewhere(threads, service, request);
                }
                if bytes.upper().is_some_and(|bytes| bytes <= SMALL_BYTES as u64) {
                    return Answer::Here(Box::pin(service.call(request)));
                }
                let (head, body) = request.into_parts();
                let body = Begun { first: None, more: VecDeque::new(), rest: Some(body) };
                Answer::Reading(Box::new(Reading { head, body, threads: threads.clone(), service }))
            }
        }
    }
}

/// A request whose body is being read, to see whether it is small.
#[derive(Debug)]
pub struct Reading<S> {
    head: Parts,
    body: Begun,
    threads: Handle,
    service: S,
}

impl<S> Reading<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    fn answer(mut self, is_small: bool) -> Answer<S> {
        let request = Request::from_parts(self.head, self.body.into_body());
        match is_small {
            true => Answer::Here(Box::pin(self.service.call(request))),
            false => Answer::elsewhere(&self.threads, self.service, request),
        }
    }
}

/// A body of which the first frames have been read. Most have one.
#[derive(Debug)]
struct Begun {
    first: Option<FrameResult>,
    more: VecDeque<FrameResult>,
    rest: Option<Body>,
}

impl Begun {
    /// Reads on; whether it is small.
    fn poll_small(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while let Some(rest) = &mut self.rest {
            let Some(frame) = ready!(Pin::new(rest).poll_frame(context)) else {
                self.rest = None;
                break;
            };
            let failed = frame.is_err();
            match self.first {
                None => self.first = Some(frame),
                Some(_) => self.more.push_back(frame),
            }
            if failed || self.bytes() > SMALL_BYTES || self.more.len() >= FRAMES_AT_ONCE {
                return Poll::Ready(false);
            }
        }
        Poll::Ready(true)
    }

    fn bytes(&self) -> usize {
        let data = |frame: &FrameResult| frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.first.iter().chain(&self.more).map(data).sum()
    }

    /// The body as it would have been.
    fn into_body(mut self) -> Body {
        match self.first.take() {
            None => self.rest.unwrap_or_default(),
            Some(Ok(frame)) if self.rest.is_none() && self.more.is_empty() && frame.is_data() => {
                frame.into_data().map(Body::from).unwrap_or_default()
            }
            first => Body::new(Self { first, ..self }),
        }
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let read = self.first.take().or_else(|| self.more.pop_front());
        if read.is_some() {
            return Poll::Ready(read);
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.more.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
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
pub enum Answer<S: Service<Request>> {
    Here(Pin<Box<S::Future>>),
    Elsewhere(oneshot::Receiver<Relayed>, Option<AbortOnDrop>),
    /// Until it has been read as far as to know which.
    Reading(Box<Reading<S>>),
    /// Only on the way from `Reading` to one of the others.
    Begun,
}

impl<S> Answer<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    fn elsewhere(threads: &Handle, service: S, request: Request) -> Self {
        let (reply, answer) = oneshot::channel();
        // In a box: a task is aligned to cache lines, and to allocate a large one so takes the allocator long.
        let task = threads.spawn(Box::pin(carry_out(service, request, reply)));
        Self::Elsewhere(answer, Some(AbortOnDrop(task)))
    }
}

// What is polled is in a box.
impl<S: Service<Request>> Unpin for Answer<S> {}

impl<S> Future for Answer<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Here(answer) => return answer.as_mut().poll(context),
                Self::Elsewhere(answer, task) => {
                    return Poll::Ready(Ok(match ready!(answer.poll_unpin(context)) {
                        Ok(Relayed::Whole(response)) => response,
                        Ok(Relayed::Frames(head, frames)) => {
                            let task = task.take();
                            head.map(|()| Body::new(FramesOf { _task: task, ..frames }))
                        }
                        // The call has panicked, or its threads are gone.
                        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                    }));
                }
                Self::Reading(reading) => {
                    let is_small = ready!(reading.body.poll_small(context));
                    if let Self::Reading(reading) = std::mem::replace(&mut *self, Self::Begun) {
                        *self = reading.answer(is_small);
                    }
                }
                Self::Begun => return Poll::Pending,
            }
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

    fn place_of(request: &Request) -> Place {
        match request.uri().path() {
            "/here" => Place::Here,
            "/small" => Place::HereIfSmall,
            _ => Place::Elsewhere,
        }
    }

    fn sorted(router: Router, threads: &Runtime) -> Sorted<Router> {
        Elsewhere::new(threads.handle().clone(), place_of).layer(router)
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
    fn what_may_be_small_is_carried_out_by_its_size_and_loses_nothing() {
        let threads = threads();
        let echo = |body: String| async move { format!("{} {body}", thread()) };
        let mut service = sorted(Router::new().route("/small", axum::routing::post(echo)), &threads);
        let pieces = |count: usize, bytes: usize| {
            let texts = (0..count).map(move |at| char::from(b'a' + (at % 26) as u8).to_string().repeat(bytes));
            let pieces = stream::iter(texts.clone()).then(|text| async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(text)
            });
            (texts.collect::<String>(), Body::from_stream(pieces))
        };
        let whole = |bytes: usize| ("w".repeat(bytes), Body::from("w".repeat(bytes)));
        let here = thread();
        Builder::new_current_thread().build().expect("a runtime").block_on(async {
            for ((text, body), expected) in [
                (whole(0), &*here),
                (whole(SMALL_BYTES), &*here),
                (whole(SMALL_BYTES + 1), "elsewhere"),
                (pieces(1, 10), &*here),
                (pieces(4, SMALL_BYTES / 4), &*here),
                (pieces(5, SMALL_BYTES / 4), "elsewhere"),
                (pieces(40, 1), "elsewhere"),
            ] {
                let request = axum::http::Request::post("/small").body(body).expect("a request");
                let Ok(response) = service.call(request).await;
                assert_eq!(self::text(response).await, format!("{expected} {text}"), "{} bytes", text.len());
            }
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
