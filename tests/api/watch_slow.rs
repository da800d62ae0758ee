//! A watcher that does not read: what it is told, when it reads at last, is merged, and is all that it needs.

use convoy_client::proto::{DeregisterRequest, Registration, WatchKind, WatchRequest};

use crate::support::{
    api::{Call, FACES, Face},
    sample::{call, instance, instances},
    server::Convoy,
    watch::{Belief, Watch},
};

/// Their events are more than all the windows between take.
const CHANGES: u32 = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_told_what_happened_merged() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut watch = Watch::all(&convoy.api, face).await;
        let mut belief = Belief::default();
        watch.synced().await.into_iter().for_each(|event| belief.hear(event));
        convoy.api.register(instances("web", 1..4)).await.expect("registered");
        for change in 0..CHANGES {
            let description = format!("{change} {}", "x".repeat(900));
            let changed = Registration { description, ..instance("web", change % 3 + 1) };
            convoy.api.register(call([changed])).await.expect("changed");
        }
        let gone = DeregisterRequest { service: "web".into(), id: "web-2".into(), ..Default::default() };
        convoy.api.ask(Face::Grpc, Call::Deregister(gone)).await.expect("deregistered");
        convoy.api.register(call([instance("end", 1)])).await.expect("registered");
        let (mut count, mut last) = (0, 0);
        loop {
            let event = watch.next().await;
            assert_ne!(event.kind(), WatchKind::Reset, "all of it is in the log still");
            assert!(event.revision >= last, "{} after {last}", event.revision);
            (count, last) = (count + 1, event.revision);
            let end = event.instance.as_ref().is_some_and(|instance| instance.service == "end");
            belief.hear(event);
            if end {
                break;
            }
        }
        assert!(count < CHANGES / 2, "{face:?}: {count} events of {CHANGES} changes");
        let mut fresh = Watch::open(&convoy.api, Face::Grpc, WatchRequest::default()).await.expect("a watch");
        let mut expected = Belief::default();
        fresh.synced().await.into_iter().for_each(|event| expected.hear(event));
        assert_eq!(belief, expected);
    }
}
