//! What many events come to, as a table; then random histories with random watches, which are slow, and are cut off, and
//! come back: at every token that they are given, what they were told is what there was.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::{
    changes::{Aspect, Changes},
    log::Entry,
    *,
};
use crate::{
    model::{
        Incarnation, InstanceKey, InstanceSpec, LeaseId, Limits, Locality, Port, PortName, Protocol, RemovalCause,
        Revision, UnixMillis, parse,
        selector::instance::{InstanceSelector, Knows},
    },
    registry::state::{Event, EventKind, Snapshot},
    storage::memory::MemoryStore,
    telemetry::Metrics,
};

fn filter(selector: &str) -> Filter {
    let selector = InstanceSelector::parse("selector", selector, Knows::Stored).expect(selector);
    Filter { selector: Some(selector), ..Filter::default() }
}

fn spec(host: u8, weight: u16, label: u8) -> Arc<InstanceSpec> {
    let port = Port { name: PortName::parse("", "http").expect("a label"), number: 80, protocol: Protocol::Http };
    Arc::new(InstanceSpec {
        address: [10, 0, 0, host].into(),
        ports: [port].into(),
        weight,
        ready: true,
        labels: BTreeMap::from([("a".to_owned(), label.to_string())]).into(),
        capabilities: Arc::default(),
        locality: Arc::new(Locality::default()),
        sla: Arc::default(),
        description: "".into(),
        card: None,
    })
}

fn key(service: u8, id: u8) -> InstanceKey {
    parse::instance_key("", &format!("s{service}"), &id.to_string()).expect("a key")
}

/// The events of an instance that has these weights one after the other; none: it is not there.
fn events(id: u8, weights: &[Option<u16>]) -> Vec<Arc<Entry>> {
    let mut revision = Revision(1);
    let entry = |pair: &[Option<u16>]| {
        revision.0 += 1;
        let of = |weight: u16| {
            let instance = Instance::new(key(0, id), Incarnation(1), LeaseId(1), spec(id, weight, 0), UnixMillis(1));
            Versioned { revision, value: Arc::new(instance) }
        };
        let (before, after) = (pair[0].map(of), pair[1].map(of));
        let kind = match (&before, &after) {
            (None, _) => EventKind::Added,
            (_, Some(_)) => EventKind::Changed,
            _ => EventKind::Removed(RemovalCause::Expired),
        };
        let instance = after.or(before.clone()).expect("it is there before or after");
        Arc::new(Entry::new(Event { kind, revision, before, instance }, Position::after(revision)))
    };
    weights.windows(2).map(entry).collect()
}

#[test]
fn within_what_was_told_at_once_there_is_nothing_to_resume_from() {
    let (at, whole) = (|revision| Token::At(Position::after(Revision(revision))), |at| Position::after(Revision(at)));
    let merged = |after, until| Token::Merged { after: whole(after), until: whole(until), told: 1 };
    let log = EventLog::new(Revision(5));
    // All three are of one commit, of which the writes 11 to 30 are known only as what they came to.
    let of_one = events(1, &[None, Some(1), Some(2), None]).into_iter().map(|entry| entry.event.clone());
    let of_one = of_one.map(|event| Event { revision: Revision(30), ..event }).collect();
    log.push(of_one, Some((Revision(10), Revision(30))));
    log.publish(Revision(30));
    let entries = log.log.after(whole(10), 10).expect("all is there").entries;
    let tokens: Vec<Token> = entries.iter().map(|entry| entry.token()).collect();
    assert_eq!(tokens, [Token::Start, Token::Start, at(30)]);
    for (token, can) in [
        (at(10), true),
        (at(11), false),
        (Token::At(Position::within(Revision(30), 0)), false),
        (at(30), true),
        (merged(7, 10), true),
        (merged(7, 20), false),
        (merged(10, 30), false),
        (merged(5, 40), false),
        (merged(30, 40), true),
    ] {
        assert_eq!(log.log.can_resume(token), can, "{token}");
    }
    // What tells nothing of instances is a gap all the same.
    log.push(Vec::new(), Some((Revision(30), Revision(40))));
    assert!(!log.log.can_resume(at(35)) && log.log.can_resume(at(40)));
}

fn seen_by(filter: &Filter, entries: Vec<Arc<Entry>>) -> Vec<Told> {
    let see = |entry: Arc<Entry>| Seen::of(&entry, filter).map(|seen| Told { entry, seen });
    entries.into_iter().filter_map(see).collect()
}

#[test]
fn events_of_an_instance_come_to_one_or_none() {
    // It matches from 5 on.
    let filter = filter("instance.weight >= 5");
    let changed = Seen::Changed(Aspect::Weight.into());
    let removed = Seen::Removed(RemovalCause::Expired);
    let none = None;
    for (weights, expected) in [
        (&[none, Some(5)][..], Some((Seen::Added, 2))),
        (&[none, Some(5), Some(6)], Some((Seen::Added, 3))),
        (&[none, Some(1), Some(6)], Some((Seen::Added, 3))),
        (&[none, Some(5), none], None),
        (&[none, Some(5), Some(1)], None),
        (&[none, Some(5), Some(1), none], None),
        (&[none, Some(5), none, Some(6)], Some((Seen::Added, 4))),
        (&[Some(5), Some(6)], Some((changed, 2))),
        (&[Some(5), Some(6), Some(5)], Some((changed, 3))),
        (&[Some(5), Some(1)], Some((Seen::Left, 2))),
        (&[Some(5), Some(6), Some(1)], Some((Seen::Left, 3))),
        (&[Some(5), Some(1), Some(2), none], Some((Seen::Left, 2))),
        (&[Some(5), Some(1), Some(6)], Some((changed, 3))),
        (&[Some(5), none], Some((removed, 2))),
        (&[Some(5), Some(6), none], Some((removed, 3))),
        (&[Some(5), none, Some(6)], Some((changed, 3))),
        (&[Some(5), none, Some(1)], Some((removed, 2))),
        (&[Some(5), none, Some(6), none], Some((removed, 4))),
        (&[Some(5), none, Some(6), Some(1)], Some((Seen::Left, 4))),
        (&[Some(1), Some(2), none], None),
    ] {
        let merged = merge(seen_by(&filter, events(1, weights)));
        let told: Vec<_> = merged.iter().map(|told| (told.seen, told.entry.event.revision.0)).collect();
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{weights:?}");
    }
}

#[test]
fn what_is_merged_stands_where_it_last_happened() {
    let all = Filter::default();
    let mut both = [events(1, &[None, Some(1), Some(2), Some(3)]), events(2, &[Some(1), Some(2)])].concat();
    both.sort_by_key(|entry| entry.position);
    let told: Vec<_> = merge(seen_by(&all, both))
        .iter()
        .map(|told| (told.entry.event.instance.value.key.clone(), told.entry.event.revision.0))
        .collect();
    assert_eq!(told, [(key(0, 2), 2), (key(0, 1), 4)]);
}

#[derive(Clone, Debug)]
enum Happening {
    /// Several instances in one write.
    Put {
        service: u8,
        first: u8,
        count: u8,
        weight: u16,
        label: u8,
    },
    Remove {
        service: u8,
        id: u8,
    },
    /// A watch takes some steps.
    Take {
        watch: usize,
        steps: usize,
    },
    /// A watch is cut off, and comes back later with the token that it had last.
    Cut {
        watch: usize,
    },
    Open {
        filter: usize,
    },
    /// Long enough for bookmarks.
    Wait,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0u8..2, 0u8..5, 1u8..4, 0u16..8, 0u8..3)
            .prop_map(|(service, first, count, weight, label)| Happening::Put { service, first, count, weight, label }),
        4 => (0u8..2, 0u8..7).prop_map(|(service, id)| Happening::Remove { service, id }),
        4 => (0usize..9, 1usize..9).prop_map(|(watch, steps)| Happening::Take { watch, steps }),
        2 => (0usize..9).prop_map(|watch| Happening::Cut { watch }),
        1 => (0usize..6).prop_map(|filter| Happening::Open { filter }),
        1 => Just(Happening::Wait),
    ]
}

fn filters() -> [Filter; 6] {
    let service = |name: &str| Some(crate::model::ServiceName::parse("", name).expect("a name"));
    [
        Filter::default(),
        Filter { service: service("s1"), ..Filter::default() },
        filter("instance.weight >= 5"),
        filter("instance.labels.a == '1'"),
        filter("instance.labels.a in ['0', '2'] && instance.weight < 6"),
        Filter { service: service("s0"), ..filter("instance.id == '3' || instance.labels.a == '1'") },
    ]
}

/// What a client believes, and how it can tell that it is lied to.
struct Client {
    filter: Filter,
    watch: Option<Watch>,
    token: Option<String>,
    belief: BTreeMap<InstanceKey, Versioned<Instance>>,
    /// The last change that it was told of.
    last: Position,
    listing: bool,
}

impl Client {
    fn open(registry: &Registry, filter: Filter) -> Self {
        let watch = registry.watch(filter.clone(), None).expect("a watch");
        let (belief, last) = (BTreeMap::new(), Position::default());
        Self { filter, watch: Some(watch), token: None, belief, last, listing: true }
    }

    fn come_back(&mut self, registry: &Registry) {
        if self.watch.is_none() {
            if self.token.is_none() {
                self.belief.clear();
            }
            let watch = registry.watch(self.filter.clone(), self.token.as_deref());
            self.watch = Some(watch.expect("a watch"));
        }
    }

    /// Takes up to so many steps that are ready; false if there are none any more.
    async fn take(&mut self, world: &World, steps: usize) -> bool {
        self.come_back(&world.registry);
        for _ in 0..steps {
            let Some(step) = ready(self.watch.as_mut().expect("it has come back")).await else { return false };
            self.hear(step.0, step.1, world);
        }
        true
    }

    fn hear(&mut self, step: Step, token: Token, world: &World) {
        match step {
            Step::Reset => {
                self.belief.clear();
                self.listing = true;
            }
            Step::Present(instance) => {
                assert!(self.listing && self.filter.matches(&instance.value));
                let before = self.belief.insert(instance.value.key.clone(), instance);
                assert!(before.is_none(), "told twice of {before:?}");
            }
            Step::Synced => {
                assert!(std::mem::take(&mut self.listing));
                self.last = token.until();
            }
            Step::Bookmark => assert!(token.until() >= self.last, "a bookmark goes forward"),
            Step::Happened(told) => self.happened(&told),
        }
        self.token = Some(world.registry.token(token));
        if let Token::At(position) = token
            && position == Position::after(position.revision())
            && let Some(snapshot) = world.snapshots.get(&position.revision())
        {
            self.check(snapshot);
        }
    }

    fn happened(&mut self, told: &Told) {
        let event = &told.entry.event;
        assert!(!self.listing && told.entry.position > self.last, "{told:?} after {:?}", self.last);
        self.last = told.entry.position;
        let (key, instance) = (event.instance.value.key.clone(), event.instance.clone());
        let matches = self.filter.matches(&instance.value);
        let known = match told.seen {
            Seen::Added | Seen::Changed(_) => self.belief.insert(key, instance.clone()),
            Seen::Left | Seen::Removed(_) => self.belief.remove(&key),
        };
        match (told.seen, known) {
            (Seen::Added, None) => assert!(matches),
            (Seen::Changed(changes), Some(known)) => {
                let told = Changes::between(&known.value, &instance.value);
                assert!(matches && changes | told == changes, "{changes:?} has all of {told:?}");
            }
            (Seen::Left, Some(_)) => assert!(!matches),
            (Seen::Removed(_), Some(_)) => {}
            (seen, known) => panic!("a false {seen:?} of {known:?}"),
        }
    }

    fn check(&self, snapshot: &Snapshot) {
        let all = snapshot.services.values().flat_map(|service| service.instances.values());
        let there = all.filter(|instance| self.filter.matches(&instance.value));
        let expected: BTreeMap<_, _> = there.map(|instance| (instance.value.key.clone(), instance.clone())).collect();
        assert_eq!(self.belief, expected, "{:?} at {}", self.filter, snapshot.revision);
    }
}

/// The next step, if it is there when the matcher has had its turn.
async fn ready(watch: &mut Watch) -> Option<(Step, Token)> {
    for _ in 0..8 {
        if let Some(step) = watch.next().now_or_never() {
            return Some(step.expect("the registry runs"));
        }
        tokio::task::yield_now().await;
    }
    None
}

struct World {
    registry: Registry,
    snapshots: BTreeMap<Revision, Arc<Snapshot>>,
}

impl World {
    fn start() -> Self {
        let (store, opened) = MemoryStore::open("store".into());
        let metrics = Arc::new(Metrics::default());
        let registry = Registry::start(Arc::new(store), opened, Limits::default().into(), metrics).0;
        Self { snapshots: BTreeMap::from([(Revision(0), registry.snapshot())]), registry }
    }

    async fn put(&mut self, service: u8, first: u8, count: u8, weight: u16, label: u8) {
        let one = |id: u8| (key(service, id), spec(id + 1, weight + u16::from(id), label));
        let ttl = Some(Duration::from_secs(24 * 60 * 60));
        let put = self.registry.register(None, ttl, None, (first..first + count).map(one).collect());
        put.await.expect("registered");
        self.remember();
    }

    async fn remove(&mut self, service: u8, id: u8) {
        // One that is not there is refused, which is as good.
        let _ = self.registry.deregister(key(service, id), None).await;
        self.remember();
    }

    fn remember(&mut self) {
        let snapshot = self.registry.snapshot();
        self.snapshots.insert(snapshot.revision, snapshot);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_ahead_is_waited_for_and_not_for_long() {
    let mut world = World::start();
    let ahead = world.registry.token(Token::At(Position::after(Revision(2))));
    let registry = world.registry.clone();
    let mut waiting = Box::pin(registry.catch_up_with(&ahead));
    for id in 0..2 {
        assert!(waiting.as_mut().now_or_never().is_none(), "{id} of what it speaks of has happened");
        world.put(0, id, 1, 1, 0).await;
    }
    let begun = Instant::now();
    waiting.await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let never = world.registry.token(Token::At(Position::after(Revision(9))));
    world.registry.catch_up_with(&never).await;
    assert_eq!(begun.elapsed(), TOKEN_PATIENCE);
    world.registry.catch_up_with("of another store").await;
    assert_eq!(begun.elapsed(), TOKEN_PATIENCE);
}

async fn live(happenings: Vec<Happening>) {
    let mut world = World::start();
    let mut clients: Vec<Client> =
        filters().into_iter().take(3).map(|filter| Client::open(&world.registry, filter)).collect();
    for happening in happenings {
        let count = clients.len();
        match happening {
            Happening::Put { service, first, count, weight, label } => {
                world.put(service, first, count, weight, label).await;
            }
            Happening::Remove { service, id } => world.remove(service, id).await,
            Happening::Take { watch, steps } => drop(clients[watch % count].take(&world, steps).await),
            Happening::Cut { watch } => clients[watch % count].watch = None,
            Happening::Open { filter } => clients.push(Client::open(&world.registry, filters()[filter].clone())),
            Happening::Wait => tokio::time::advance(BOOKMARK_INTERVAL + Duration::from_secs(1)).await,
        }
    }
    for client in &mut clients {
        while client.take(&world, 1).await {}
        client.check(&world.registry.snapshot());
    }
}

fn run(live: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(live);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_told_is_what_there_was(happenings in proptest::collection::vec(happening(), 1..120)) {
        run(live(happenings));
    }
}
