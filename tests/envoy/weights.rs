//! Load becomes weight: requests follow what agents say of their load, by the documented function, and back; and what Envoy
//! itself reports of the requests (LRS) is shown.

use std::{net::SocketAddr, time::Duration};

use convoy_client::{
    Load, Protocol,
    proto::{ListInstancesRequest, LoadPolicy, PutServiceRequest},
};
use hyper::Method;
use serde_json::Value;

use crate::{
    agents::Member,
    convoy::Convoy,
    envoy::{DELTA, Envoy},
    load::{Load as Requests, Plan},
    wait::{PATIENCE, until},
};

const REQUESTS: usize = 2_000;
/// Heartbeats come every second then.
const TTL: Duration = Duration::from_secs(3);
/// Envoy reports every 10 s.
const REPORT_PATIENCE: Duration = Duration::from_secs(40);

async fn effective(convoy: &Convoy) -> Vec<u32> {
    let request = ListInstancesRequest { service: "reviews".into(), ..Default::default() };
    let answer = convoy.client().list_instances(request).await.expect("instances");
    answer.instances.iter().map(|instance| instance.effective_weight).collect()
}

/// Waits until the weights are so for Convoy and for Envoy.
async fn weighs(
    convoy: &Convoy,
    envoy: &Envoy,
    addresses: [SocketAddr; 2],
    what: &str,
    wanted: impl Fn(u32) -> bool,
) -> u32 {
    let weight = until(what, PATIENCE * 3, async || match effective(convoy).await[..] {
        [one, 100] if wanted(one) => Ok(one),
        ref other => Err(format!("{other:?}")),
    })
    .await;
    envoy
        .sees("reviews", what, |hosts| {
            let weight_of = |address| hosts.get(&address).map_or(0, |host| host.weight);
            addresses.map(weight_of) == [u64::from(weight), 100]
        })
        .await;
    weight
}

/// The part of the requests that the first of the two answers.
async fn part(envoy: &Envoy) -> f64 {
    let plan = Plan { host: "reviews", connections: 4, every: Duration::from_millis(1) };
    let requests = Requests::start(envoy.outbound, plan);
    requests.reaches(REQUESTS).await;
    let report = requests.stop();
    report.has_no_failure("requests by weight");
    let counts = report.by_agent();
    let one = counts.get("r-1").copied().unwrap_or_default() as f64;
    one / counts.values().sum::<usize>() as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_follow_the_load_that_agents_report_and_envoys_reports_are_shown() {
    let convoy = Convoy::start().await;
    let one = Member::join(&convoy, "reviews", "r-1", Protocol::Http, TTL).await;
    let two = Member::join(&convoy, "reviews", "r-2", Protocol::Http, TTL).await;
    let interval = Some(convoy_client::duration(Duration::from_secs(1)));
    let load = Some(LoadPolicy { interval, ..LoadPolicy::default() });
    let request = PutServiceRequest { service: "reviews".into(), load, ..Default::default() };
    convoy.client().put_service(request).await.expect("put");
    let envoy = Envoy::start(&convoy, DELTA).await;
    let addresses = [one.backend.address, two.backend.address];
    let says = |member: &Member, cpu| member.agent.report(Load { cpu: Some(cpu), ..Load::default() });

    says(&one, 0.9);
    says(&two, 0.3);
    // ((0.3 + 0.25) / (0.9 + 0.25))² is 23 %, and a step of a twentieth is not left for less than one and a half.
    let weight =
        weighs(&convoy, &envoy, addresses, "the loaded one has less", |weight| (21..=25).contains(&weight)).await;
    let (is, expected) = (part(&envoy).await, f64::from(weight) / f64::from(weight + 100));
    println!("a weight of {weight} and one of 100: {is:.3} of {REQUESTS} requests, {expected:.3} expected");
    assert!((is - expected).abs() < 0.03, "{is} of the requests, {expected} expected");

    // Envoy's own word on such requests.
    let plan = Plan { host: "reviews", connections: 4, every: Duration::from_millis(5) };
    let requests = Requests::start(envoy.outbound, plan);
    let path = "/v1/namespaces/default/services/reviews/load";
    let told = until("Envoy's load reports are shown", REPORT_PATIENCE, async || {
        let told = convoy.call(Method::GET, path, &Value::Null).await;
        let rps = |index: usize| told["instances"][index]["load"]["rps"].as_f64().unwrap_or_default();
        if told["proxies"] == 1 && rps(0) > 0.0 && rps(1) > rps(0) { Ok(told) } else { Err(told.to_string()) }
    })
    .await;
    let rps = |index: usize| told["instances"][index]["load"]["rps"].as_f64().unwrap_or_default();
    let reported = rps(0) / (rps(0) + rps(1));
    assert!((reported - expected).abs() < 0.05, "{reported} of the requests as Envoy has it: {told}");
    requests.stop().has_no_failure("requests while Envoy reports");
    let table = convoy.run(&["get", "load", "reviews"]).await;
    assert!(table.contains("reviews/r-1"), "{table}");

    says(&one, 0.3);
    says(&two, 0.3);
    weighs(&convoy, &envoy, addresses, "it recovers", |weight| weight == 100).await;
    let is = part(&envoy).await;
    assert!((is - 0.5).abs() < 0.03, "{is} of the requests");
    envoy.has_rejected_nothing().await;
}
