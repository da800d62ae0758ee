//! HTTP/1.1, one connection a request, so that a test sees exactly what is on the wire.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::within;

#[derive(Clone, Copy, Debug)]
pub struct Http(pub SocketAddr);

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub text: String,
    /// Of the header `convoy-stale-seconds`.
    pub stale: Option<String>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of a call that was carried out.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

impl Http {
    pub async fn get(self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    pub async fn put(self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body.to_string()).await
    }

    pub async fn post(self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub async fn delete(self, path: &str) -> Answer {
        self.call(Method::DELETE, path, "").await
    }

    pub async fn call(self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(path).header("host", "convoy");
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::new(body.into())).expect("a valid request");
        within(&what, async {
            let response = self.send(request).await;
            let status = response.status().as_u16();
            let content_type = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let stale = response.headers().get("convoy-stale-seconds");
            let stale = stale.and_then(|seconds| seconds.to_str().ok()).map(str::to_owned);
            let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
            Answer { status, content_type, text: String::from_utf8_lossy(&body).into_owned(), stale }
        })
        .await
    }

    /// The answer to a body that the server may refuse before it has all been said: what is left of it is not.
    pub async fn call_large(self, method: Method, path: &str, body: String) -> Answer {
        let stream = TcpStream::connect(self.0).await.expect("a connection");
        let (mut reader, mut writer) = stream.into_split();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: convoy\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // It holds its half of the connection: one that closes it does not wait for an answer.
        let _writing = tokio::spawn(async move {
            // The end of the connection is what is tested.
            let _ = writer.write_all(head.as_bytes()).await;
            let _ = writer.write_all(body.as_bytes()).await;
            writer
        });
        let mut heard = Vec::new();
        // A reset after the answer is an end as well.
        let _ = within(path, reader.read_to_end(&mut heard)).await;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        let (head, text) = heard.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {heard:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        Answer { status, content_type: kind.to_owned(), text: text.to_owned(), stale: None }
    }

    /// The answer's head; its body is still to come.
    pub async fn send(self, request: Request<Full<Bytes>>) -> hyper::Response<Incoming> {
        let stream = TcpStream::connect(self.0).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("an HTTP connection");
        // It ends with its request and its answer.
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }
}
