//! Every host name of a service leads to it, over the protocol of its port.

use std::time::Duration;

use convoy_client::{Agent, Protocol};

use crate::{
    agents::Backend,
    convoy::Convoy,
    envoy::{DELTA, Envoy, SOTW},
    http::Connection,
    machine::{self, free_address},
    wait::{PATIENCE, until},
};

/// Seen from the namespace `default`: a host name, who answers, over what.
const FROM_DEFAULT: [(&str, &str, &str); 16] = [
    ("reviews", "web", "HTTP/1.1"),
    ("reviews:1234", "web", "HTTP/1.1"),
    ("reviews.default", "web", "HTTP/1.1"),
    ("reviews.default:80", "web", "HTTP/1.1"),
    ("web.reviews.default", "web", "HTTP/1.1"),
    ("admin.reviews.default", "admin", "HTTP/1.1"),
    ("admin.reviews.default:80", "admin", "HTTP/1.1"),
    ("reviews:9090", "admin", "HTTP/1.1"),
    ("reviews.default:9090", "admin", "HTTP/1.1"),
    ("two.reviews.default", "two", "HTTP/2.0"),
    ("reviews:9091", "two", "HTTP/2.0"),
    ("rpc.reviews.default", "rpc", "HTTP/2.0"),
    ("reviews.default:9092", "rpc", "HTTP/2.0"),
    ("ratings.shop", "ratings", "HTTP/1.1"),
    ("ratings.shop:80", "ratings", "HTTP/1.1"),
    ("http.ratings.shop", "ratings", "HTTP/1.1"),
];

/// Seen from the namespace `shop`.
const FROM_SHOP: [(&str, &str, &str); 4] = [
    ("ratings", "ratings", "HTTP/1.1"),
    ("ratings.shop:1", "ratings", "HTTP/1.1"),
    ("reviews.default", "web", "HTTP/1.1"),
    ("reviews.default:9090", "admin", "HTTP/1.1"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_name_leads_to_its_port_state_of_the_world() {
    every_host_name_leads_to_its_port(SOTW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_name_leads_to_its_port_incremental() {
    every_host_name_leads_to_its_port(DELTA).await;
}

async fn every_host_name_leads_to_its_port(dialect: &str) {
    let _turn = machine::share().await;
    let convoy = Convoy::start().await;
    let ports = [
        ("web", 8080, Protocol::Http),
        ("admin", 9090, Protocol::Http),
        ("two", 9091, Protocol::Http2),
        ("rpc", 9092, Protocol::Grpc),
    ];
    convoy.put_service("default", "reviews", &ports).await;
    let backends = ports.map(|(name, _, protocol)| (Backend::start(name), protocol));
    let mut agent = Agent::builder(convoy.server(), "reviews").address("127.0.0.1");
    for (backend, protocol) in &backends {
        agent = agent.port(&backend.id, backend.address.port(), *protocol);
    }
    let _reviews = agent.start().await.expect("registered");
    let ratings = Backend::start("ratings");
    let agent = Agent::builder(convoy.server(), "ratings").namespace("shop").address("127.0.0.1");
    let _ratings = agent.port("http", ratings.address.port(), Protocol::Http).start().await.expect("registered");

    for (namespace, service) in [("default", "reviews"), ("shop", "ratings")] {
        convoy.run(&["--namespace", namespace, "service", "put", service, "--export-to", "*"]).await;
    }

    let envoy = Envoy::start(&convoy, dialect).await;
    leads(&envoy, &FROM_DEFAULT, &["ratings", "reviews.shop", "nobody.reviews.default", "nobody"]).await;
    let in_shop = Envoy::launch(&convoy, &[dialect, "--namespace", "shop"], free_address()).await;
    leads(&in_shop, &FROM_SHOP, &["reviews", "reviews:9090", "ratings.default"]).await;
    envoy.has_rejected_nothing().await;
}

async fn leads(envoy: &Envoy, expected: &[(&str, &str, &str)], nowhere: &[&str]) {
    envoy.serves().await;
    let mut connection = Connection::new(envoy.outbound);
    for (host, agent, protocol) in expected {
        until(&format!("{host} leads to {agent} over {protocol}"), PATIENCE, async || {
            let answer = connection.get(host, "/").await?;
            let is = (answer.body.as_str(), answer.header("x-protocol")) == (*agent, *protocol);
            if is { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    for host in nowhere {
        let answer = connection.get(host, "/").await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, ""), "{host}");
    }
    // A second look: what led somewhere while the routes were new still does.
    let looks = expected.iter().map(|(host, agent, _)| (*host, *agent));
    for (host, agent) in looks {
        let answer = tokio::time::timeout(Duration::from_secs(5), connection.get(host, "/")).await;
        assert_eq!(answer.expect("in time").expect("an answer").body, agent, "{host}");
    }
}
