//! What protobuf can say and JSON cannot: refused where it can be said.

use convoy_client::proto::{RegisterRequest, Registration, Sla};

use crate::support::{
    api::{Call, Face},
    sample::{call, instance, instances, seconds},
    server::Convoy,
};

fn with(change: impl FnOnce(&mut Registration)) -> Call {
    let mut registration = instance("web", 1);
    change(&mut registration);
    Call::Register(call([registration]))
}

#[tokio::test]
async fn numbers_that_are_none_and_durations_that_are_not_are_refused() {
    let convoy = Convoy::start().await;
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let sla = |sla| with(|r| r.sla = Some(sla));
    let ttl = |ttl| Call::Register(RegisterRequest { ttl, ..instances("web", 1..2) });
    for (call, field) in [
        (ttl(negative), "ttl"),
        (ttl(seconds(i64::MAX)), "ttl"),
        (with(|r| r.ports[0].protocol = 99), "instances[0].ports[0].protocol"),
        (sla(Sla { throughput_rps: Some(f64::NAN), ..Default::default() }), "instances[0].sla.throughput_rps"),
        (sla(Sla { cost_per_request: Some(f64::INFINITY), ..Default::default() }), "instances[0].sla.cost_per_request"),
        (sla(Sla { latency_p50: negative, ..Default::default() }), "instances[0].sla.latency_p50"),
    ] {
        let refused = convoy.api.ask(Face::Grpc, call).await.expect_err(field);
        assert_eq!((&*refused.problem.code, &*refused.problem.field), ("invalid_argument", field), "{refused:?}");
    }
}

/// JSON can tell durations up to 584 years: what it would tell otherwise than it was said is not taken.
#[tokio::test]
async fn a_latency_is_at_most_a_day() {
    let convoy = Convoy::start().await;
    for (said, accepted) in [(0, true), (86_400, true), (86_401, false), (i64::MAX, false)] {
        let answer = convoy
            .api
            .ask(Face::Grpc, with(|r| r.sla = Some(Sla { latency_p99: seconds(said), ..Default::default() })))
            .await;
        assert_eq!(answer.is_ok(), accepted, "{said}: {answer:?}");
        if let Err(refused) = answer {
            assert_eq!(refused.problem.field, "instances[0].sla.latency_p99");
        }
    }
}
