//! Watches with a selector, through both faces: what begins and what ceases to match, what changed, and what is refused.

use std::collections::BTreeMap;

use convoy::config::StorageKind;
use convoy_client::proto::{DeregisterRequest, Registration, WatchChange, WatchKind, WatchRequest};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{
    api::{Api, Call, FACES, Face},
    sample::{call, instance, seconds},
    seeded,
    server::Convoy,
    watch::{Belief, Watch},
    within,
};

const PYTHON: &str = "instance.labels.language == \"python\" && instance.weight >= 50";

fn selecting(selector: &str) -> WatchRequest {
    WatchRequest { selector: selector.into(), ..WatchRequest::default() }
}

fn speaking(number: u32, language: &str, weight: u32) -> Registration {
    let labels = BTreeMap::from([("language".to_owned(), language.to_owned())]);
    Registration { labels, weight: Some(weight), ..instance("web", number) }
}

async fn register(api: &Api, registration: Registration) {
    api.register(call([registration])).await.expect("registered");
}

#[tokio::test]
async fn what_begins_to_match_is_added_and_what_ceases_to_has_left() {
    for face in FACES {
        let convoy = Convoy::start().await;
        register(&convoy.api, speaking(1, "python", 100)).await;
        register(&convoy.api, speaking(2, "rust", 100)).await;
        let mut watch = Watch::open(&convoy.api, face, selecting(PYTHON)).await.expect("a watch");
        let ids: Vec<_> = watch.synced().await.into_iter().filter_map(|event| Some(event.instance?.id)).collect();
        assert_eq!(ids, ["web-1"], "what there is");
        use WatchChange::{Address, Health, Metadata, Weight};
        use WatchKind::{Added, Changed, Left, Removed};
        let moved = Registration { address: "10.9.9.9".into(), ..speaking(1, "python", 60) };
        let unready = Registration { ready: Some(false), ..moved.clone() };
        let with_version = Registration { description: "sees".into(), ..unready.clone() };
        for (registration, expected) in [
            (speaking(3, "rust", 100), None),
            (speaking(1, "python", 60), Some((Changed, "web-1", vec![Weight]))),
            (speaking(2, "python", 100), Some((Added, "web-2", vec![]))),
            (speaking(2, "python", 40), Some((Left, "web-2", vec![]))),
            (speaking(2, "rust", 40), None),
            (moved, Some((Changed, "web-1", vec![Address]))),
            (unready, Some((Changed, "web-1", vec![Health]))),
            (with_version, Some((Changed, "web-1", vec![Metadata]))),
        ] {
            register(&convoy.api, registration).await;
            let Some((kind, id, changes)) = expected else { continue };
            let event = watch.next().await;
            let told = (event.kind(), event.changes().collect::<Vec<_>>(), event.instance.expect("an instance").id);
            assert_eq!(told, (kind, changes, id.to_owned()), "{face:?}");
        }
        // Gone while it did not match: nobody is told. Gone while it did: with the cause.
        for id in ["web-2", "web-1"] {
            let gone = DeregisterRequest { service: "web".into(), id: id.into(), ..Default::default() };
            convoy.api.ask(Face::Grpc, Call::Deregister(gone)).await.expect("deregistered");
        }
        let event = watch.next().await;
        assert_eq!((event.kind(), event.cause().to_string()), (Removed, "deregistered".into()));
        assert_eq!(event.instance.map(|instance| instance.id), Some("web-1".into()));
    }
}

#[tokio::test]
async fn a_selector_that_is_none_is_refused_with_its_column() {
    let convoy = Convoy::start().await;
    for (selector, says) in [
        ("instance.labls.a == 'b'", "column 10"),
        ("instance.labels.a ==", "column"),
        ("instance.load.cpu > 0.5", "column"),
    ] {
        for face in FACES {
            let refused = Watch::open(&convoy.api, face, selecting(selector)).await.expect_err(selector);
            assert_eq!(
                (refused.problem.code.as_str(), refused.problem.field.as_str()),
                ("invalid_argument", "selector")
            );
            assert!(refused.problem.rule.contains(says), "{selector}: {}", refused.problem.rule);
        }
    }
}

#[tokio::test]
async fn those_that_could_match_anything_are_limited() {
    let convoy = Convoy::start().await;
    let broad = || selecting("instance.weight > 1");
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(Watch::open(&convoy.api, Face::Grpc, broad()).await.expect("a watch"));
    }
    for face in FACES {
        let refused = Watch::open(&convoy.api, face, broad()).await.expect_err("one too many");
        assert_eq!(refused.problem.code, "limit_reached");
    }
    // Whoever says more about what he wants is welcome.
    let of_service = WatchRequest { service: "web".into(), ..broad() };
    Watch::open(&convoy.api, Face::Grpc, of_service).await.expect("a watch of one service");
    Watch::open(&convoy.api, Face::Http, selecting(PYTHON)).await.expect("a watch with an equality");
}

/// Cut off at random and resumed, each comes to what its selector shows of the listing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_and_many_breaks_add_up_to_the_listing() {
    let mut random = seeded("a_selector_and_many_breaks_add_up_to_the_listing");
    let convoy = Convoy::start().await;
    let selectors = [
        PYTHON,
        "instance.labels.language in ['rust', 'go'] && instance.weight < 70",
        "instance.id == 'web-3' || instance.labels.language == 'go'",
        "instance.service == 'web' && instance.health == 'healthy'",
    ];
    let mut readers = Vec::new();
    for selector in selectors {
        for face in FACES {
            let selector = format!("({selector}) || instance.service == 'end'");
            readers.push(tokio::spawn(read(convoy.api.clone(), face, selector, random.random())));
        }
    }
    for _ in 0..400 {
        let number = random.random_range(0..8);
        let language = ["python", "rust", "go"][random.random_range(0..3)];
        if random.random_bool(0.2) {
            let id = format!("web-{number}");
            let gone = DeregisterRequest { service: "web".into(), id, ..Default::default() };
            // One that is not there is refused.
            let _ = convoy.api.ask(Face::Grpc, Call::Deregister(gone)).await;
        } else {
            let one = speaking(number, language, random.random_range(40..80));
            let ready = Some(random.random_bool(0.8));
            let request = call([Registration { ready, ..one }]);
            // Without an incarnation: a newer one, if it was removed.
            let request = convoy_client::proto::RegisterRequest { incarnation: None, ttl: seconds(3600), ..request };
            convoy.api.register(request).await.expect("registered");
        }
    }
    register(&convoy.api, instance("end", 1)).await;
    for reader in readers {
        let (selector, belief) = within("a reader's end", reader).await.expect("a belief");
        // A watch that has just begun shows what there is.
        let mut fresh = Watch::open(&convoy.api, Face::Grpc, selecting(&selector)).await.expect("a watch");
        let mut expected = Belief::default();
        fresh.synced().await.into_iter().for_each(|event| expected.hear(event));
        assert_eq!(belief, expected, "{selector}");
    }
}

/// Reads until the history's end, in pieces.
async fn read(api: Api, face: Face, selector: String, seed: u64) -> (String, Belief) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut belief, mut resume) = (Belief::default(), String::new());
    loop {
        let request = WatchRequest { resume: resume.clone(), ..selecting(&selector) };
        let mut watch = Watch::open(&api, face, request).await.expect("a watch");
        for _ in 0..random.random_range(1..20) {
            let event = watch.next().await;
            resume.clone_from(&event.token);
            belief.hear(event);
            if belief.0.keys().any(|(_, service, _)| service == "end") {
                return (selector, belief);
            }
        }
    }
}

#[tokio::test]
async fn a_token_outlives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        Convoy::with(|config| {
            config.storage = StorageKind::Redb;
            config.data_dir = directory.path().to_owned();
        })
    };
    let convoy = start().await;
    register(&convoy.api, speaking(1, "python", 60)).await;
    let mut watch = Watch::open(&convoy.api, Face::Http, selecting(PYTHON)).await.expect("a watch");
    let old = watch.synced().await.pop().expect("synced").token;
    register(&convoy.api, speaking(2, "python", 60)).await;
    let latest = watch.next().await.token;
    drop(watch);
    convoy.stop().await;

    let convoy = start().await;
    let open = async |token: &str| {
        let request = WatchRequest { resume: token.into(), ..selecting(PYTHON) };
        Watch::open(&convoy.api, Face::Http, request).await.expect("a watch")
    };
    let (mut current, mut behind) = (open(&latest).await, open(&old).await);
    // What has happened since is not known any more.
    let kinds: Vec<_> = behind.synced().await.iter().map(|event| event.kind()).collect();
    use WatchKind::{Added, Reset, Synced};
    assert_eq!(kinds, [Reset, Added, Added, Synced]);
    register(&convoy.api, speaking(3, "python", 60)).await;
    for watch in [&mut current, &mut behind] {
        assert_eq!(watch.told().await, (Added, "web-3".into()));
    }
    convoy.stop().await;
}
