//! Random histories: whatever happens, and however often a reader breaks off and resumes, what it was told adds up to
//! what is there.

use convoy_client::proto::{DeregisterRequest, DrainRequest, RegisterRequest, Registration, WatchRequest};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

use crate::support::{
    api::{Api, Call, FACES, Face},
    sample::{call, instance, seconds},
    seeded,
    server::Convoy,
    until,
    watch::{Belief, Watch},
    within,
};

const STEPS: usize = 400;
const SERVICES: [(&str, &str); 4] = [("default", "a"), ("default", "b"), ("eu", "a"), ("eu", "c")];
const INSTANCES: u32 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_watch_tells_adds_up_to_the_listing() {
    let mut random = seeded("what_a_watch_tells_adds_up_to_the_listing");
    let convoy = Convoy::start().await;
    let mut readers = Vec::new();
    for face in FACES {
        for _ in 0..3 {
            readers.push(tokio::spawn(read(convoy.api.clone(), face, random.random())));
        }
    }
    for step in 1..=STEPS {
        act(&convoy.api, &mut random, step as u64).await;
    }
    until("the drains' end", async || draining(&convoy.api).await.is_empty().then_some(())).await;
    convoy.api.register(call([instance("end", 1)])).await.expect("registered");
    let expected = listing(&convoy.api).await;
    assert!(expected.0.len() > 4, "the history leaves something to compare");
    for reader in readers {
        let belief = within("a reader's end", reader).await.expect("a belief");
        assert_eq!(belief, expected);
    }
}

/// Reads until the history's end, in pieces.
async fn read(api: Api, face: Face, seed: u64) -> Belief {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut belief, mut resume) = (Belief::default(), String::new());
    loop {
        let request = WatchRequest { resume: resume.clone(), ..Default::default() };
        let mut watch = Watch::open(&api, face, request).await.expect("a watch");
        for _ in 0..random.random_range(1..60) {
            let event = watch.next().await;
            resume.clone_from(&event.token);
            belief.hear(event);
            if belief.0.keys().any(|(_, service, _)| service == "end") {
                return belief;
            }
        }
    }
}

/// One random write. What cannot be done is refused, which is as good as any.
async fn act(api: &Api, random: &mut impl Rng, step: u64) {
    let (namespace, service) = SERVICES.choose(random).copied().expect("there are some");
    let (namespace, service) = (namespace.to_owned(), service.to_owned());
    let id = format!("{service}-{}", random.random_range(0..INSTANCES));
    let call = match random.random_range(0..10) {
        0..7 => {
            let mut instances = Vec::new();
            for _ in 0..random.random_range(1..4) {
                let number = random.random_range(0..INSTANCES);
                let id = format!("{service}-{}", random.random_range(0..INSTANCES));
                let (weight, ready) = (Some(random.random_range(0..100)), Some(random.random_bool(0.8)));
                let namespace = namespace.clone();
                instances.push(Registration { namespace, id, weight, ready, ..instance(&service, number) });
            }
            // Now and then late: of an older incarnation.
            let incarnation = Some(step.saturating_sub(random.random_range(0..2) * 40));
            Call::Register(RegisterRequest { incarnation, instances, ..Default::default() })
        }
        7..9 => Call::Deregister(DeregisterRequest { namespace, service, id, incarnation: None }),
        _ => {
            let drain_time = seconds(random.random_range(0..2));
            Call::Drain(DrainRequest { namespace, service, id, incarnation: None, drain_time, wait: None })
        }
    };
    let face = *FACES.choose(random).expect("there are two");
    if let Err(refused) = api.ask(face, call).await {
        let code = refused.problem.code.as_str();
        let expected = ["invalid_argument", "not_found", "older_incarnation", "incarnation_fenced"];
        assert!(expected.contains(&code), "{refused:?}");
    }
}

async fn listing(api: &Api) -> Belief {
    let mut belief = Belief::default();
    for instance in all(api).await {
        let instance: convoy_client::proto::Instance = serde_json::from_value(instance).expect("an instance");
        let key = (instance.namespace.clone(), instance.service.clone(), instance.id.clone());
        belief.0.insert(key, instance);
    }
    belief
}

async fn draining(api: &Api) -> Vec<Value> {
    let mut instances = all(api).await;
    instances.retain(|instance| instance["health"]["draining"] == true);
    instances
}

async fn all(api: &Api) -> Vec<Value> {
    let mut instances = Vec::new();
    for service in api.http.get("/v1/services").await.ok()["services"].as_array().expect("a list") {
        let name = |field: &str| service[field].as_str().expect("a name").to_owned();
        let path = format!("/v1/namespaces/{}/services/{}/instances", name("namespace"), name("name"));
        let listed = api.http.get(&path).await.ok();
        instances.extend(listed["instances"].as_array().expect("a list").iter().cloned());
    }
    instances
}
