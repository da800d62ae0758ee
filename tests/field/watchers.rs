//! Watchers that are cut off again and again while agents come, die and go: what each was told in pieces adds up to
//! what is there, and nothing is told twice, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use convoy_client::proto::{ListInstancesRequest, Verdict, WatchEvent, WatchKind, WatchRequest};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    field::Field,
    fleet::{Orders, SERVICE, id, ids},
    relay::Relay,
    support::{
        api::{Api, FACES, Face},
        sample::{call, instance},
        seeded,
        server::Addresses,
        until,
        watch::{Belief, Watch},
        within,
    },
};

const TTL: Duration = Duration::from_secs(2);
const AGENTS: u32 = 8;
const ROUNDS: usize = 4;
/// What an operator says in each round, for changes in quick succession.
const WORDS: usize = 60;
/// A connection lives for so many bytes: the head of an answer and an event or a few dozen of them.
const BYTES: std::ops::Range<u64> = 1_000..12_000;
const READERS_PER_FACE: usize = 2;
/// Those that are cut off less say little.
const CUTS: usize = 5;
/// The service whose first instance ends the story.
const END: &str = "end";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_watchers_are_told_in_pieces_adds_up_to_what_is_there() {
    let mut random = seeded("what_watchers_are_told_in_pieces_adds_up_to_what_is_there");
    let mut field =
        Field::start("brake: {}\n", Orders { drain_time: TTL / 10, ..Orders::ttl(TTL) }, 1..AGENTS + 1).await;
    let mut readers = Vec::new();
    for face in FACES {
        for _ in 0..READERS_PER_FACE {
            let (http, grpc) = (field.convoy.addresses.http, field.convoy.addresses.grpc);
            let server = if face == Face::Http { http } else { grpc };
            let relay = Relay::to(server, BYTES, StdRng::seed_from_u64(random.random())).await;
            readers.push((face, tokio::spawn(read(face, relay))));
        }
    }
    let mark = field.journal.mark();
    for _ in 0..ROUNDS {
        churn(&mut field, &mut random).await;
    }
    field.only_are_left(&ids(1..AGENTS + 1)).await;
    field.all_are(Verdict::Healthy, AGENTS as usize).await;
    field.convoy.api.register(call([instance(END, 1)])).await.expect("registered");
    let expected = listing(&field.convoy.api).await;
    assert_eq!(expected.0.len(), AGENTS as usize + 1);
    until("the end in the journal", async || {
        field.journal.since(mark).iter().any(|(_, event)| ends(event)).then_some(())
    })
    .await;
    let whole: Vec<WatchEvent> = field.journal.since(mark).into_iter().map(|(_, event)| event).collect();
    for (face, reader) in readers {
        let Reader { belief, told, cuts } = within("a reader's end", reader).await.expect("a belief");
        println!(
            "a watcher over {face:?}: {} events in {} pieces, of {} that happened",
            told.len(),
            cuts + 1,
            whole.len()
        );
        assert!(cuts >= CUTS, "{face:?} was cut off {cuts} times only");
        assert_eq!(belief, expected, "{face:?}");
        compare(face, &told, &whole);
    }
}

/// A round of what happens to agents: one dies and is missed, one dies and is there again before it is, one is told to
/// stop; and all the while an operator changes his mind.
async fn churn(field: &mut Field, random: &mut StdRng) {
    let mut numbers: Vec<u32> = (1..AGENTS + 1).collect();
    let mut pick = || numbers.swap_remove(random.random_range(0..numbers.len()));
    let (missed, back, stopped, other) = (pick(), pick(), pick(), pick());
    field.fleet.kill(missed..missed + 1);
    field.fleet.kill(back..back + 1);
    field.fleet.start(back..back + 1);
    field.fleet.signal(stopped..stopped + 1, Signal::TERM);
    let path = format!("/v1/namespaces/default/services/{SERVICE}/instances/{}/override", id(other));
    for word in 0..WORDS {
        let health = ["unhealthy", "degraded", "healthy"][word % 3];
        field.convoy.api.http.put(&path, &json!({"health": health, "reason": word.to_string()})).await.ok();
    }
    field.convoy.api.http.delete(&path).await.ok();
    let rest: Vec<String> =
        ids(1..AGENTS + 1).into_iter().filter(|of| ![id(missed), id(stopped)].contains(of)).collect();
    field.only_are_left(&rest).await;
    // The process that was told to stop may still be there.
    field.fleet.kill(stopped..stopped + 1);
    field.fleet.start(stopped..stopped + 1);
    field.fleet.start(missed..missed + 1);
    field.only_are_left(&ids(1..AGENTS + 1)).await;
}

/// What a reader has come to.
struct Reader {
    belief: Belief,
    told: Vec<WatchEvent>,
    cuts: usize,
}

/// Reads until the end, going on after the last event that came whole each time that it is cut off.
async fn read(face: Face, relay: Relay) -> Reader {
    let addresses = Addresses { http: relay.address, grpc: relay.address, xds: relay.address };
    let mut reader = Reader { belief: Belief::default(), told: Vec::new(), cuts: 0 };
    let (mut resume, mut synced) = (String::new(), false);
    loop {
        // Each time a client of its own: it knows nothing but the token.
        let request = WatchRequest { resume: resume.clone(), ..Default::default() };
        let mut watch = Watch::open(&Api::new(addresses), face, request).await.expect("a watch");
        while let Some(event) = watch.unbroken().await {
            resume.clone_from(&event.token);
            assert!(!synced || event.kind() != WatchKind::Reset, "{face:?}: history is kept, so none is lost");
            synced |= event.kind() == WatchKind::Synced;
            reader.belief.hear(event.clone());
            reader.told.push(event.clone());
            if ends(&event) {
                assert_eq!(reader.cuts, relay.broken(), "each break was seen");
                return reader;
            }
        }
        reader.cuts += 1;
    }
}

fn ends(event: &WatchEvent) -> bool {
    event.instance.as_ref().is_some_and(|instance| instance.service == END)
}

/// Revisions by instance, of what was told after the start.
fn revisions(events: &[WatchEvent]) -> BTreeMap<String, Vec<u64>> {
    let mut revisions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in events {
        if let Some(instance) = &event.instance {
            revisions.entry(instance.id.clone()).or_default().push(event.revision);
        }
    }
    revisions
}

/// What came in pieces may be merged by instance, but each event is one that happened, in order, once, up to the last.
fn compare(face: Face, told: &[WatchEvent], whole: &[WatchEvent]) {
    let synced = told.iter().rposition(|event| event.kind() == WatchKind::Synced).expect("it was synced") + 1;
    let happened = revisions(whole);
    for (id, told) in revisions(&told[synced..]) {
        assert!(told.is_sorted_by(|a, b| a < b), "{face:?} was told of {id} twice, or out of order: {told:?}");
        let of: BTreeSet<u64> = happened.get(&id).into_iter().flatten().copied().collect();
        assert!(told.iter().all(|revision| of.contains(revision)), "{face:?} of {id}: {told:?}, what happened: {of:?}");
        assert_eq!(told.last(), of.last(), "{face:?} was not told the last of {id}");
    }
}

async fn listing(api: &Api) -> Belief {
    let mut belief = Belief::default();
    for service in [SERVICE, END] {
        let request = ListInstancesRequest { service: service.into(), ..Default::default() };
        let listed = within("list", api.registry.clone().list_instances(request)).await.expect("a service");
        for instance in listed.into_inner().instances {
            let key = (instance.namespace.clone(), instance.service.clone(), instance.id.clone());
            belief.0.insert(key, instance);
        }
    }
    belief
}
