//! Each kind of probe against a real server of its own.

use std::{sync::Arc, time::Duration};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::{Check, CheckKind, HttpProbe, Incarnation, Statuses, Threshold, TlsTrust, parse};

fn target(address: SocketAddr, probe: Probe) -> Target {
    let check = Check {
        name: "probe".into(),
        kind: CheckKind::Readiness,
        port: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        jitter_percent: 0,
        healthy: Threshold::in_a_row(1),
        unhealthy: Threshold::in_a_row(1),
        grace: Duration::ZERO,
        deregister_after: None,
        probe,
    };
    let instance = parse::instance_key("", "web", "web-1").expect("a key");
    Target { instance, incarnation: Incarnation(1), check: Arc::new(check), address, http2: false }
}

fn http() -> HttpProbe {
    HttpProbe {
        method: "GET".into(),
        path: "/healthz?deep=1".into(),
        host: None,
        headers: Vec::new(),
        statuses: vec![Statuses::SUCCESS],
        degraded_statuses: Vec::new(),
        body_contains: None,
        tls: None,
    }
}

/// Says the same to everybody, and gives what it was asked.
async fn saying(answer: impl Into<String>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, answer) = (listener.local_addr().expect("an address"), answer.into());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(answer.as_bytes()).await.expect("written");
        String::from_utf8(asked).expect("text")
    });
    (address, asked)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_answer_is_judged_by_status_and_body() {
    let statuses = |first, last| vec![Statuses { first, last }];
    let body = |text: &str| Some(text.to_owned());
    let far = format!("{}needle", "x".repeat(60_000));
    let too_far = format!("{}needle", "x".repeat(70_000));
    let table = [
        (http(), answer("200 OK", ""), Finding::Good, "200 OK"),
        (http(), answer("503 Service Unavailable", ""), Finding::Bad, "503 Service Unavailable"),
        (http(), answer("404 Not Found", ""), Finding::Bad, "404 Not Found"),
        (HttpProbe { statuses: statuses(404, 404), ..http() }, answer("404 No", ""), Finding::Good, "404 Not Found"),
        (HttpProbe { statuses: statuses(404, 404), ..http() }, answer("200 OK", ""), Finding::Bad, "200 OK"),
        (
            HttpProbe { degraded_statuses: statuses(429, 429), ..http() },
            answer("429 Busy", ""),
            Finding::Degraded,
            "429 Too Many Requests",
        ),
        (HttpProbe { body_contains: body("ready"), ..http() }, answer("200 OK", "is ready"), Finding::Good, "200 OK"),
        (
            HttpProbe { body_contains: body("ready"), ..http() },
            answer("200 OK", "not read"),
            Finding::Bad,
            "200 OK, but \"ready\" is not in its body",
        ),
        (HttpProbe { body_contains: body("needle"), ..http() }, answer("200 OK", &far), Finding::Good, "200 OK"),
        (
            HttpProbe { body_contains: body("needle"), ..http() },
            answer("200 OK", &too_far),
            Finding::Bad,
            "200 OK, but \"needle\" is not in its body",
        ),
        (http(), "what?\r\n\r\n".into(), Finding::Bad, "no answer: invalid HTTP version parsed"),
    ];
    for (http, answer, finding, output) in table {
        let (address, _) = saying(answer).await;
        let found = probe(&target(address, Probe::Http(http.clone()))).await;
        assert_eq!(found, Found { finding, output: output.into() }, "{http:?}");
    }
}

#[tokio::test]
async fn the_request_is_as_the_check_says() {
    let (address, asked) = saying(answer("200 OK", "")).await;
    probe(&target(address, Probe::Http(http()))).await;
    let plain = asked.await.expect("a request").to_ascii_lowercase();
    assert!(plain.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{plain}");
    assert!(plain.contains(&format!("host: {address}\r\n")) && plain.contains("connection: close"), "{plain}");

    let (address, asked) = saying(answer("200 OK", "")).await;
    let headers = vec![("x-key".into(), "secret".into()), ("user-agent".into(), "me".into())];
    let said = HttpProbe { method: "POST".into(), host: Some("a.example".into()), headers, ..http() };
    probe(&target(address, Probe::Http(said))).await;
    let asked = asked.await.expect("a request").to_ascii_lowercase();
    for part in ["post /healthz", "host: a.example\r\n", "x-key: secret\r\n", "user-agent: me\r\n"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let elsewhere = listener.local_addr().expect("an address");
    for target_url in [format!("http://{elsewhere}/"), "/elsewhere".into()] {
        let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {target_url}\r\ncontent-length: 0\r\n\r\n");
        let (address, _) = saying(redirect).await;
        let found = probe(&target(address, Probe::Http(http()))).await;
        assert_eq!(found, Found::bad("302 Found"));
    }
    // Whoever was sent there would have connected by now.
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("it was followed"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn silence_is_a_failure_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    for kind in [Probe::Http(http()), Probe::Grpc { service: String::new(), authority: None, tls: None }] {
        let mut silent = target(address, kind);
        Arc::make_mut(&mut silent.check).timeout = Duration::from_millis(50);
        assert_eq!(probe(&silent).await, Found::bad("no answer within 50ms"));
    }
    assert_eq!(probe(&target(address, Probe::Tcp { tls: None })).await.finding, Finding::Good);
    drop(listener);
    let refused = probe(&target(address, Probe::Tcp { tls: None })).await;
    assert!(refused.finding == Finding::Bad && refused.output.contains("refused"), "{refused:?}");
}

#[tokio::test]
async fn tls_believes_whom_the_check_says() {
    let certified = rcgen::generate_simple_self_signed(vec!["a.example".into()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(vec!["a.example".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not believe it breaks off.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer("200 OK", "").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let authority = |certificate: &rcgen::Certificate| TlsTrust::Authorities(certificate.pem().into());
    let named = |name: &str| Some(name.to_owned());
    for (trust, server_name, host, good) in [
        (TlsTrust::Anybody, None, None, true),
        (authority(&certified.cert), named("a.example"), None, true),
        (authority(&certified.cert), None, named("a.example:443"), true),
        (authority(&certified.cert), named("b.example"), None, false),
        (authority(&certified.cert), None, None, false),
        (authority(&other.cert), named("a.example"), None, false),
    ] {
        let tls = Some(Tls { trust, server_name });
        let found = probe(&target(address, Probe::Http(HttpProbe { host, tls: tls.clone(), ..http() }))).await;
        assert_eq!(found.finding == Finding::Good, good, "{tls:?}: {found:?}");
        assert!(good || found.output.starts_with("TLS: "), "{found:?}");
    }
    let without = probe(&target(address, Probe::Http(http()))).await;
    assert_eq!(without.finding, Finding::Bad, "{without:?}");
}

#[tokio::test]
async fn grpc_health_is_asked() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("well", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("unwell", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    for (service, finding, output) in [
        ("", Finding::Good, "SERVING"),
        ("well", Finding::Good, "SERVING"),
        ("unwell", Finding::Bad, "NOT_SERVING"),
        ("unknown", Finding::Bad, "gRPC NotFound"),
    ] {
        let found = probe(&target(address, Probe::Grpc { service: service.into(), authority: None, tls: None })).await;
        assert!(found.finding == finding && found.output.starts_with(output), "{service}: {found:?}");
    }
    // An HTTP probe of a port that speaks only HTTP/2.
    let http2 = Target { http2: true, ..target(address, Probe::Http(http())) };
    let found = probe(&http2).await;
    assert_ne!(found.output, "no answer", "{found:?}");
    assert!(found.output.starts_with(|c: char| c.is_ascii_digit()), "{found:?}");
}
