//! Random histories of one session and one client that is as careless as clients may be: it changes its mind while
//! responses are on their way, answers late, refuses, and comes back. Whatever happens: it is sent only what it asks for,
//! in the end it has what there is, and what the session believes that it has accepted is what it has.
//!
//! A failing seed is printed; `SEED=n` replays it alone.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const HISTORIES: u64 = 3_000;
const STEPS: usize = 60;
const NAMES: [&str; 5] = ["a", "b", "c", "hidden", "hidden2"];
/// A content that begins like this is refused.
const BAD: &str = "bad";

struct Client {
    bench: Bench,
    random: StdRng,
    kind: ResourceType,
    wildcard: bool,
    wanted: BTreeSet<&'static str>,
    /// Version (none in the state of the world) and content by name.
    held: BTreeMap<String, (String, String)>,
    inbox: VecDeque<Seen>,
    /// Of the state of the world: nonce of the last response, and version of the last that was accepted.
    nonce: String,
    version: String,
    changes: u64,
    /// Of the state of the world nobody knows what a client had before it came back, until it accepts a full set.
    is_unknown: bool,
}

impl Client {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let dialect = BOTH[random.random_range(0..2)];
        let kind = [CDS, EDS][random.random_range(0..2)];
        let mut client = Self {
            bench: Bench::new(dialect),
            random,
            kind,
            wildcard: false,
            wanted: BTreeSet::new(),
            held: BTreeMap::new(),
            inbox: VecDeque::new(),
            nonce: String::new(),
            version: String::new(),
            changes: 0,
            is_unknown: false,
        };
        client.open();
        client
    }

    fn incremental(&self) -> bool {
        self.bench.dialect == Dialect::Incremental
    }

    /// The first request of a stream: names what it wants, and what it has.
    fn open(&mut self) {
        if self.wanted.is_empty() && !self.wildcard {
            self.wildcard = self.kind == CDS && self.random.random_bool(0.7);
            if !self.wildcard {
                self.wanted = ["a", "b"].into();
            }
        }
        self.inbox.clear();
        self.nonce.clear();
        let names = self.names();
        if self.incremental() {
            let versions: Vec<(&str, String)> =
                self.held.iter().map(|(name, (version, _))| (name.as_str(), version.clone())).collect();
            self.bench.resume(self.kind, &names, &versions);
        } else {
            self.say(None);
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.wildcard.then_some("*").into_iter().chain(self.wanted.iter().copied()).collect()
    }

    fn follows(&self, name: &str) -> bool {
        self.wanted.contains(name) || (self.wildcard && self.bench.shelf.in_wildcard(self.kind, name))
    }

    /// State of the world: one request says everything.
    fn say(&mut self, error: Option<&str>) {
        let after = Seen { nonce: self.nonce.clone(), version: self.version.clone(), ..Seen::default() };
        let names = self.names();
        self.bench.ask(self.kind, &names, &after, error);
    }

    fn step(&mut self) {
        match self.random.random_range(0..12) {
            0..3 => self.change_resource(),
            3..5 => self.change_mind(),
            5 => self.bench.pass(Duration::from_millis(600)),
            6 if self.random.random_bool(0.3) => {
                self.bench.reconnect();
                self.is_unknown = !self.incremental();
                self.open();
            }
            6..9 => self.poll(),
            _ => self.take(),
        }
    }

    fn a_name(&mut self) -> &'static str {
        NAMES[self.random.random_range(0..NAMES.len())]
    }

    fn change_resource(&mut self) {
        let name = self.a_name();
        self.changes += 1;
        match self.random.random_range(0..6) {
            0 => self.bench.remove(self.kind, name),
            1 => self.bench.change(self.kind, name, &format!("{BAD}{}", self.changes)),
            // Few contents, so that some come back.
            _ => self.bench.change(self.kind, name, &(self.changes % 3).to_string()),
        }
    }

    fn change_mind(&mut self) {
        // What is said before the last response has come is not heard, and names may come and go unheard.
        if !self.incremental() && !self.inbox.is_empty() {
            return;
        }
        let name = self.a_name();
        if self.kind == CDS && self.random.random_bool(0.2) {
            self.wildcard = !self.wildcard;
            if self.incremental() {
                let (subscribe, unsubscribe) =
                    if self.wildcard { (&["*"][..], &[][..]) } else { (&[][..], &["*"][..]) };
                self.bench.subscribe(self.kind, subscribe, unsubscribe);
            }
        } else if self.wanted.remove(name) {
            if self.incremental() {
                self.bench.subscribe(self.kind, &[], &[name]);
            }
        } else {
            self.wanted.insert(name);
            if self.incremental() {
                self.bench.subscribe(self.kind, &[name], &[]);
            }
        }
        if !self.incremental() {
            self.say(None);
        }
        // Beside a wildcard it waits to be told.
        if !(self.incremental() && self.wildcard) {
            let (wanted, wildcard) = (&self.wanted, self.wildcard);
            self.held.retain(|name, _| wildcard || wanted.contains(name.as_str()));
        }
    }

    fn poll(&mut self) {
        if let Some(seen) = self.bench.poll() {
            for name in seen.resources.keys() {
                assert!(self.follows(name), "rule 33: {name} is not asked for");
            }
            self.inbox.push_back(seen);
        }
    }

    fn take(&mut self) {
        let Some(seen) = self.inbox.pop_front() else { return };
        self.nonce = seen.nonce.clone();
        let bad: Vec<&str> =
            seen.resources.iter().filter(|(_, content)| content.starts_with(BAD)).map(|(name, _)| &**name).collect();
        if !bad.is_empty() {
            let message = bad.join(", ") + ": bad";
            return if self.incremental() { self.bench.nack(&seen, &message) } else { self.say(Some(&message)) };
        }
        if !self.incremental() && self.kind == CDS {
            self.held.clear();
            self.is_unknown = false;
        }
        for (name, content) in &seen.resources {
            if self.wanted.contains(name.as_str()) || self.wildcard {
                let version = seen.versions.get(name).cloned().unwrap_or_default();
                self.held.insert(name.clone(), (version, content.clone()));
            }
        }
        seen.removed.iter().for_each(|name| drop(self.held.remove(name)));
        self.version = seen.version.clone();
        if self.incremental() {
            self.bench.ack(&seen);
        } else {
            self.say(None);
        }
    }

    /// Nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.bench.pass(Duration::from_secs(1));
            self.poll();
            while !self.inbox.is_empty() {
                self.take();
                self.poll();
            }
        }
        self.bench.silent();
    }

    fn check(&self) {
        let absence_is_told = self.incremental() || (self.kind == CDS && !self.is_unknown);
        for name in NAMES {
            let there = self.bench.shelf.0.get(&(self.kind, name.into())).filter(|_| self.follows(name));
            let held = self.held.get(name).map(|(_, content)| content.as_str());
            let content = there.map(|there| String::from_utf8(there.body().to_vec()).expect("text"));
            let content = content.as_deref().and_then(|text| text.split_once('=')).map(|(_, content)| content);
            match content {
                // The one before, if there was one.
                Some(content) if content.starts_with(BAD) => {
                    assert!(held.is_none_or(|held| !held.starts_with(BAD)), "{name}");
                    assert!(
                        self.bench.session.lags(self.kind, name, Revision(u64::MAX)).is_some(),
                        "{name} was refused"
                    );
                }
                None if !absence_is_told => {}
                _ => assert_eq!(held, content, "{name}"),
            }
        }
        if self.incremental() {
            let holdings = self.bench.session.holdings().into_iter();
            let believed: BTreeMap<String, String> =
                holdings.filter_map(|holding| Some((holding.name.to_string(), holding.acked?.to_string()))).collect();
            let held = self.held.iter().map(|(name, (version, _))| (name.clone(), version.clone())).collect();
            assert_eq!(believed, held, "what the session believes that the client has");
        }
        let refused = |holding: &crate::xds::standing::Holding| holding.rejected;
        assert!(
            self.bench
                .session
                .holdings()
                .iter()
                .filter(|holding| !refused(holding))
                .all(|holding| { self.bench.session.lags(self.kind, &holding.name, Revision(u64::MAX)).is_none() })
        );
    }
}

#[test]
fn whatever_a_client_does_it_ends_with_what_there_is() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..HISTORIES).collect(),
    };
    for seed in seeds {
        let history = std::panic::catch_unwind(|| {
            let mut client = Client::new(seed);
            (0..STEPS).for_each(|_| client.step());
            client.settle();
            client.check();
        });
        if let Err(panic) = history {
            eprintln!("the history of seed {seed} has failed");
            std::panic::resume_unwind(panic);
        }
    }
}
