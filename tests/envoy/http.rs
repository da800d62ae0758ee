//! A plain HTTP/1.1 client: one connection, opened when needed, kept open.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::wait::{PATIENCE, until};

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

#[derive(Debug)]
pub struct Connection {
    server: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub fn new(server: SocketAddr) -> Self {
        Self { server, open: None }
    }

    /// `GET path`, at `host` whatever the server's address is. After an error the next request has a new connection.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, host, path, Bytes::new()).await
    }

    /// As [`get`](Self::get), with any method and a body.
    pub async fn send(
        &mut self,
        method: Method,
        host: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let request = Request::builder().method(method).uri(path).header("host", host);
        let request = request.body(Full::new(body.into())).expect("a valid request");
        let mut open = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await.map_err(|error| format!("cannot connect to {}: {error}", self.server))?,
        };
        let answer = async {
            // One that has just answered is ready in a moment.
            open.ready().await?;
            read(open.send_request(request).await?).await
        };
        let answer = answer.await.map_err(|error| format!("no answer: {error:?}"))?;
        self.open = Some(open);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what went wrong, the request says.
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn read(response: hyper::Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Asks until a host is answered as wanted, by the body.
pub async fn leads(connection: &mut Connection, host: &str, expected: &str) {
    until(&format!("{host} leads to {expected:?}"), PATIENCE, async || {
        let answer = connection.get(host, "/").await?;
        if answer.body == expected { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}
