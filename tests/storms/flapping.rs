//! A fifth of a fleet goes up and down all the time, at random: the others never leave and their weights do not change,
//! nobody is told anything of them, and Convoy remembers no more at the end than it did soon after the beginning.
//!
//! `CONVOY_FLAP_SECONDS=600 cargo test --test storms flapping -- --nocapture` for long.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use convoy_client::proto::Verdict;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use rand::{RngExt, rngs::StdRng};
use serde_json::Value;

use crate::{
    field::Field,
    fleet::{Orders, SERVICE, id, ids},
    machine,
    size::said,
    support::{
        api::Face,
        seeded, until,
        watch::{Belief, Watch},
    },
};

const SECONDS: (&str, u64) = ("CONVOY_FLAP_SECONDS", 10);
const AGENTS: u32 = 30;
/// The first fifth.
const FLAPPING: std::ops::Range<u32> = 1..7;
/// Some are back before their leases end, others after.
const TTL: Duration = Duration::from_secs(3);
/// Between one that dies, or comes, and the next.
const PAUSE: std::ops::Range<u64> = 50..400;
/// What the API says that it keeps of an instance's health.
const TURNS: usize = 16;
/// How much more Convoy may have at the end than after a fifth of the time, when it has seen all that there is to see.
const GROWTH_MIB: u64 = 32;
/// At least so many have to come and go in the short form.
const FEWEST: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_are_not_concerned_by_a_fifth_that_flaps() {
    let _turn = machine::alone().await;
    let mut random = seeded("the_others_are_not_concerned_by_a_fifth_that_flaps");
    let lasts = Duration::from_secs(said(SECONDS.0, SECONDS.1));
    let mut field = Field::start("brake: {longest: 6s}\n", Orders::ttl(TTL), 1..AGENTS + 1).await;
    let mut watch = Watch::all(&field.convoy.api, Face::Grpc).await;
    let mut belief = Belief::default();
    watch.synced().await.into_iter().for_each(|event| belief.hear(event));
    let (mark, begun) = (field.journal.mark(), Instant::now());

    let mut flaps = Flaps::default();
    let mut memory = Vec::new();
    while begun.elapsed() < lasts || flaps.starts < FEWEST {
        flaps.turn(&mut field, &mut random);
        let pause = Duration::from_millis(random.random_range(PAUSE));
        field.holds(pause, async || the_others_are_there(&field)).await;
        flaps.braked += usize::from(!field.brakes().await.is_empty());
        memory.push((begun.elapsed(), field.convoy.memory_mib()));
    }

    flaps.down.iter().for_each(|number| field.fleet.start(*number..*number + 1));
    let rest = Instant::now();
    until("all of them", async || (field.convoy.api.ids(SERVICE).await == ids(1..AGENTS + 1)).then_some(())).await;
    field.all_are(Verdict::Healthy, AGENTS as usize).await;
    until("the brake's end", async || field.brakes().await.is_empty().then_some(())).await;
    until("all endpoints", async || (field.proxy.count(HealthStatus::Healthy) == AGENTS as usize).then_some(())).await;
    println!("all healthy and nothing braked {:.1?} after the last came back", rest.elapsed());

    let now = field.identities().await;
    for number in FLAPPING.end..AGENTS + 1 {
        assert_eq!(now[&id(number)], field.identities[&id(number)], "{} did not have to register again", id(number));
    }
    for sent in field.proxy.all_since(begun) {
        let others: BTreeSet<_> = sent.into_iter().filter(|(address, ..)| others().contains(address)).collect();
        let all: BTreeSet<_> = others_as_they_are().collect();
        assert_eq!(others, all, "the others are there, HEALTHY and with their weight, in all that the proxy was sent");
    }
    // One that was back before its lease ended may only now register again: what is listed can change meanwhile.
    let adds_up = async || {
        let listed = Watch::all(&field.convoy.api, Face::Grpc).await.synced().await;
        let (mut expected, mut told) = (Belief::default(), Belief(belief.0.clone()));
        listed.into_iter().for_each(|event| expected.hear(event));
        field.journal.since(mark).into_iter().for_each(|(_, event)| told.hear(event));
        (told == expected).then_some(())
    };
    until("what a watch was told adds up to the listing", adds_up).await;
    let told = field.journal.since(mark);
    let of_others = |event: &&convoy_client::proto::WatchEvent| {
        event.instance.as_ref().is_some_and(|of| !FLAPPING.map(id).any(|flapping| flapping == of.id))
    };
    let of_others = told.iter().map(|(_, event)| event).filter(of_others).count();
    assert_eq!(of_others, 0, "nothing happened to the others");

    let longest = history(&field).await;
    let settled = memory.iter().find(|(at, _)| *at >= lasts / 5).expect("it lasted").1;
    let (_, last) = *memory.last().expect("it lasted");
    println!(
        "{AGENTS} agents, {} flapping for {lasts:?}: {} kills, {} starts, {} events, braked in {} of {} looks; history \
         {longest} turns; {settled} MiB after a fifth of the time, {last} at the end",
        FLAPPING.len(),
        flaps.kills,
        flaps.starts,
        told.len(),
        flaps.braked,
        memory.len()
    );
    assert!(longest <= TURNS, "{longest} turns are kept of one");
    assert!(last <= settled + GROWTH_MIB, "memory: {memory:?}");
}

/// Who is down, and what has been done.
#[derive(Default)]
struct Flaps {
    down: BTreeSet<u32>,
    kills: usize,
    starts: usize,
    braked: usize,
}

impl Flaps {
    /// One of them dies if it is up, and comes back if it is down.
    fn turn(&mut self, field: &mut Field, random: &mut StdRng) {
        let number = random.random_range(FLAPPING);
        if self.down.remove(&number) {
            field.fleet.start(number..number + 1);
            self.starts += 1;
        } else {
            field.fleet.kill(number..number + 1);
            self.down.insert(number);
            self.kills += 1;
        }
    }
}

/// The addresses of those that do not flap.
fn others() -> BTreeSet<String> {
    (FLAPPING.end..AGENTS + 1).map(|number| format!("10.0.0.{number}:8080")).collect()
}

fn others_as_they_are() -> impl Iterator<Item = (String, u32, HealthStatus)> {
    others().into_iter().map(|address| (address, 100, HealthStatus::Healthy))
}

fn the_others_are_there(field: &Field) {
    let endpoints: BTreeSet<_> = field.proxy.endpoints().into_iter().collect();
    assert!(others_as_they_are().all(|other| endpoints.contains(&other)), "{endpoints:?}");
}

/// The longest history of one that flaps.
async fn history(field: &Field) -> usize {
    let mut longest = 0;
    for number in FLAPPING {
        let path = format!("/v1/namespaces/default/services/{SERVICE}/instances/{}", id(number));
        let shown: Value = field.convoy.api.http.get(&path).await.ok();
        longest = longest.max(shown["history"].as_array().map_or(0, Vec::len));
    }
    longest
}
