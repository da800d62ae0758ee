//! The gRPC health probe: `grpc.health.v1.Health/Check`, as one HTTP/2 request.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, client::conn, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{
    Found, connect,
    http::{beside, causes},
};
use crate::{checks::schedule::Finding, model::Tls};

/// The answer is a few bytes.
const MAX_ANSWER_BYTES: usize = 4096;
/// One byte for compression, four for the length.
const PREFIX_BYTES: usize = 5;

pub(super) async fn probe(
    service: &str,
    authority: Option<&str>,
    tls: Option<&Tls>,
    address: SocketAddr,
) -> Result<Found, String> {
    let stream = TokioIo::new(connect(address, tls, authority, &["h2"]).await?);
    let failed = |error: hyper::Error| format!("no answer: {}", causes(&error));
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(failed)?;
    let authority = authority.map_or_else(|| address.to_string(), str::to_owned);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("convoy/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(framed(&HealthCheckRequest { service: service.into() })))
        .map_err(|error| error.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != 200 {
            return Err(format!("HTTP {}", response.status()));
        }
        let head = response.headers().clone();
        let (mut body, mut trailers, mut data) = (response.into_body(), HeaderMap::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(failed)?;
            match frame.into_data() {
                Ok(part) if data.len() + part.len() > MAX_ANSWER_BYTES => return Err("its answer is too long".into()),
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        judge(&head, &trailers, &data)
    };
    beside(asking, connection).await
}

fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    framed.extend_from_slice(&message.encode_to_vec());
    framed.freeze()
}

/// An answer without a message has its status in its head.
fn judge(head: &HeaderMap, trailers: &HeaderMap, data: &[u8]) -> Result<Found, String> {
    let said = |name: &str| {
        let value = trailers.get(name).or_else(|| head.get(name));
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let status = said("grpc-status").ok_or("its answer is not gRPC's")?;
    if status != "0" {
        let code = status.parse().map_or_else(|_| status.clone(), |code| format!("{:?}", tonic::Code::from_i32(code)));
        return Err(format!("gRPC {code}: {}", said("grpc-message").unwrap_or_default()));
    }
    let message = data.get(PREFIX_BYTES..).filter(|_| data.first() == Some(&0)).ok_or("its answer has no message")?;
    let answer = HealthCheckResponse::decode(message).map_err(|error| format!("its answer cannot be read: {error}"))?;
    match answer.status() {
        ServingStatus::Serving => Ok(Found::new(Finding::Good, "SERVING")),
        status => Err(status.as_str_name().into()),
    }
}
