//! Shells that make one probe each, over a connection of its own that is closed afterwards. They follow nothing: whatever
//! comes back from the address that was asked is the answer. What is read of it is bounded, and all of it takes at most
//! the check's timeout.

mod grpc;
mod http;
mod tls;

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::schedule::{Finding, Target};
use crate::model::{Probe, Tls, limits::quoted};

/// What is kept of what a probe says.
const MAX_OUTPUT_BYTES: usize = 200;

/// A probe's result, and its words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub finding: Finding,
    pub output: String,
}

impl Found {
    fn new(finding: Finding, output: impl fmt::Display) -> Self {
        // What an instance says stands in logs and on terminals.
        let text: String = output.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { finding, output: quoted(&text, MAX_OUTPUT_BYTES) }
    }

    pub(super) fn bad(output: impl fmt::Display) -> Self {
        Self::new(Finding::Bad, output)
    }
}

/// A connection, with or without TLS.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Makes one probe.
pub async fn probe(target: &Target) -> Found {
    let limit = target.check.timeout;
    let probing = async {
        match &target.check.probe {
            Probe::Http(probe) => http::probe(probe, target.address, target.http2).await,
            Probe::Tcp { tls } => {
                connect(target.address, tls.as_ref(), None, &[]).await.map(|_| Found::new(Finding::Good, "connected"))
            }
            Probe::Grpc { service, authority, tls } => {
                grpc::probe(service, authority.as_deref(), tls.as_ref(), target.address).await
            }
        }
    };
    match timeout(limit, probing).await {
        Ok(found) => found.unwrap_or_else(Found::bad),
        Err(_) => Found::bad(format!("no answer within {}", convoy_client::json::format_duration(limit))),
    }
}

/// Connects, with a handshake if there is to be one. `host` is whom the instance has to be if the check does not say.
async fn connect(
    address: SocketAddr,
    tls: Option<&Tls>,
    host: Option<&str>,
    alpn: &[&str],
) -> Result<Box<dyn Connection>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
    // Nothing is owed to the other side when the answer is there: without this, each probe would leave a port in TIME_WAIT.
    stream.set_zero_linger().and_then(|()| stream.set_nodelay(true)).map_err(|error| error.to_string())?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => Ok(Box::new(tls::handshake(stream, tls, host, alpn).await?)),
    }
}
