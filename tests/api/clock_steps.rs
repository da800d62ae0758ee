//! The wall clock is for records and people: it may jump, and nobody leaves earlier or later for it.

use std::time::{Duration, Instant, SystemTime};

use convoy_client::proto::{LeaseOutcome, RegisterRequest};
use serde_json::json;

use crate::support::{
    child::{Child, Home},
    sample::{call, instance, instances, seconds},
    until,
    wall_clock::WallClock,
};

const HOUR: i64 = 60 * 60;
/// Of those that nobody renews.
const TTL: Duration = Duration::from_secs(2);
/// A busy machine is late; an hour is more.
const LATE: Duration = Duration::from_secs(5);

async fn register(child: &Child, service: &str, ttl: Duration) -> SystemTime {
    let ttl = seconds(ttl.as_secs().try_into().expect("a short time"));
    let request = RegisterRequest { ttl, ..call([instance(service, 1)]) };
    let answer = child.api.register(request).await.expect("registered");
    let at = answer.instances[0].registered_at.expect("a time");
    SystemTime::try_from(at).expect("a time")
}

#[tokio::test]
async fn steps_of_the_wall_clock_let_nobody_leave_early_or_late() {
    let home = Home::new("storage: redb\nbrake:\n  enabled: false\n");
    let clock = WallClock::new();
    let child = Child::start_with(&home, clock.environment()).await;
    // These heartbeat all the time.
    let stay = RegisterRequest { ttl: seconds(10), ..instances("stay", 0..20) };
    let lease = child.api.register(stay).await.expect("registered").lease.expect("a lease").id;
    for (round, step) in [HOUR, -HOUR, 0].into_iter().enumerate() {
        // One whose lease is under way when the clock steps, one that drains, and one that comes afterwards.
        let (before, drained, after) =
            (format!("before-{round}"), format!("drained-{round}"), format!("after-{round}"));
        register(&child, &drained, Duration::from_secs(120)).await;
        let drain = format!("/v1/namespaces/default/services/{drained}/instances/{drained}-1/drain");
        let begun = Instant::now();
        child.api.http.post(&drain, &json!({"drain_time": "2s"})).await.ok();
        register(&child, &before, TTL).await;
        clock.step_to(step);
        let told = register(&child, &after, TTL).await;
        // So the child does live in the other time.
        let real = SystemTime::now();
        let stepped =
            if step < 0 { real - Duration::from_secs(HOUR as u64) } else { real + Duration::from_secs(step as u64) };
        let apart = stepped.duration_since(told).or_else(|_| told.duration_since(stepped)).expect("a time");
        assert!(apart < Duration::from_secs(60), "{apart:?}");
        for service in [&before, &drained, &after] {
            let gone = async || {
                assert_eq!(child.api.heartbeat(&lease).await.outcome(), LeaseOutcome::Kept, "{step}");
                child.api.ids(service).await.is_empty().then(|| begun.elapsed())
            };
            let left = until(service, gone).await;
            assert!((TTL..TTL + LATE).contains(&left), "{service} left after {left:?}, with the clock at {step}");
        }
        assert_eq!(child.api.ids("stay").await.len(), 20, "{step}");
    }
}
