//! JSON that is none, or too much of it, or of something else; and paths that are no paths.

use hyper::Method;
use serde_json::json;

use super::Witness;
use crate::support::{api::refused_http, http::Http};

const WEB_1: &str = "/v1/namespaces/default/services/web/instances/web-1";
/// An error quotes what it is about, and not a mebibyte of it.
const LONGEST_ERROR: usize = 4_096;

fn with(field: &str, value: &str) -> String {
    format!(r#"{{"address": "10.0.0.1", "ports": [{{"name": "http", "port": 80}}], "{field}": {value}}}"#)
}

/// A refusal of the table, of a bounded length.
async fn refused(http: Http, method: Method, path: &str, body: impl Into<hyper::body::Bytes>, status: u16) -> String {
    let body = body.into();
    let start = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
    let answer = http.call(method, path, body).await;
    assert_eq!(answer.status, status, "{path} {start}: {:.300}", answer.text);
    assert!(answer.text.len() < LONGEST_ERROR, "{path} {start}: an error of {} bytes", answer.text.len());
    refused_http(&answer).expect_err("an error").problem.code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_registration_is_refused() {
    let mut witness = Witness::start().await;
    let deep = |open: &str, close: &str, depth| [open.repeat(depth), "1".into(), close.repeat(depth)].concat();
    let bodies = [
        "".into(),
        " ".into(),
        "[]".into(),
        "null".into(),
        "7".into(),
        "{".into(),
        "{}{}".into(),
        "{\"address\": \"10.0.0.1\"".into(),
        "\0\0\0".into(),
        "{\"ports\": {}}".into(),
        with("weight", "-1"),
        with("weight", "1.5"),
        with("weight", "\"100\""),
        with("weight", "4294967296"),
        with("weight", "1e400"),
        with("weight", "1e2"),
        with("incarnation", "-1"),
        with("incarnation", "18446744073709551616"),
        with("incarnation", "1.0"),
        with("ready", "1"),
        with("ttl", "30"),
        with("ttl", "\"-1s\""),
        with("ttl", "\"1e9s\""),
        with("ttl", "\"99999999999999999999h\""),
        with("ttl", "\"0.0000000001s\""),
        with("lease", "7"),
        with("labels", "[]"),
        with("labels", "{\"a\": 1}"),
        with("labels", "{\"a\": null}"),
        with("sla", "{\"throughput_rps\": -1}"),
        with("sla", "{\"throughput_rps\": 1e999}"),
        with("sla", "{\"latency_p99\": \"-5ms\"}"),
        with("capabilities", "[[]]"),
        with("locality", "{\"region\": {}}"),
        with("wieght", "1"),
        with("labels", &deep("{\"a\":", "}", 20_000)),
        with("labels", &deep("[", "]", 200_000)),
        deep("[", "]", 400_000),
        with(&"x".repeat(900_000), "1"),
        with("id", &format!("\"{}\"", "x".repeat(900_000))),
        with("address", &format!("\"{}\"", "x".repeat(900_000))),
        with("ttl", &format!("\"{}\"", "9".repeat(900_000))),
        with("labels", &json!({"x".repeat(900_000): ""}).to_string()),
        with("labels", &format!("{{{}}}", labels(50_000))),
        with("capabilities", &json!(vec![json!({"name": "c"}); 50_000]).to_string()),
        format!(r#"{{"address": "10.0.0.1", "ports": {}}}"#, json!(vec![json!({"name": "p", "port": 1}); 20_000])),
    ];
    for body in bodies {
        assert_eq!(refused(witness.api().http, Method::PUT, WEB_1, body, 400).await, "invalid_argument");
    }
    let mut not_utf8 = with("id", "\"web-1\"").into_bytes();
    let position = not_utf8.len() - 4;
    not_utf8[position] = 0xff;
    refused(witness.api().http, Method::PUT, WEB_1, not_utf8, 400).await;
    assert_eq!(witness.api().http.get(WEB_1).await.status, 404, "an error changes nothing");
    witness.check("JSON that is no registration").await;
}

fn labels(count: usize) -> String {
    (0..count).map(|number| format!("\"l{number}\":\"\"")).collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_labels_are_too_large() {
    let mut witness = Witness::start().await;
    let million = with("labels", &format!("{{{}}}", labels(1_000_000)));
    assert!(million.len() > 10_000_000);
    for (method, path) in [
        (Method::PUT, WEB_1),
        (Method::PUT, "/v1/namespaces/default/services/web"),
        (Method::POST, "/v1/registrations"),
        (Method::POST, "/v1/heartbeats"),
    ] {
        let answer = witness.api().http.call_large(method, path, million.clone()).await;
        assert_eq!(answer.status, 413, "{answer:?}");
        assert_eq!(refused_http(&answer).expect_err("an error").problem.code, "too_large");
    }
    witness.check("a million labels").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_calls_refuse_what_is_not_theirs() {
    let mut witness = Witness::start().await;
    let lease = "/v1/leases/0123456789abcdef0123456789abcdef/heartbeat";
    for (path, body) in [
        ("/v1/heartbeats", json!({"leases": [{}]})),
        ("/v1/heartbeats", json!({"leases": [{"lease": "x".repeat(1_000_000)}]})),
        ("/v1/heartbeats", json!({"leases": [{"lease": null}]})),
        (lease, json!({"load": {"cpu": "high"}})),
        (lease, json!({"load": {"cpu": -1}})),
        (lease, json!({"load": {"metrics": {"x".repeat(64): 1}}})),
        (lease, json!({"load": {"metrics": {"x".repeat(900_000): 1}}})),
        (lease, json!({"laod": {}})),
        ("/v1/query", json!({"filter": "(".repeat(1024)})),
        ("/v1/query", json!({"filter": "!".repeat(1024)})),
        ("/v1/query", json!({"filter": "x".repeat(900_000)})),
        ("/v1/query", json!({"text": "word ".repeat(100_000)})),
        ("/v1/query", json!({"page_token": "x".repeat(900_000)})),
        ("/v1/query", json!({"page_size": -1})),
        ("/v1/query", json!({"order_by": "size"})),
        ("/v1/query", json!({"fields": vec!["x"; 100_000]})),
        ("/v1/query", json!({"near": {"region": "x".repeat(900_000)}, "order_by": "nearest"})),
        ("/v1/registrations", json!({"instances": {}})),
        ("/v1/registrations", json!({"instances": [1]})),
        ("/v1/registrations", json!({"instances": []})),
        ("/v1/namespaces/default/services/witness/instances/witness-1/drain", json!({"drain_time": "soon"})),
        ("/v1/namespaces/default/services/witness/instances/witness-1/drain", json!({"incarnation": -1})),
    ] {
        let code = refused(witness.api().http, Method::POST, path, body.to_string(), 400).await;
        assert_eq!(code, "invalid_argument", "{path}");
    }
    witness.check("other calls' bodies").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_paths_are_names_and_nothing_else() {
    let mut witness = Witness::start().await;
    let id = |id: &str| format!("/v1/namespaces/default/services/witness/instances/{id}");
    let long = "x".repeat(20_000);
    for path in [
        id("a%2Fb"),
        id("%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
        id("..%2f..%2fconvoy-data"),
        id("a%00b"),
        id("%ff%fe"),
        id("a%20b"),
        id("%F0%9F%92%A5"),
        id(&long),
        "/v1/namespaces/%2e%2e/services/witness".into(),
        "/v1/namespaces/%ff/services/witness".into(),
        format!("/v1/namespaces/default/services/{long}"),
        "/v1/namespaces/default/services/WITNESS".into(),
        "/v1/leases/%ff/heartbeat".into(),
        format!("/v1/leases/{long}/heartbeat"),
        "/v1/watch?namespace=%ff".into(),
        format!("/v1/watch?service={long}"),
        format!("/v1/services?{long}=1"),
    ] {
        let method = if path.ends_with("heartbeat") { Method::POST } else { Method::GET };
        let code = refused(witness.api().http, method, &path, "", 400).await;
        assert_eq!(code, "invalid_argument", "{path:.100}");
    }
    for query in ["incarnation=-1", "incarnation=18446744073709551616", "incarnation=x", "incarnatoin=1"] {
        let path = format!("{}?{query}", id("witness-1"));
        assert_eq!(refused(witness.api().http, Method::DELETE, &path, "", 400).await, "invalid_argument");
    }
    // A path that leads elsewhere leads nowhere.
    for path in ["/v1/../v1/services", "/v1/namespaces/default/services/witness/instances/../..", "//v1/services"] {
        assert_eq!(witness.api().http.get(path).await.status, 404, "{path}");
    }
    witness.check("names that are none").await;
}
