//! Watches, over server-sent events and gRPC: what there is, then every change, in order; and after a break exactly
//! what was missed.

use convoy_client::proto::{DeregisterRequest, Registration, WatchEvent, WatchKind, WatchRequest};

use crate::support::{
    api::{Api, Call, FACES, Face},
    sample::{call, instance, instances},
    server::Convoy,
    watch::{Belief, Watch},
};

fn kinds(events: &[WatchEvent]) -> Vec<(WatchKind, &str)> {
    events.iter().map(|event| (event.kind(), event.instance.as_ref().map_or("", |instance| &instance.id))).collect()
}

async fn deregister(api: &Api, service: &str, id: &str) {
    let gone = DeregisterRequest { service: service.into(), id: id.into(), ..Default::default() };
    api.ask(Face::Grpc, Call::Deregister(gone)).await.expect("deregistered");
}

fn resume(token: &str) -> WatchRequest {
    WatchRequest { resume: token.into(), ..Default::default() }
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_then_every_change_in_order() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut early = Watch::all(&convoy.api, face).await;
        assert_eq!(kinds(&early.synced().await), [(WatchKind::Synced, "")], "nothing is there, and that is said");
        convoy.api.register(instances("web", 1..3)).await.expect("registered");
        convoy.api.register(instances("shop", 1..2)).await.expect("registered");
        let mut late = Watch::all(&convoy.api, face).await;
        let told = late.synced().await;
        use WatchKind::{Added, Changed, Removed, Synced};
        assert_eq!(kinds(&told), [(Added, "shop-1"), (Added, "web-1"), (Added, "web-2"), (Synced, "")]);
        assert_eq!(told.iter().map(|event| event.revision).take(3).collect::<Vec<_>>(), [2, 1, 1]);

        let changed = Registration { weight: Some(1), ..instance("web", 1) };
        convoy.api.register(call([changed])).await.expect("changed");
        deregister(&convoy.api, "web", "web-2").await;
        for (watch, before) in [(&mut early, 3), (&mut late, 0)] {
            let mut events = Vec::new();
            for _ in 0..before + 2 {
                events.push(watch.next().await);
            }
            assert!(events.is_sorted_by_key(|event| event.revision), "{events:?}");
            assert_eq!(kinds(&events[before..]), [(Changed, "web-1"), (Removed, "web-2")]);
            let removed = &events[before + 1];
            assert_eq!((removed.revision, removed.cause().to_string()), (4, "deregistered".into()));
        }
    }
}

#[tokio::test]
async fn a_watch_resumed_tells_exactly_what_was_missed() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut watch = Watch::all(&convoy.api, face).await;
        let mut tokens = vec![watch.synced().await.pop().expect("synced").token];
        for number in 1..=6 {
            convoy.api.register(call([instance("web", number)])).await.expect("registered");
            tokens.push(watch.next().await.token);
        }
        let mut history: Vec<_> = (1..=6).map(|number| (WatchKind::Added, format!("web-{number}"))).collect();
        for (seen, token) in tokens.iter().enumerate() {
            let mut resumed = Watch::open(&convoy.api, face, resume(token)).await.expect("a watch");
            // What happens next comes after what was missed, and nothing between.
            history.push((WatchKind::Added, format!("probe-{seen}")));
            convoy.api.register(call([instance("probe", seen as u32)])).await.expect("registered");
            for missed in &history[seen..] {
                assert_eq!(resumed.told().await, *missed, "{face:?} after {seen}");
            }
        }
    }
}

/// A break in the middle of what there is: nothing of it may be taken for all, and `synced` must still come.
#[tokio::test]
async fn a_watch_broken_before_it_was_synced_starts_again() {
    for face in FACES {
        let convoy = Convoy::start().await;
        convoy.api.register(instances("web", 1..4)).await.expect("registered");
        let mut broken = Watch::all(&convoy.api, face).await;
        let mut belief = Belief::default();
        let first = broken.next().await;
        let token = first.token.clone();
        belief.hear(first);
        drop(broken);
        deregister(&convoy.api, "web", "web-1").await;
        let mut resumed = Watch::open(&convoy.api, face, resume(&token)).await.expect("a watch");
        resumed.synced().await.into_iter().for_each(|event| belief.hear(event));
        let ids: Vec<_> = belief.0.keys().map(|(_, _, id)| id.as_str()).collect();
        assert_eq!(ids, ["web-2", "web-3"], "{face:?}");
    }
}

#[tokio::test]
async fn a_token_of_elsewhere_gets_a_reset_and_what_there_is() {
    let (convoy, other) = (Convoy::start().await, Convoy::start().await);
    for api in [&convoy.api, &other.api] {
        api.register(instances("web", 1..3)).await.expect("registered");
    }
    let foreign = Watch::all(&other.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    let own = Watch::all(&convoy.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    let future = format!("{own}9");
    let mut weight = 0;
    for token in [&*foreign, &future, "nonsense", ".", "💥", &"x".repeat(4096)] {
        for face in FACES {
            if face == Face::Http && !token.is_ascii() {
                continue;
            }
            let mut watch = Watch::open(&convoy.api, face, resume(token)).await.expect("a watch");
            use WatchKind::{Added, Changed, Reset, Synced};
            let told = watch.synced().await;
            assert_eq!(kinds(&told), [(Reset, ""), (Added, "web-1"), (Added, "web-2"), (Synced, "")], "{token}");
            // And it goes on.
            weight += 1;
            let changed = Registration { weight: Some(weight), ..instance("web", 1) };
            convoy.api.register(call([changed])).await.expect("changed");
            assert_eq!(watch.told().await, (Changed, "web-1".into()));
        }
    }
}

#[tokio::test]
async fn a_filter_shows_its_namespace_and_service_only() {
    let places = [("default", "web"), ("default", "shop"), ("eu", "web"), ("eu", "shop")];
    let at = |number| {
        let place =
            |(namespace, service)| Registration { namespace: String::from(namespace), ..instance(service, number) };
        call(places.map(place))
    };
    for (namespace, service) in
        [("", ""), ("default", ""), ("eu", ""), ("", "web"), ("eu", "web"), ("none", ""), ("", "none")]
    {
        for face in FACES {
            let convoy = Convoy::start().await;
            let fits = |(of, name): &(&str, &str)| {
                (namespace.is_empty() || namespace == *of) && (service.is_empty() || service == *name)
            };
            let mut expected: Vec<_> = places.into_iter().filter(fits).collect();
            expected.sort_unstable();
            convoy.api.register(at(1)).await.expect("registered");
            let request =
                WatchRequest { namespace: namespace.into(), service: service.into(), ..WatchRequest::default() };
            let mut watch = Watch::open(&convoy.api, face, request).await.expect("a watch");
            let mut told = watch.synced().await;
            assert_eq!(told.pop().map(|event| event.kind()), Some(WatchKind::Synced));
            assert_eq!(seen(&told), expected, "what there is of {namespace}/{service}");
            convoy.api.register(at(2)).await.expect("registered");
            let mut events = Vec::new();
            for _ in &expected {
                events.push(watch.next().await);
            }
            assert_eq!(seen(&events), expected, "what comes of {namespace}/{service}");
        }
    }
}

fn seen(events: &[WatchEvent]) -> Vec<(&str, &str)> {
    let mut seen: Vec<_> = events
        .iter()
        .filter_map(|event| event.instance.as_ref())
        .map(|instance| (instance.namespace.as_str(), instance.service.as_str()))
        .collect();
    seen.sort_unstable();
    seen
}
