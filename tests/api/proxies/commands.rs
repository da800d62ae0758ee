//! The commands that wait for proxies, and their exit codes.

use std::process::Output;

use super::{accept, proxy, with_services};
use crate::support::{server::Convoy, within};

async fn run(convoy: &Convoy, line: &str) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.env_clear().args(["--server", &convoy.addresses.grpc.to_string()]).args(line.split(' '));
    within(line, command.kill_on_drop(true).output()).await.expect("it runs")
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_drain_waits_for_the_barrier() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream = proxy(&convoy, "one", &["web", "shop"]).await;
    let (output, ()) = tokio::join!(run(&convoy, "drain web/web-1 --wait --timeout 30s"), accept(&mut stream));
    let (code, text) = said(&output);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(text.contains("\ncomplete: 1 of 1 proxies have accepted it"), "{text}");
    let (code, text) = said(&run(&convoy, "drain shop/shop-1 --wait --timeout 100ms").await);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("\nincomplete: 1 of 1 proxies") && text.contains("LAGGING"), "{text}");
    let (code, text) = said(&run(&convoy, "drain shop/shop-1 --wait --timeout 100ms -o json").await);
    assert_eq!(code, Some(3), "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).expect("a document");
    assert_eq!(answer["barrier"]["missing"][0]["reason"], "lagging");
}

#[tokio::test]
async fn a_drain_waits_until_it_is_over() {
    let convoy = with_services(&["web"]).await;
    let (code, text) = said(&run(&convoy, "drain web/web-1 --for 1s --wait-gone").await);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("web/web-1 is gone\n"), "{text}");
}

#[tokio::test]
async fn waiting_for_a_revision_ends_in_time() {
    let convoy = with_services(&["web"]).await;
    let mut stream = proxy(&convoy, "one", &["web"]).await;
    let (code, text) = said(&run(&convoy, "proxy wait").await);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with(": 1 of 1 proxies have it.\n"), "{text}");
    super::weigh(&convoy, "web", 2).await;
    let (code, text) = said(&run(&convoy, "proxy wait --timeout 100ms").await);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("one    endpoints  PENDING"), "{text}");
    accept(&mut stream).await;
    let (code, text) = said(&run(&convoy, "proxy status one").await);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("one    clusters   SYNCED"), "{text}");
    let (code, text) = said(&run(&convoy, "proxy config one endpoints --name web -o json").await);
    assert_eq!(code, Some(0), "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).expect("a document");
    assert_eq!(answer["resources"][0]["name"], "web");
}
