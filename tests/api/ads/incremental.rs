//! The incremental dialect.

use std::collections::HashMap;

use convoy_client::proto::{DrainRequest, Locality, Registration};
use envoy_types::pb::envoy::{
    config::{cluster::v3::Cluster, core::v3::HealthStatus, listener::v3::Listener, route::v3::RouteConfiguration},
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

use super::{weigh, with_admin_port, with_services};
use crate::support::{
    ads::{self, CLUSTER, ENDPOINT, Incremental, LISTENER, ROUTE, assignment, decode, endpoints, names},
    api::{Call, Face},
    sample::{call, instance, seconds},
    server::Convoy,
};

type Stream = ads::Stream<Incremental>;

fn versions(response: &DeltaDiscoveryResponse) -> HashMap<String, String> {
    response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}

#[tokio::test]
async fn a_wildcard_of_clusters_follows_the_services() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!((first.type_url.as_str(), names(&first.resources)), (CLUSTER.type_url(), vec!["web"]));
    let cluster: Cluster = decode(CLUSTER, first.resources[0].resource.as_ref().expect("a resource"));
    assert_eq!(cluster.name, "web");
    stream.ack(&first).await;
    convoy.api.register(call([with_admin_port("shop")])).await.expect("registered");
    let second = stream.next().await;
    assert_eq!(names(&second.resources), ["shop", "shop:admin"], "only what is new");
    stream.ack(&second).await;
    convoy.api.http.delete("/v1/namespaces/default/services/web/instances/web-1").await.ok();
    convoy.api.http.delete("/v1/namespaces/default/services/web").await.ok();
    let third = stream.next().await;
    assert_eq!((third.resources.len(), &*third.removed_resources), (0, &["web".to_owned()][..]));
    assert!(first.nonce != second.nonce && second.nonce != third.nonce);
}

#[tokio::test]
async fn rule_42_an_empty_wildcard_is_answered() {
    let convoy = Convoy::start().await;
    let mut stream: Stream = convoy.ads().await;
    let answer = stream.ask(Stream::subscribe(CLUSTER, &[])).await;
    assert_eq!((answer.resources.len(), answer.removed_resources.len()), (0, 0));
}

#[tokio::test]
async fn named_endpoints_are_the_instances_in_traffic_with_their_weights() {
    let convoy = Convoy::start().await;
    let place = |zone: &str| Some(Locality { region: "eu".into(), zone: zone.into(), ..Default::default() });
    let case = |number, weight, ready| Registration {
        weight,
        ready: Some(ready),
        locality: place(if number % 2 == 0 { "a" } else { "b" }),
        ..instance("web", number)
    };
    let said = [
        case(1, None, true),
        case(2, Some(1), true),
        case(3, Some(65_535), true),
        case(4, Some(0), true),
        case(5, Some(9), false),
        case(6, Some(7), true),
    ];
    convoy.api.register(call(said)).await.expect("registered");
    let mut stream: Stream = convoy.ads().await;
    let first = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
    let web = assignment(&first.resources[0]);
    let healthy = |last: u32, weight| (format!("10.0.0.{last}:8080"), weight, HealthStatus::Healthy);
    assert_eq!(endpoints(&web), [healthy(2, 1), healthy(6, 7), healthy(1, 100), healthy(3, 65_535)]);
    let localities: Vec<_> = web
        .endpoints
        .iter()
        .map(|group| (group.locality.as_ref().map(|of| of.zone.as_str()), group.load_balancing_weight))
        .map(|(zone, weight)| (zone, weight.map(|weight| weight.value)))
        .collect();
    assert_eq!(localities, [(Some("a"), Some(8)), (Some("b"), Some(65_635))], "a locality's is the sum");
    stream.ack(&first).await;

    let drain =
        DrainRequest { service: "web".into(), id: "web-6".into(), drain_time: seconds(60), ..Default::default() };
    convoy.api.ask(Face::Grpc, Call::Drain(drain)).await.expect("draining");
    let second = stream.next().await;
    let draining = ("10.0.0.6:8080".to_owned(), 7, HealthStatus::Draining);
    assert!(endpoints(&assignment(&second.resources[0])).contains(&draining));
    stream.ack(&second).await;
    for id in [1, 2, 3, 4, 5, 6] {
        convoy.api.http.delete(&format!("/v1/namespaces/default/services/web/instances/web-{id}")).await.ok();
    }
    // The last is an explicit empty assignment, never an absence.
    loop {
        let response = stream.next().await;
        assert_eq!(response.removed_resources.len(), 0);
        stream.ack(&response).await;
        if endpoints(&assignment(&response.resources[0])).is_empty() {
            break;
        }
    }
}

#[tokio::test]
async fn rule_40_an_unknown_name_is_reported_and_pushed_when_it_comes_to_be() {
    let convoy = with_services(&["web"]).await;
    for kind in [ENDPOINT, CLUSTER, LISTENER] {
        let mut stream: Stream = convoy.ads().await;
        let name = format!("late-{}", kind.as_str());
        let answer = stream.ask(Stream::subscribe(kind, &[&name, "web"])).await;
        assert_eq!((names(&answer.resources), &*answer.removed_resources), (vec!["web"], &[name.clone()][..]));
        stream.ack(&answer).await;
        convoy.api.register(call([instance(&name, 1)])).await.expect("registered");
        let pushed = stream.next().await;
        assert_eq!((pushed.type_url.as_str(), names(&pushed.resources)), (kind.type_url(), vec![name.as_str()]));
        stream.ack(&pushed).await;
    }
}

#[tokio::test]
async fn rule_18_and_37_and_39_an_ack_and_a_pure_unsubscription_get_no_reply_and_a_repeated_name_does() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream: Stream = convoy.ads().await;
    for kind in [CLUSTER, ENDPOINT, LISTENER] {
        let answer = stream.ask(Stream::subscribe(kind, &["web", "shop"])).await;
        stream.ack(&answer).await;
        stream.nothing_before("probe-of-the-ack").await;
        // An ACK said twice, and one with a nonce of nowhere.
        stream.ack(&answer).await;
        stream.ack(&DeltaDiscoveryResponse { nonce: "of-nowhere".into(), ..answer.clone() }).await;
        stream.nothing_before("probe-of-the-nonce").await;
        stream.say(Stream::change(kind, &[], &["shop", "never-named"])).await;
        stream.nothing_before("probe-of-the-unsubscription").await;
        for again in ["web", "shop"] {
            let answer = stream.ask(Stream::subscribe(kind, &[again])).await;
            assert_eq!(names(&answer.resources), [again], "what is asked for is answered, though it has not changed");
            stream.ack(&answer).await;
        }
    }
}

#[tokio::test]
async fn rule_9_a_change_that_changes_no_resource_sends_nothing() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut stream: Stream = convoy.ads().await;
    let answer = stream.ask(Stream::subscribe(ENDPOINT, &["web"])).await;
    stream.ack(&answer).await;
    // Labels are in no resource; another service is not subscribed.
    let labels = [("language".to_owned(), "rust".to_owned())].into();
    convoy.api.register(call([Registration { labels, ..instance("web", 1) }])).await.expect("changed");
    weigh(&convoy, "shop", 5).await;
    weigh(&convoy, "web", 6).await;
    let next = stream.next().await;
    assert_eq!(names(&next.resources), ["web"]);
    assert_eq!(endpoints(&assignment(&next.resources[0]))[0].1, 6, "the first thing to come is the weight");
}

#[tokio::test]
async fn rule_43_and_45_a_client_that_is_up_to_date_resumes_without_a_byte_of_resources() {
    let convoy = with_services(&["web", "shop"]).await;
    let mut held = HashMap::new();
    let wanted =
        [(CLUSTER, vec![]), (ENDPOINT, vec!["web", "shop"]), (LISTENER, vec![]), (ROUTE, vec!["convoy/outbound"])];
    let mut stream: Stream = convoy.ads().await;
    for (kind, of_kind) in &wanted {
        let answer = stream.ask(Stream::subscribe(*kind, of_kind)).await;
        assert_eq!(answer.type_url, kind.type_url());
        stream.ack(&answer).await;
        held.insert(*kind, versions(&answer));
    }
    drop(stream);
    let resume = |kind, of_kind: &[&str]| DeltaDiscoveryRequest {
        initial_resource_versions: held[&kind].clone(),
        ..Stream::subscribe(kind, of_kind)
    };
    let mut stream: Stream = convoy.ads().await;
    for (kind, of_kind) in &wanted {
        let answer = resume(*kind, of_kind);
        if of_kind.is_empty() {
            // A wildcard is answered, if only to say that nothing is new.
            let answer = stream.ask(answer).await;
            assert_eq!((answer.type_url.as_str(), answer.resources.len()), (kind.type_url(), 0), "{answer:?}");
            assert_eq!(answer.removed_resources.len(), 0);
            stream.ack(&answer).await;
        } else {
            stream.say(answer).await;
        }
    }
    stream.nothing_before("probe").await;
    // And it follows what happens next.
    weigh(&convoy, "web", 3).await;
    let next = stream.next().await;
    assert_eq!(names(&next.resources), ["web"]);
}

#[tokio::test]
async fn rule_43_a_client_that_comes_back_gets_what_differs() {
    let convoy = with_services(&["web", "shop", "gone"]).await;
    let mut stream: Stream = convoy.ads().await;
    let answer = stream.ask(Stream::subscribe(ENDPOINT, &["web", "shop", "gone"])).await;
    let held = versions(&answer);
    drop(stream);
    weigh(&convoy, "web", 3).await;
    convoy.api.http.delete("/v1/namespaces/default/services/gone/instances/gone-1").await.ok();
    convoy.api.http.delete("/v1/namespaces/default/services/gone").await.ok();
    let mut stream: Stream = convoy.ads().await;
    let request = Stream::subscribe(ENDPOINT, &["web", "shop", "gone"]);
    let answer = stream.ask(DeltaDiscoveryRequest { initial_resource_versions: held, ..request }).await;
    assert_eq!((names(&answer.resources), &*answer.removed_resources), (vec!["web"], &["gone".to_owned()][..]));
}

#[tokio::test]
async fn listeners_and_routes_lead_to_the_services() {
    let convoy = with_services(&["web"]).await;
    let mut stream: Stream = convoy.ads().await;
    let wildcard = stream.ask(Stream::subscribe(LISTENER, &[])).await;
    assert_eq!(names(&wildcard.resources), ["convoy/outbound"], "listeners for gRPC clients go by name only");
    stream.ack(&wildcard).await;
    for name in ["web", "web.default", "web:8080"] {
        let answer = stream.ask(Stream::subscribe(LISTENER, &[name])).await;
        let listener: Listener = decode(LISTENER, answer.resources[0].resource.as_ref().expect("a resource"));
        assert!(listener.name == name && listener.api_listener.is_some(), "{listener:?}");
        stream.ack(&answer).await;
    }
    let routes = stream.ask(Stream::subscribe(ROUTE, &["convoy/outbound"])).await;
    let routes: RouteConfiguration = decode(ROUTE, routes.resources[0].resource.as_ref().expect("a resource"));
    let domains: Vec<&String> = routes.virtual_hosts.iter().flat_map(|host| &host.domains).collect();
    for domain in ["web", "web:*", "web.default", "web.default:*"] {
        assert!(domains.iter().any(|of| *of == domain), "{domain} is not among {domains:?}");
    }
}
