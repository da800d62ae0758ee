//! The brake: who is kept, who goes, and that it always ends.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    model::BrakeScope,
    registry::brake::{Brake, BrakeConfig, Decision, Group, Now, Release},
};

const MINUTE_MS: u64 = 60_000;

/// A book with its brake, which hears of all that happens.
struct Road {
    book: Book,
    brake: Brake,
    now_ms: u64,
    silent: bool,
    leases: Vec<LeaseId>,
}

impl Road {
    /// Each service with so many instances, each with a lease of its own.
    fn new(services: &[(&str, usize)]) -> Self {
        let brake = Brake::new(BrakeConfig::default());
        let mut road = Self { book: Book::default(), brake, now_ms: 0, silent: false, leases: Vec::new() };
        for (service, count) in services {
            for number in 0..*count {
                road.join(&format!("{service}/{number}"), spec_in("", number));
            }
        }
        road
    }

    fn join(&mut self, name: &str, spec: InstanceSpec) -> LeaseId {
        let lease = self.book.register(&[(name, spec)]).expect("registered");
        self.follow();
        self.leases.push(lease);
        lease
    }

    fn follow(&mut self) {
        for event in &self.book.effects.events {
            self.brake.follow(event, self.now_ms);
        }
        for lease in &self.book.effects.leases_gone {
            self.brake.gone(*lease);
        }
    }

    fn now(&self) -> Now {
        Now { observed_ms: self.now_ms, unix: UnixMillis(1_000 + self.now_ms) }
    }

    fn overdue(&mut self, leases: &[LeaseId]) {
        for lease in leases {
            self.brake.overdue(*lease, &self.book.state);
        }
    }

    /// The lease's time is over: it goes, or is kept.
    fn lapse(&mut self, lease: LeaseId) -> Decision {
        let decision = self.brake.lapse(lease, &self.book.state, self.now(), self.silent, |_| false);
        match decision {
            Decision::Expire => self.expire(lease),
            Decision::Keep(scope) => {
                self.book.now = self.now().unix;
                self.book.run(&Command::Lapse { lease, scope }).expect("planned");
            }
        }
        self.follow();
        decision
    }

    fn expire(&mut self, lease: LeaseId) {
        self.book.expire(lease);
        self.follow();
    }

    fn returned(&mut self, lease: LeaseId) {
        if self.brake.returned(lease, &self.book.state) {
            self.book.run(&Command::Restore(lease)).expect("planned");
            self.follow();
        }
    }

    /// Everybody's heartbeats but these stop at the same time, and then they lapse; how many are kept.
    fn crash(&mut self, leases: &[LeaseId]) -> usize {
        self.overdue(leases);
        leases.iter().filter(|lease| matches!(self.lapse(**lease), Decision::Keep(_))).count()
    }

    fn pass(&mut self, ms: u64) -> usize {
        self.now_ms += ms;
        let going = self.brake.tick(&self.book.state, self.now_ms);
        for lease in &going {
            self.expire(*lease);
        }
        going.len()
    }

    fn verdicts(&self, service: &str) -> Vec<Verdict> {
        let state = &self.book.snapshot().services[&self::service(service)];
        state.instances.values().map(|instance| instance.value.verdict()).collect()
    }
}

fn spec_in(zone: &str, number: usize) -> InstanceSpec {
    let locality = Locality { zone: zone.into(), ..Locality::default() };
    let address = [10, 0, (number >> 8) as u8, number as u8].into();
    InstanceSpec { address, locality: Arc::new(locality), ..spec(0) }
}

#[test]
fn a_crash_of_few_is_not_braked_and_of_many_is() {
    for (of, crashed, kept) in [
        (3, 1, 0),
        (100, 20, 0),
        (100, 30, 0),
        (100, 31, 31),
        (10, 3, 0),
        (2, 2, 2),
        (1, 1, 1),
        (10, 9, 9),
        (100, 90, 90),
    ] {
        // Enough others that the intake as a whole is well.
        let mut road = Road::new(&[("web", of), ("other", 1000)]);
        let leases = road.leases[..crashed].to_vec();
        assert_eq!(road.crash(&leases), kept, "{crashed} of {of}");
        let suspects = road.verdicts("web").iter().filter(|verdict| **verdict == Verdict::Suspect).count();
        assert_eq!((suspects, road.verdicts("web").len()), (kept, of - (crashed - kept)), "{crashed} of {of}");
    }
}

#[test]
fn those_that_deregister_go_at_once() {
    let mut road = Road::new(&[("web", 10), ("other", 1000)]);
    for number in 1..10 {
        road.book.deregister(&format!("web/{number}"), None).expect("deregistered");
        road.follow();
    }
    assert_eq!(road.verdicts("web"), [Verdict::Healthy]);
    assert!(road.brake.status(&road.book.state).is_empty());
}

#[test]
fn a_partition_of_all_is_taken_for_blindness() {
    let mut road = Road::new(&[("web", 5), ("api", 5)]);
    let leases = road.leases.clone();
    road.silent = true;
    road.overdue(&leases);
    for lease in &leases {
        assert_eq!(road.lapse(*lease), Decision::Keep(BrakeScope::Blind));
    }
    let status = road.brake.status(&road.book.state);
    assert_eq!((status.len(), &status[0].group, status[0].overdue, status[0].leases), (1, &Group::Intake, 10, 10));
    road.now_ms += 30_000;
    leases.iter().for_each(|lease| road.returned(*lease));
    assert_eq!(road.verdicts("web"), [Verdict::Healthy; 5]);
    assert!(road.brake.status(&road.book.state).is_empty());
}

#[test]
fn a_zone_is_counted_over_its_services() {
    let mut road = Road::new(&[("other", 1000)]);
    let zoned: Vec<LeaseId> = (0..40)
        .map(|number| {
            let zone = if number % 4 == 0 { "a" } else { "b" };
            road.join(&format!("s{number}/1"), spec_in(zone, number))
        })
        .collect();
    // Each of these services has somebody elsewhere, so that the zone alone is the reason.
    for number in 0..40 {
        road.join(&format!("s{number}/2"), spec_in("", 1000 + number));
    }
    let of_a: Vec<LeaseId> = zoned.iter().step_by(4).copied().collect();
    road.overdue(&of_a[..4]);
    for lease in &of_a[..4] {
        assert_eq!(road.lapse(*lease), Decision::Keep(BrakeScope::Zone));
    }
}

#[test]
fn it_ends_after_the_longest_time() {
    let mut road = Road::new(&[("web", 2), ("other", 100)]);
    let leases = road.leases[..2].to_vec();
    assert_eq!(road.crash(&leases), 2);
    assert_eq!(road.pass(MINUTE_MS - 1), 0);
    assert_eq!(road.pass(1), 2);
    assert!(road.verdicts("web").is_empty());
}

#[test]
fn it_ends_when_there_are_few_enough_for_as_long_as_a_heartbeat_takes() {
    let mut road = Road::new(&[("web", 100), ("other", 1000)]);
    let leases = road.leases[..50].to_vec();
    assert_eq!(road.crash(&leases), 50);
    assert_eq!(road.pass(1_000), 0);
    leases[..25].iter().for_each(|lease| road.returned(*lease));
    assert_eq!(road.pass(1_000), 0, "few enough from now on");
    leases[25..35].iter().for_each(|lease| road.returned(*lease));
    assert_eq!(road.pass(9_999), 0);
    assert_eq!(road.pass(1), 15, "those that did not return");
}

#[test]
fn an_operator_ends_it() {
    let mut road = Road::new(&[("web", 2), ("api", 2), ("other", 100)]);
    let leases = road.leases[..4].to_vec();
    assert_eq!(road.crash(&leases), 4);
    assert_eq!(road.brake.release(&Release::Named(BrakeScope::Service, "default/web".into())).len(), 2);
    assert_eq!(road.brake.release(&Release::All).len(), 2);
    assert!(road.brake.status(&road.book.state).is_empty());
}

#[test]
fn who_was_let_go_by_an_operator_is_not_kept_again() {
    let mut road = Road::new(&[("web", 2), ("other", 100)]);
    let leases = road.leases[..2].to_vec();
    assert_eq!(road.crash(&leases), 2);
    assert_eq!(road.brake.release(&Release::All).len(), 2);
    // The store could not take the expiry: the lease lapses once more.
    assert_eq!(road.lapse(leases[0]), Decision::Expire);
    // The other was heard meanwhile: what it does later is another matter.
    road.returned(leases[1]);
    assert_eq!(road.lapse(leases[1]), Decision::Keep(BrakeScope::Service));
}

#[test]
fn who_does_not_serve_is_not_kept() {
    let mut road = Road::new(&[("other", 100)]);
    let not_ready = road.join("web/1", InstanceSpec { ready: false, ..spec(1) });
    let draining = road.join("api/1", spec(2));
    road.book.drain("api/1", None).expect("drained");
    road.follow();
    for lease in [not_ready, draining] {
        assert_eq!(road.lapse(lease), Decision::Expire);
    }
    let left_out = road.join("batch/1", spec(3));
    let patch = crate::model::ServicePatch { brake: Some(false), ..Default::default() };
    road.book.run(&Command::PutService { key: service("batch"), patch }).expect("put");
    assert_eq!(road.lapse(left_out), Decision::Expire);
}

#[test]
fn a_probe_that_is_believed_speaks_for_the_dead() {
    let mut road = Road::new(&[("web", 2), ("other", 100)]);
    let leases = road.leases[..2].to_vec();
    road.overdue(&leases);
    let now = road.now();
    assert_eq!(road.brake.lapse(leases[0], &road.book.state, now, false, |_| true), Decision::Expire);
}

#[test]
fn a_restart_does_not_begin_its_time_anew() {
    let mut road = Road::new(&[("web", 2), ("other", 100)]);
    let leases = road.leases[..2].to_vec();
    road.crash(&leases);
    // Another Convoy, which has loaded what this one stored.
    road.brake = Brake::new(BrakeConfig::default());
    road.now_ms += 45_000;
    road.overdue(&leases);
    assert_eq!(road.lapse(leases[0]), Decision::Keep(BrakeScope::Service));
    assert_eq!(road.pass(14_999), 0);
    assert_eq!(road.pass(1), 1);
    road.now_ms += 1;
    assert_eq!(road.lapse(leases[1]), Decision::Expire);
}

#[derive(Clone, Debug)]
enum Turn {
    Overdue(usize),
    Lapse(usize),
    Return(usize),
    Pass(u64),
    Deregister(usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (0usize..24).prop_map(Turn::Overdue),
        3 => (0usize..24).prop_map(Turn::Lapse),
        2 => (0usize..24).prop_map(Turn::Return),
        2 => (1u64..20_000).prop_map(Turn::Pass),
        1 => (0usize..24).prop_map(Turn::Deregister),
    ]
}

proptest! {
    /// Counts stay right, only suspects are kept and are shown, and whatever happened it is over after the longest time.
    #[test]
    fn it_never_lies_and_always_ends(turns in prop::collection::vec(turn(), 1..120)) {
        let mut road = Road::new(&[("web", 12), ("api", 8), ("one", 1), ("two", 3)]);
        for turn in turns {
            match turn {
                Turn::Overdue(at) => road.overdue(&[road.leases[at]].clone()),
                Turn::Lapse(at) if road.book.state.lease_ttl(road.leases[at]).is_some() => drop(road.lapse(road.leases[at])),
                Turn::Return(at) => road.returned(road.leases[at]),
                Turn::Pass(ms) => drop(road.pass(ms)),
                Turn::Deregister(at) => {
                    let member = road.book.state.members(road.leases[at]).next().map(|of| of.value.key.clone());
                    if let Some(key) = member {
                        road.book.run(&Command::Deregister { key, incarnation: None }).expect("deregistered");
                        road.follow();
                    }
                }
                Turn::Lapse(_) => {}
            }
            let suspects: usize = ["web", "api", "one", "two"]
                .iter()
                .map(|name| road.verdicts(name).iter().filter(|verdict| **verdict == Verdict::Suspect).count())
                .sum();
            let kept: usize = road.brake.status(&road.book.state).iter().map(|group| group.leases).sum();
            let alive = road.leases.iter().filter(|lease| road.book.state.lease_ttl(**lease).is_some()).count();
            prop_assert!(road.brake.overdue_count() <= alive, "nobody who is gone is counted");
            prop_assert_eq!(suspects, kept, "everybody who is kept is a suspect, and nobody else");
        }
        let left: Vec<LeaseId> = road.leases.clone();
        road.pass(Duration::from_secs(60).as_millis() as u64);
        prop_assert!(road.brake.status(&road.book.state).is_empty());
        let alive: usize = left.iter().filter(|lease| road.book.state.lease_ttl(**lease).is_some()).count();
        let healthy: usize = ["web", "api", "one", "two"].iter().map(|name| road.verdicts(name).len()).sum();
        prop_assert_eq!(alive, healthy);
    }
}
