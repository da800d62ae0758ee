//! Convoy is killed again and again while it writes: registrations, changes, removals and configuration. After each start
//! everything is as it was acknowledged last, or as what was under way would have made it.
//!
//! `CONVOY_KILL_ROUNDS=1000 cargo test --test field kill_loop -- --nocapture` for long.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use convoy_client::proto::{DeregisterRequest, ListInstancesRequest, ListServicesRequest, PutServiceRequest};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::Mutex, task::JoinSet};

use crate::support::{
    api::Api,
    child::{Child, Home},
    sample::{instance, seconds},
    seeded, until, within,
};

const ROUNDS: u32 = 15;
const ROUNDS_VARIABLE: &str = "CONVOY_KILL_ROUNDS";
const WRITERS: u32 = 8;
/// What each writer has to write about.
const INSTANCES: u32 = 12;
/// A round has at most so many acknowledgements before the kill.
const MOST: usize = 300;
const STEP: &str = "step";

/// A thing, and how it is: the step in which it was written, or none for what is not there.
type Things = BTreeMap<String, Option<u64>>;

#[derive(Debug, Default)]
struct Book {
    acknowledged: Things,
    /// What was asked for last, and not answered.
    open: Things,
    acknowledgements: usize,
    /// Every write is another.
    step: u64,
}

fn service(writer: u32) -> String {
    format!("writer-{writer}")
}

/// Writes one thing after the other until the server is gone.
async fn write(api: Api, writer: u32, seed: u64, book: Arc<Mutex<Book>>) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let number = random.random_range(1..=INSTANCES);
        let mut registration = instance(&service(writer), number);
        let name = format!("{}/{}", registration.service, registration.id);
        let step = {
            let mut book = book.lock().await;
            book.step += 1;
            book.step
        };
        let mut registry = api.registry.clone();
        let there = book.lock().await.acknowledged.get(&name).copied().flatten().is_some();
        let (name, becomes, done) = match random.random_range(0..10) {
            0 if book.lock().await.acknowledged.contains_key(&service(writer)) || there => {
                let drain_time = seconds(i64::try_from(step % 3_000).unwrap_or_default());
                let request = PutServiceRequest { service: service(writer), drain_time, ..Default::default() };
                asked(&book, &service(writer), Some(step % 3_000)).await;
                (service(writer), Some(step % 3_000), registry.put_service(request).await.is_ok())
            }
            1 | 2 if there => {
                let (service, id) = (registration.service, registration.id);
                asked(&book, &name, None).await;
                let request = DeregisterRequest { service, id, ..Default::default() };
                (name, None, registry.deregister(request).await.is_ok())
            }
            _ => {
                registration.labels.insert(STEP.into(), step.to_string());
                let request = convoy_client::proto::RegisterRequest {
                    incarnation: Some(step),
                    ttl: seconds(86_400),
                    instances: vec![registration],
                    ..Default::default()
                };
                asked(&book, &name, Some(step)).await;
                (name, Some(step), registry.register(request).await.is_ok())
            }
        };
        // Killed in the middle: then nothing is known.
        if !done {
            return;
        }
        let mut book = book.lock().await;
        book.open.remove(&name);
        book.acknowledged.insert(name, becomes);
        book.acknowledgements += 1;
    }
}

async fn asked(book: &Mutex<Book>, name: &str, becomes: Option<u64>) {
    book.lock().await.open.insert(name.to_owned(), becomes);
}

/// What there is.
async fn found(api: &Api) -> Things {
    let mut registry = api.registry.clone();
    let mut found = Things::new();
    let services = registry.list_services(ListServicesRequest::default()).await.expect("a list").into_inner().services;
    for of in services {
        let drain = of.drain_time.map(|time| u64::try_from(time.seconds).unwrap_or_default());
        found.insert(of.name.clone(), drain);
        let request = ListInstancesRequest { service: of.name.clone(), ..Default::default() };
        for instance in registry.list_instances(request).await.expect("a list").into_inner().instances {
            let step = instance.labels.get(STEP).and_then(|step| step.parse().ok());
            found.insert(format!("{}/{}", of.name, instance.id), step);
        }
    }
    found
}

/// All is as it was acknowledged, or as what was not answered would have made it; from now on that is what is known.
async fn check(convoy: &Child, round: u32, book: &Mutex<Book>) {
    let found = found(&convoy.api).await;
    let mut book = book.lock().await;
    let book = &mut *book;
    for (name, acknowledged) in &mut book.acknowledged {
        let there = found.get(name).copied().flatten();
        let open = book.open.get(name).copied();
        assert!(
            there == *acknowledged || Some(there) == open,
            "round {round}: {name} is {there:?}; acknowledged was {acknowledged:?}, not answered {open:?}"
        );
        *acknowledged = there;
    }
    for (name, there) in found {
        // A service comes with its first instance, and has a drain time of its own then.
        book.acknowledged.entry(name).or_insert(there);
    }
    book.open.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_however_often_convoy_is_killed() {
    let rounds = std::env::var(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let mut random = seeded("nothing_acknowledged_is_lost_however_often_convoy_is_killed");
    let home = Home::new("storage: redb\n");
    let book = Arc::<Mutex<Book>>::default();
    for round in 0..rounds {
        let mut convoy = Child::start(&home).await;
        check(&convoy, round, &book).await;
        let target = book.lock().await.acknowledgements + random.random_range(1..MOST);
        let later = Duration::from_micros(random.random_range(0..3_000));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(convoy.api.clone(), writer, random.random(), book.clone()));
        }
        let enough = async || (book.lock().await.acknowledgements >= target).then_some(());
        until("acknowledgements", enough).await;
        // Not a wait for anything: it moves the kill to any moment of a commit.
        tokio::time::sleep(later).await;
        convoy.kill().await;
        within("the writers' end", async { while writers.join_next().await.is_some() {} }).await;
    }
    check(&Child::start(&home).await, rounds, &book).await;
    let book = book.lock().await;
    println!("{rounds} kills, {} acknowledged writes, none lost", book.acknowledgements);
    assert!(book.acknowledged.values().any(Option::is_none), "something was removed");
}
