//! The HTTP probe: one request, one answer. A redirect is an answer like any other, and is never followed.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming, client::conn, header};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Found, connect};
use crate::{checks::schedule::Finding, model::HttpProbe};

/// What is looked at of the answer's body.
const MAX_BODY_BYTES: usize = 64 * 1024;

pub(super) async fn probe(probe: &HttpProbe, address: SocketAddr, http2: bool) -> Result<Found, String> {
    let alpn = if http2 { "h2" } else { "http/1.1" };
    let stream = TokioIo::new(connect(address, probe.tls.as_ref(), probe.host.as_deref(), &[alpn]).await?);
    let request = request(probe, address, http2)?;
    let failed = |error: hyper::Error| format!("no answer: {}", causes(&error));
    // The connection is polled beside the request, and ends with it.
    if http2 {
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(failed)?;
        let asking = async { judge(probe, sender.send_request(request).await.map_err(failed)?).await };
        return beside(asking, connection).await;
    }
    let (mut sender, connection) = conn::http1::handshake(stream).await.map_err(failed)?;
    let asking = async { judge(probe, sender.send_request(request).await.map_err(failed)?).await };
    beside(asking, connection).await
}

/// Drives a connection for as long as something is asked over it.
pub(super) async fn beside<T, E>(
    asking: impl Future<Output = T>,
    connection: impl Future<Output = Result<(), E>>,
) -> T {
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => return answer,
        // What it has brought is still to be read; if it failed, the one who asks is told so.
        _ = connection => {}
    }
    asking.await
}

fn request(probe: &HttpProbe, address: SocketAddr, http2: bool) -> Result<Request<Empty<Bytes>>, String> {
    let host = probe.host.clone().unwrap_or_else(|| address.to_string());
    let scheme = if probe.tls.is_some() { "https" } else { "http" };
    let uri = if http2 { format!("{scheme}://{host}{}", probe.path) } else { probe.path.clone() };
    let uri: Uri = uri.parse().map_err(|error| format!("{uri:?}: {error}"))?;
    let mut request = Request::builder().method(probe.method.as_str()).uri(uri);
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    if !probe.headers.iter().any(|(name, _)| name == "user-agent") {
        request = request.header(header::USER_AGENT, concat!("convoy/", env!("CARGO_PKG_VERSION")));
    }
    if !http2 {
        request = request.header(header::HOST, host).header(header::CONNECTION, "close");
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

async fn judge(probe: &HttpProbe, response: Response<Incoming>) -> Result<Found, String> {
    let status = response.status();
    let is_in = |statuses: &[crate::model::Statuses]| statuses.iter().any(|of| of.include(status.as_u16()));
    let finding = match () {
        () if is_in(&probe.degraded_statuses) => Finding::Degraded,
        () if is_in(&probe.statuses) => Finding::Good,
        () => return Ok(Found::bad(said(status))),
    };
    let Some(wanted) = &probe.body_contains else { return Ok(Found::new(finding, said(status))) };
    if contains(response.into_body(), wanted.as_bytes()).await? {
        return Ok(Found::new(finding, said(status)));
    }
    Ok(Found::bad(format!("{}, but {wanted:?} is not in its body", said(status))))
}

fn said(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// Reads until it is found, up to the limit.
async fn contains(mut body: Incoming, wanted: &[u8]) -> Result<bool, String> {
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer breaks off: {}", causes(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        // It may begin in what came before.
        let from = seen.len().saturating_sub(wanted.len());
        seen.extend_from_slice(&data[..data.len().min(MAX_BODY_BYTES - seen.len())]);
        if seen[from..].windows(wanted.len()).any(|window| window == wanted) {
            return Ok(true);
        }
        if seen.len() == MAX_BODY_BYTES {
            break;
        }
    }
    Ok(false)
}

/// An error with its causes.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
