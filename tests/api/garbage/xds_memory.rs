//! xDS clients that cost memory: with names that come and go, with answers that they do not read, with streams that
//! they leave. What they have left behind must not add up.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::Witness;
use crate::support::{
    ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, LISTENER, StateOfTheWorld},
    until,
};

type Stream = ads::Stream<Incremental>;

const UNKNOWN: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";

fn long_names(round: usize, count: usize, bytes: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{round}-{number}-{}", "x".repeat(bytes))).collect()
}

/// Names come and go, as on demand, on a stream that holds the wildcard as well; altogether there are 160 MB of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_come_and_go_leave_nothing_behind() {
    let mut witness = Witness::start().await;
    for (kind, wildcard) in [(CLUSTER, true), (ENDPOINT, false)] {
        let mut stream = Stream::open(witness.child.addresses.xds, Incremental::AGGREGATED).await;
        if wildcard {
            let answer = stream.ask(Stream::subscribe(kind, &[])).await;
            stream.ack(&answer).await;
        }
        for round in 0..20 {
            let names = long_names(round, 1_000, 4_000);
            let subscribe =
                DeltaDiscoveryRequest { resource_names_subscribe: names.clone(), ..Stream::subscribe(kind, &[]) };
            stream.say(subscribe).await;
            // So much comes in several responses.
            let mut answered = 0;
            while answered < 1_000 {
                let answer = stream.next().await;
                answered += answer.removed_resources.len();
                stream.ack(&answer).await;
            }
            assert_eq!(answered, 1_000);
            let unsubscribe =
                DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..Stream::subscribe(kind, &[]) };
            if wildcard {
                // The wildcard may hold them: the client is told that it does not.
                stream.say(unsubscribe).await;
                let mut answered = 0;
                while answered < 1_000 {
                    let answer = stream.next().await;
                    answered += answer.removed_resources.len();
                    stream.ack(&answer).await;
                }
            } else {
                stream.say(unsubscribe).await;
            }
        }
        stream.nothing_before("probe").await;
        witness.check(&format!("names of {} that came and went", kind.as_str())).await;
    }
}

/// Answers that nobody reads wait on the client's side, and not in Convoy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_does_not_read_is_made_to_wait() {
    let mut witness = Witness::start().await;
    for (type_url, what) in [(UNKNOWN, "an unknown type"), (LISTENER.type_url(), "a known type")] {
        let stream = Stream::open(witness.child.addresses.xds, Incremental::AGGREGATED).await;
        let asking = async {
            for round in 0..250 {
                let names = long_names(round, 250, 4_000);
                let request = DeltaDiscoveryRequest {
                    resource_names_subscribe: names.clone(),
                    ..Stream::subscribe(LISTENER, &[])
                };
                stream.say(DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..request }).await;
                let gone =
                    DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..Stream::subscribe(LISTENER, &[]) };
                stream.say(DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..gone }).await;
            }
        };
        // It may be made to wait for ever; what matters is what that costs meanwhile.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), asking).await;
        witness.check(&format!("answers of {what} that nobody read")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_left_leave_nothing_behind() {
    let mut witness = Witness::start().await;
    for round in 0..10 {
        let channel = ads::connect(witness.child.addresses.xds).await;
        let mut left = Vec::new();
        for number in 0..50 {
            let stream: Stream = ads::Stream::open_on(channel.clone(), Incremental::AGGREGATED).await;
            let names = long_names(round * 50 + number, 20, 1_000);
            let request = Stream::subscribe([CLUSTER, ENDPOINT, LISTENER][number % 3], &[]);
            stream.say(DeltaDiscoveryRequest { resource_names_subscribe: names, ..request }).await;
            let whole: ads::Stream<StateOfTheWorld> =
                ads::Stream::open_on(channel.clone(), StateOfTheWorld::AGGREGATED).await;
            left.push((stream, whole));
        }
    }
    until("the streams' end", async || {
        let listed = witness.api().http.get("/v1/proxies").await.ok();
        (listed["proxies"].as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    witness.check("1 000 streams left").await;
}
