//! Durability: what was acknowledged is there after a `kill -9`, whenever that comes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use convoy_client::proto::{LeaseOutcome, RegisterRequest, WatchKind, WatchRequest};
use rand::{RngExt, rngs::StdRng};
use tokio::{sync::Mutex, task::JoinSet};

use crate::support::{
    api::{Api, Face},
    child::{Child, Home},
    sample::{call, instance, instances, seconds, unpaced},
    seeded,
    watch::Watch,
    within,
};

const ROUNDS: u32 = 6;
const INSTANCES: u32 = 200;
const WRITERS: u32 = 8;

/// What a registration's answer said.
#[derive(Clone, Debug)]
struct Acknowledged {
    revision: u64,
    lease: String,
}

type Book = Arc<Mutex<BTreeMap<String, Acknowledged>>>;

fn long(request: RegisterRequest) -> RegisterRequest {
    RegisterRequest { ttl: seconds(86_400), ..request }
}

/// Registers its share, one call after the other, until the server is gone.
async fn write(api: Api, numbers: Vec<u32>, book: Book) {
    for number in numbers {
        let request = long(call([instance("web", number)]));
        // It may be killed in the middle of this call: then nothing is known.
        let Ok(answer) = api.registry.clone().register(request).await else { return };
        let mut answer = answer.into_inner();
        let instance = answer.instances.remove(0);
        let known = Acknowledged { revision: instance.revision, lease: instance.lease };
        book.lock().await.insert(instance.id, known);
    }
}

/// Registers a round's instances in parallel, and kills the server when so many are acknowledged, and a little later.
async fn kill_in_the_middle(child: &mut Child, round: u32, book: &Book, random: &mut StdRng) {
    let before = book.lock().await.len();
    let target = before + random.random_range(1..INSTANCES as usize);
    let later = Duration::from_micros(random.random_range(0..3_000));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let share = (0..INSTANCES).filter(|number| number % WRITERS == writer);
        let numbers = share.map(|number| round * INSTANCES + number).collect();
        writers.spawn(write(child.api.clone(), numbers, book.clone()));
    }
    crate::support::until("acknowledgements", async || (book.lock().await.len() >= target).then_some(())).await;
    // Not a wait for anything: it moves the kill to any moment of a commit.
    tokio::time::sleep(later).await;
    child.kill().await;
    within("the writers' end", async { while writers.join_next().await.is_some() {} }).await;
    let acknowledged = book.lock().await.len();
    println!("round {round}: killed after {} of {INSTANCES} acknowledgements", acknowledged - before);
}

/// Everything that was acknowledged stands, with its revision and its lease, and revisions go on from there.
async fn check(child: &Child, round: u32, book: &Book) {
    let book = book.lock().await;
    let listed = child.api.http.get("/v1/namespaces/default/services/web/instances").await.ok();
    let there: BTreeMap<&str, &serde_json::Value> = listed["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|instance| (instance["id"].as_str().expect("an id"), instance))
        .collect();
    for (id, known) in book.iter() {
        let found = there.get(id.as_str()).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        assert_eq!(
            (&found["revision"], &found["lease"]),
            (&known.revision.into(), &known.lease.clone().into()),
            "{id}"
        );
    }
    let highest = there.values().filter_map(|instance| instance["revision"].as_u64()).max().unwrap_or_default();
    assert!(listed["revision"].as_u64() >= Some(highest), "{}", listed["revision"]);
    println!("round {round}: {} acknowledged, {} there, all with their revisions", book.len(), there.len());
    if let Some(known) = book.values().next() {
        assert_eq!(child.api.heartbeat(&known.lease).await.outcome(), LeaseOutcome::Kept, "a lease has a full TTL");
    }
    let answer = child.api.register(long(call([instance("probe", round)]))).await.expect("it writes");
    assert!(answer.revision > highest, "{} after {highest}", answer.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let mut random = seeded("what_was_acknowledged_survives_a_kill_at_any_moment");
    let home = Home::new("storage: redb\n");
    let book = Book::default();
    for round in 0..ROUNDS {
        let mut child = Child::start(&home).await;
        if round > 0 {
            check(&child, round, &book).await;
        }
        kill_in_the_middle(&mut child, round, &book, &mut random).await;
    }
    check(&Child::start(&home).await, ROUNDS, &book).await;
}

#[tokio::test]
async fn a_restart_is_no_change_for_agents_and_watchers() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    let first = child.api.register(long(instances("web", 1..3))).await.expect("registered");
    let token = Watch::all(&child.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    child.kill().await;
    let child = Child::start(&home).await;
    // The same token goes on: nothing is told but what happens next.
    let request = WatchRequest { resume: token, ..Default::default() };
    let mut watch = Watch::open(&child.api, Face::Http, request).await.expect("a watch");
    let again = child.api.register(long(instances("web", 1..3))).await.expect("said again");
    assert_eq!(unpaced(serde_json::json!(again)), unpaced(serde_json::json!(first)));
    child.api.register(long(instances("probe", 1..2))).await.expect("registered");
    assert_eq!(watch.told().await, (WatchKind::Added, "probe-1".into()));
}

#[tokio::test]
async fn after_a_restart_a_lease_has_one_full_ttl_however_long_convoy_was_away() {
    const TTL: Duration = Duration::from_secs(2);
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    let request = RegisterRequest { ttl: seconds(2), ..instances("web", 1..2) };
    child.api.register(request).await.expect("registered");
    let token = Watch::all(&child.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    child.kill().await;
    // Not a wait for anything: the lease would be over by now.
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    let begun = Instant::now();
    let child = Child::start(&home).await;
    assert_eq!(child.api.ids("web").await, ["web-1"]);
    let request = WatchRequest { resume: token, ..Default::default() };
    let mut watch = Watch::open(&child.api, Face::Grpc, request).await.expect("a watch");
    assert_eq!(watch.told().await, (WatchKind::Removed, "web-1".into()));
    let after = begun.elapsed();
    assert!(after >= TTL, "it has gone {after:?} after the start");
}

#[tokio::test]
async fn the_fence_stands_after_a_kill() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    child.api.register(long(instances("web", 1..2))).await.expect("registered");
    child.api.http.delete("/v1/namespaces/default/services/web/instances/web-1").await.ok();
    child.kill().await;
    let child = Child::start(&home).await;
    let refused = child.api.register(long(instances("web", 1..2))).await.expect_err("it was deregistered");
    assert_eq!(refused.problem.code, "incarnation_fenced");
}

#[tokio::test]
async fn in_memory_nothing_survives_and_agents_are_told_to_register_again() {
    let home = Home::new("storage: memory\n");
    let mut child = Child::start(&home).await;
    let answer = child.api.register(long(instances("web", 1..2))).await.expect("registered");
    let token = Watch::all(&child.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    child.kill().await;
    let child = Child::start(&home).await;
    let lease = answer.lease.expect("a lease").id;
    assert_eq!(child.api.heartbeat(&lease).await.outcome(), LeaseOutcome::RegisterAgain);
    let request = WatchRequest { resume: token, ..Default::default() };
    let mut watch = Watch::open(&child.api, Face::Grpc, request).await.expect("a watch");
    assert_eq!(watch.told().await.0, WatchKind::Reset);
}
