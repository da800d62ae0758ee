//! Thresholds, grace and evictions as tables; the spread; and histories from seeds, whose invariants hold at every step.

use super::*;
use crate::model::{Probe, parse};

fn check() -> Check {
    Check {
        name: "alive".into(),
        kind: CheckKind::Liveness,
        port: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        jitter_percent: 0,
        healthy: Threshold::in_a_row(1),
        unhealthy: Threshold::in_a_row(1),
        grace: Duration::ZERO,
        deregister_after: None,
        probe: Probe::Tcp { tls: None },
    }
}

fn target(number: u32, check: &Check) -> Target {
    Target {
        instance: parse::instance_key("", "web", &format!("web-{number}")).expect("a key"),
        incarnation: Incarnation(1),
        check: Arc::new(check.clone()),
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        http2: false,
    }
}

const NEW: Known = Known { status: CheckStatus::Pending, lasts_ms: 0, registered_ms: 0 };

fn known(status: CheckStatus, lasts_ms: u64) -> Known {
    Known { status, lasts_ms, registered_ms: lasts_ms }
}

impl Schedule {
    /// Over the targets of one service, one by one.
    fn counts_of(&self, service: &ServiceKey) -> Counts {
        let mut counts = Counts::default();
        let indices = self.services.get(service).into_iter().flat_map(BTreeMap::values);
        for slot in indices.filter_map(|&index| self.slots[index].as_ref()) {
            counts.count(slot.status, true);
        }
        counts
    }
}

/// Goes on to the next probe, and answers it.
fn step(schedule: &mut Schedule, finding: Finding) -> (u64, Option<Turn>) {
    let at = schedule.next_ms().expect("a probe");
    let (ticket, _) = schedule.take_due(at).expect("due");
    (at, schedule.done(ticket, finding, at).expect("its target stands").1)
}

#[test]
fn a_probe_that_says_nothing_turns_nothing_and_comes_again() {
    let mut schedule = Schedule::new(0, 1);
    schedule.set(target(1, &check()), known(CheckStatus::Passing, 0), 0);
    let at = schedule.next_ms().expect("a probe");
    let (ticket, _) = schedule.take_due(at).expect("due");
    assert_eq!(schedule.next_ms(), None);
    schedule.put_off(ticket, at + 60_000);
    assert_eq!(schedule.counts(), Counts { targets: 1, passing: 1 });
    let again = schedule.next_ms().expect("another probe");
    assert!((at + 60_000..at + 70_001).contains(&again), "{again}");
    assert_eq!(schedule.done(ticket, Finding::Bad, again), None, "its result comes too late");
}

/// The turns of one target for findings written as letters: good, bad, degraded. `.` is no turn.
fn turns(check: &Check, from: CheckStatus, findings: &str) -> String {
    let mut schedule = Schedule::new(0, 1);
    schedule.set(target(1, check), known(from, 0), 0);
    let letter = |turn| match turn {
        None => '.',
        Some(Turn::To(CheckStatus::Passing)) => 'P',
        Some(Turn::To(CheckStatus::Degraded)) => 'D',
        Some(Turn::To(CheckStatus::Failing)) => 'F',
        Some(Turn::To(CheckStatus::Pending)) => '?',
        Some(Turn::Evict) => 'E',
    };
    let finding = |letter| match letter {
        'g' => Finding::Good,
        'd' => Finding::Degraded,
        _ => Finding::Bad,
    };
    findings.chars().map(|found| letter(step(&mut schedule, finding(found)).1)).collect()
}

#[test]
fn a_status_changes_when_so_many_of_so_many_say_so() {
    use CheckStatus::{Degraded, Failing, Passing, Pending};
    let of = |count, of| Threshold { count, of };
    for (healthy, unhealthy, from, findings, expected) in [
        (of(1, 1), of(3, 3), Pending, "g", "P"),
        (of(1, 1), of(3, 3), Pending, "bbb", "..F"),
        (of(2, 2), of(3, 3), Pending, "ggbbb", ".P..F"),
        (of(2, 2), of(3, 3), Passing, "bbgbbgbbb", "........F"),
        (of(2, 2), of(3, 3), Failing, "gbgbggb", ".....P."),
        (of(1, 1), of(3, 5), Passing, "bgbgb", "....F"),
        (of(1, 1), of(3, 5), Passing, "bggbgb", "......"),
        (of(1, 1), of(3, 5), Passing, "bgbggbb", "......F"),
        // After a turn the count begins anew: what led to it does not lead back.
        (of(2, 4), of(2, 4), Passing, "gbgbggbb", "...F.P.F"),
        (of(1, 1), of(1, 1), Passing, "ddgdbd", "D.PDFD"),
        (of(2, 2), of(1, 1), Passing, "dgddggdg", "...D.P.."),
        (of(1, 1), of(3, 3), Degraded, "bbgbbb", "..P..F"),
        (of(2, 3), of(3, 3), Failing, "dbg", "..P"),
        (of(32, 32), of(32, 32), Failing, &"g".repeat(33), &format!("{}P.", ".".repeat(31))),
    ] {
        let check = Check { healthy, unhealthy, ..check() };
        assert_eq!(turns(&check, from, findings), expected, "{healthy:?} {unhealthy:?} {from:?} {findings}");
    }
}

#[test]
fn grace_forgives_those_that_never_passed() {
    let grace = Check { grace: Duration::from_secs(5), ..check() };
    // Probed at 0, 1, 3, 7, … s while nothing is known.
    assert_eq!(turns(&grace, CheckStatus::Pending, "bbbb"), "...F");
    assert_eq!(turns(&grace, CheckStatus::Pending, "bgb"), ".PF", "who has passed once is forgiven no more");
    let mut schedule = Schedule::new(0, 1);
    schedule.set(target(1, &grace), Known { registered_ms: 4_500, ..NEW }, 0);
    assert_eq!(step(&mut schedule, Finding::Bad), (0, None));
    assert_eq!(step(&mut schedule, Finding::Bad).1, Some(Turn::To(CheckStatus::Failing)), "registered 5.5 s ago");
}

#[test]
fn who_fails_for_long_is_to_be_removed_just_then() {
    let liveness = Check { deregister_after: Some(Duration::from_secs(25)), ..check() };
    let mut schedule = Schedule::new(7, 1);
    schedule.set(target(1, &liveness), NEW, 0);
    let (failed_at, turn) = step(&mut schedule, Finding::Bad);
    assert_eq!(turn, Some(Turn::To(CheckStatus::Failing)));
    let mut turn = (0, None);
    while turn.1.is_none() {
        turn = step(&mut schedule, Finding::Bad);
    }
    assert_eq!(turn, (failed_at + 25_000, Some(Turn::Evict)));
    assert_eq!(step(&mut schedule, Finding::Bad).1, Some(Turn::Evict), "said again until it is so");
    assert_eq!(step(&mut schedule, Finding::Good).1, Some(Turn::To(CheckStatus::Passing)));

    // A prober that comes later counts from when it began.
    let mut schedule = Schedule::new(7, 1);
    schedule.set(target(1, &liveness), known(CheckStatus::Failing, 24_999), 100);
    assert_eq!(step(&mut schedule, Finding::Bad), (101, Some(Turn::Evict)));
    let readiness = Check { kind: CheckKind::Readiness, ..liveness };
    assert_eq!(turns(&readiness, CheckStatus::Failing, "bbbbbb"), "......");
}

#[test]
fn who_is_new_is_probed_at_once_and_soon_again() {
    let mut schedule = Schedule::new(3, 1);
    schedule.set(target(1, &Check { unhealthy: Threshold::in_a_row(32), ..check() }), NEW, 500);
    let at: Vec<u64> = (0..5).map(|_| step(&mut schedule, Finding::Bad).0).collect();
    assert_eq!(at[..4], [500, 1_500, 3_500, 7_500]);
    assert!(at[4] - at[3] <= 10_000, "then at its place in the interval: {at:?}");
}

#[test]
fn probes_are_spread_evenly() {
    const TARGETS: u32 = 1_000;
    for (seed, jitter_percent) in [(0, 0), (1, 0), (0x5eed, 0), (u64::MAX, 10)] {
        let check = Check { jitter_percent, ..check() };
        let mut schedule = Schedule::new(seed, usize::MAX);
        for number in 0..TARGETS {
            schedule.set(target(number, &check), known(CheckStatus::Passing, 1_000_000), 0);
        }
        let mut by_tenth_second = [0u32; 100];
        while let Some(at) = schedule.next_ms().filter(|at| *at < 30_000) {
            let (ticket, _) = schedule.take_due(at).expect("due");
            schedule.done(ticket, Finding::Good, at);
            // The first probes come without jitter.
            if at >= 20_000 {
                by_tenth_second[(at - 20_000) as usize / 100] += 1;
            }
        }
        let (least, most) = (by_tenth_second.iter().min(), by_tenth_second.iter().max());
        let even = if jitter_percent == 0 { 8..=12 } else { 2..=25 };
        for count in [least, most] {
            assert!(even.contains(count.expect("a tenth of a second")), "seed {seed}: from {least:?} to {most:?}");
        }
        let sum: u32 = by_tenth_second.iter().sum();
        assert!((TARGETS * 9 / 10..=TARGETS * 11 / 10).contains(&sum), "each once: {sum}");
    }
}

#[test]
fn no_more_than_so_many_are_under_way() {
    let mut schedule = Schedule::new(0, 3);
    for number in 0..10 {
        schedule.set(target(number, &check()), NEW, number.into());
    }
    let tickets: Vec<_> = std::iter::from_fn(|| schedule.take_due(100)).collect();
    let first: Vec<_> = tickets.iter().map(|(_, target)| target.instance.id.to_string()).collect();
    assert_eq!(first, ["web-0", "web-1", "web-2"], "who has waited longest goes first");
    assert_eq!(schedule.next_ms(), None);
    schedule.done(tickets[1].0, Finding::Good, 150);
    assert_eq!(schedule.next_ms(), Some(3));
    assert!(schedule.done(tickets[1].0, Finding::Good, 150).is_none(), "a result counts once");
}

#[test]
fn a_target_that_changes_is_asked_anew() {
    let mut schedule = Schedule::new(0, 10);
    schedule.set(target(1, &check()), NEW, 0);
    let (ticket, old) = schedule.take_due(0).expect("due");
    let moved = Target { address: SocketAddr::from(([127, 0, 0, 2], 1)), ..Target::clone(&old) };
    schedule.set(moved.clone(), NEW, 10);
    assert!(schedule.done(ticket, Finding::Bad, 20).is_none(), "the old answer is to the old question");
    let (ticket, asked) = schedule.take_due(20).expect("due");
    assert_eq!(*asked, moved);
    schedule.done(ticket, Finding::Good, 30);
    assert_eq!(schedule.counts(), Counts { targets: 1, passing: 1 });
    // The same said again disturbs nothing.
    let next = schedule.next_ms();
    schedule.set(moved.clone(), NEW, 40);
    assert_eq!(schedule.next_ms(), next);
    // A new incarnation is somebody else.
    schedule.set(Target { incarnation: Incarnation(2), ..moved }, NEW, 50);
    assert_eq!((schedule.counts(), schedule.next_ms()), (Counts::default(), Some(50)));
}

/// Random targets come, change, go and answer; whatever happens, the counts are those of the targets, and nobody is
/// forgotten or asked twice at the same time.
#[test]
fn histories_from_seeds() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut schedule = Schedule::new(seed, 8);
        let (mut now, mut under_way, mut alive) = (0u64, Vec::new(), BTreeMap::new());
        for _ in 0..500 {
            now += random.random_range(0..2_000);
            let number = random.random_range(0..20u32);
            let key = TargetKey { instance: target(number, &check()).instance.id, check: "alive".into() };
            let service = target(number, &check()).instance.service;
            match random.random_range(0..10) {
                0 => {
                    let jitter_percent = random.random_range(0..=50);
                    schedule.set(target(number, &Check { jitter_percent, ..check() }), NEW, now);
                    alive.insert(key, ());
                }
                1 => {
                    schedule.remove(&service, &key);
                    alive.remove(&key);
                }
                2..6 => {
                    while let Some((ticket, target)) = schedule.take_due(now) {
                        under_way.push((ticket, target));
                    }
                }
                _ if under_way.is_empty() => {}
                _ => {
                    let (ticket, _) = under_way.swap_remove(random.random_range(0..under_way.len()));
                    let finding = [Finding::Good, Finding::Bad, Finding::Degraded][random.random_range(0..3)];
                    match random.random_bool(0.1) {
                        true => schedule.put_off(ticket, now),
                        false => drop(schedule.done(ticket, finding, now)),
                    }
                }
            }
            assert_eq!(schedule.len(), alive.len(), "seed {seed}");
            assert_eq!(schedule.counts(), schedule.counts_of(&service), "seed {seed}");
            assert_eq!(schedule.under_way.len(), under_way.len(), "seed {seed}");
            assert!(under_way.len() <= 8, "seed {seed}: also of those that changed or left while they were asked");
            let idle = schedule.slots.iter().flatten().filter(|slot| !slot.under_way).count();
            let due = schedule.due.iter().filter(|Reverse((_, index, generation))| {
                schedule.slots[*index].as_ref().is_some_and(|slot| slot.generation == *generation && !slot.under_way)
            });
            assert_eq!(due.count(), idle, "seed {seed}: who is not asked now will be");
        }
    }
}
