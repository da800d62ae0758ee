//! The closed loop: agents of different capacities, and requests that follow the weights; from seeds.

use std::time::Duration;

use convoy_client::proto::Load;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::weights::{Seen, Weights};
use crate::model::{Incarnation, InstanceId, LoadPolicy, Share};

const FULL: u32 = 100;

/// An agent that gets its part of the requests, and reports what that makes of it.
struct Agent {
    id: InstanceId,
    /// Requests a second at which it is fully used.
    capacity: f64,
    /// What it does beside the requests.
    beside: f64,
    errors: f64,
    share: u32,
    in_traffic: bool,
    born_ms: u64,
    /// It reports so often, counted from its own beginning.
    every_ms: u64,
    said: Option<(u64, Load)>,
    /// Of the last seconds: what is reported is a mean.
    used: f64,
}

struct World {
    agents: Vec<Agent>,
    rate: f64,
    policy: LoadPolicy,
    weights: Weights,
    now_ms: u64,
    random: StdRng,
    batches: Vec<u64>,
    /// Each change of a share: when, whose, from, to.
    changes: Vec<(u64, usize, u32, u32)>,
}

fn id(index: usize) -> InstanceId {
    InstanceId::parse("id", &format!("a-{index}")).expect("an id")
}

fn agent(index: usize, capacity: f64) -> Agent {
    Agent {
        id: id(index),
        capacity,
        beside: 0.0,
        errors: 0.0,
        share: FULL,
        in_traffic: true,
        born_ms: 0,
        every_ms: 10_000,
        said: None,
        used: 0.0,
    }
}

impl World {
    fn new(seed: u64, capacities: &[f64], rate: f64) -> Self {
        Self {
            agents: capacities.iter().enumerate().map(|(index, capacity)| agent(index, *capacity)).collect(),
            rate,
            policy: LoadPolicy::default(),
            weights: Weights::default(),
            now_ms: 1_000_000,
            random: StdRng::seed_from_u64(seed),
            batches: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn part(&self, index: usize) -> f64 {
        let all: u32 = self.agents.iter().filter(|agent| agent.in_traffic).map(|agent| agent.share).sum();
        f64::from(self.agents[index].share) / f64::from(all)
    }

    fn used(&self, index: usize) -> f64 {
        let agent = &self.agents[index];
        agent.beside + self.part(index) * self.rate / agent.capacity
    }

    fn second(&mut self) {
        self.now_ms += 1_000;
        for index in 0..self.agents.len() {
            let (used, noise) = (self.used(index), self.random.random_range(0.97..1.03));
            let (now_ms, offset) = (self.now_ms, 1_000 * (index as u64 * 7 % 10));
            let agent = &mut self.agents[index];
            agent.used += (used.min(1.5) * noise - agent.used) * 0.3;
            if (now_ms + offset).is_multiple_of(agent.every_ms) {
                let load = Load { cpu: Some(agent.used), error_rate: Some(agent.errors), ..Load::default() };
                agent.said = Some((now_ms, load));
            }
        }
        let now_ms = self.now_ms;
        let seen: Vec<Seen<'_>> = self
            .agents
            .iter()
            .map(|agent| Seen {
                id: &agent.id,
                incarnation: Incarnation(1),
                share: Share::of_percent(agent.share),
                in_traffic: agent.in_traffic,
                since: Duration::from_millis(now_ms.saturating_sub(agent.born_ms)),
                report: agent.said.as_ref().map(|(at_ms, load)| (*at_ms, load)),
            })
            .collect();
        let batch = self.weights.step(self.now_ms, &self.policy, &seen);
        if !batch.is_empty() {
            self.batches.push(self.now_ms);
        }
        for (changed, _, share) in batch {
            let index = self.agents.iter().position(|agent| agent.id == changed).expect("a known one");
            self.changes.push((self.now_ms, index, self.agents[index].share, share.percent()));
            self.agents[index].share = share.percent();
        }
    }

    fn seconds(&mut self, count: u32) {
        (0..count).for_each(|_| self.second());
    }

    fn shares(&self) -> Vec<u32> {
        self.agents.iter().map(|agent| agent.share).collect()
    }

    /// How often an agent's share turned from falling to growing or back since then.
    fn turns(&self, index: usize, since_ms: u64) -> usize {
        let ups = self.changes.iter().filter(|(at, of, _, _)| *at > since_ms && *of == index);
        let ups: Vec<bool> = ups.map(|(_, _, from, to)| to > from).collect();
        ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    fn is_capped(&self) -> bool {
        let interval = self.policy.interval.as_millis() as u64;
        self.batches.windows(2).all(|pair| pair[1] - pair[0] >= interval)
    }
}

/// The function, as it is documented: of what is reported for long, shares follow, to the nearest step.
#[test]
fn shares_are_what_the_function_says() {
    for (loads, expected) in [
        (&[0.9, 0.3][..], &[22.9, 100.0][..]),
        (&[0.5, 0.5], &[100.0, 100.0]),
        (&[1.0, 1.0, 1.0], &[100.0, 100.0, 100.0]),
        (&[0.6, 0.5], &[77.9, 100.0]),
        (&[0.52, 0.5], &[100.0, 100.0]),
        (&[2.0, 0.0], &[10.0, 100.0]),
        // The others' means are 0.5, 0.8 and 0.7.
        (&[1.0, 0.4, 0.6], &[36.0, 100.0, 100.0]),
    ] {
        let mut world = World::new(1, &vec![1.0; loads.len()], 0.0);
        for (agent, load) in world.agents.iter_mut().zip(loads) {
            (agent.beside, agent.used) = (*load, *load);
        }
        // Without the noise of the measurement.
        for second in 0..120_u64 {
            for agent in &mut world.agents {
                agent.every_ms = u64::MAX;
                agent.said = Some((second * 1000 + 1_000_000, Load { cpu: Some(agent.beside), ..Load::default() }));
            }
            world.second();
        }
        for (share, expected) in world.shares().into_iter().zip(expected) {
            assert!((f64::from(share) / expected).ln().abs() < 0.08, "{loads:?}: {:?}", world.shares());
        }
    }
}

#[test]
fn different_capacities_converge_without_oscillation() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let capacities: Vec<f64> = (0..random.random_range(2..20)).map(|_| random.random_range(20.0..100.0)).collect();
        let total: f64 = capacities.iter().sum();
        let mut world = World::new(seed, &capacities, total * random.random_range(0.2..0.9));
        for agent in &mut world.agents {
            agent.every_ms = [1_000, 5_000, 10_000][random.random_range(0..3)];
        }
        let spread = |world: &World| {
            let used: Vec<f64> = (0..world.agents.len()).map(|index| world.used(index)).collect();
            used.iter().fold(0.0_f64, |most, used| most.max(*used))
                / used.iter().fold(f64::MAX, |least, used| least.min(*used))
        };
        let before = spread(&world);
        world.seconds(120);
        let settled = world.now_ms;
        world.seconds(600);
        let after = spread(&world);
        assert!(after <= before * 1.02, "seed {seed}: the most used over the least used: {before} → {after}");
        if before > 2.0 {
            assert!(after < before * 0.9, "seed {seed}: {before} → {after}");
        }
        for index in 0..world.agents.len() {
            let turns = world.turns(index, settled);
            assert!(turns <= 14, "seed {seed}: {turns} turns of {index} in ten minutes: {:?}", world.changes);
        }
        let late = world.changes.iter().filter(|(at, ..)| *at > settled).count();
        // What is left is the noise of the measurement: one step here and there.
        let large = world.changes.iter().filter(|(at, ..)| *at > settled + 60_000);
        let large = large.filter(|(_, _, from, to)| from.abs_diff(*to) > 7).count();
        assert_eq!(large, 0, "seed {seed}: {:?}", world.changes);
        assert!(late <= 8 * world.agents.len(), "seed {seed}: {late} changes after it settled");
        assert!(world.is_capped(), "seed {seed}");
    }
}

#[test]
fn an_overloaded_agent_is_relieved_and_recovers() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[100.0, 100.0, 100.0], 120.0);
        world.seconds(120);
        assert_eq!(world.shares(), [FULL; 3], "seed {seed}: all alike");
        // Something else runs there.
        world.agents[0].beside = 0.7;
        let at = world.now_ms;
        world.seconds(90);
        let share = world.shares()[0];
        assert!((20..=60).contains(&share), "seed {seed}: {share}");
        assert!(world.used(0) < 1.0, "seed {seed}: {} of what it can do", world.used(0));
        assert_eq!(world.shares()[1..], [FULL; 2], "seed {seed}");
        assert!(world.turns(0, at) <= 2, "seed {seed}: {:?}", world.changes);
        let at = world.now_ms;
        world.agents[0].beside = 0.0;
        world.seconds(120);
        assert!(world.shares()[0] >= 90, "seed {seed}: {:?}", world.shares());
        assert!(world.turns(0, at) <= 1, "seed {seed}: {:?}", world.changes);
        assert!(world.is_capped(), "seed {seed}");
    }
}

#[test]
fn who_fails_fast_attracts_nobody() {
    let mut world = World::new(3, &[100.0, 100.0, 100.0], 180.0);
    world.seconds(60);
    // It answers at once, with errors: it is hardly used.
    (world.agents[1].errors, world.agents[1].capacity) = (0.5, 10_000.0);
    world.seconds(120);
    let shares = world.shares();
    assert!(shares[1] <= 35 && shares[0] >= 90 && shares[2] >= 90, "{shares:?}");
}

#[test]
fn one_that_falls_silent_gets_its_share_back() {
    let mut world = World::new(4, &[100.0, 100.0], 60.0);
    world.agents[0].beside = 0.8;
    world.seconds(120);
    let share = world.shares()[0];
    assert!(share < 60, "{share}");
    world.agents[0].every_ms = u64::MAX;
    world.seconds(50);
    assert!(world.shares()[0] <= share + 20, "what was said a minute ago still counts");
    world.seconds(120);
    assert_eq!(world.shares(), [FULL; 2]);
}

#[test]
fn after_a_restart_shares_stay_until_agents_are_heard() {
    let mut world = World::new(5, &[100.0, 100.0], 60.0);
    world.agents[0].share = 31;
    world.agents.iter_mut().for_each(|agent| agent.every_ms = u64::MAX);
    world.seconds(50);
    assert_eq!(world.shares(), [31, FULL]);
    world.seconds(60);
    assert_eq!(world.shares(), [FULL; 2], "nobody reports any more");
}

#[test]
fn a_newcomer_starts_slowly_and_nobody_else_does() {
    let mut world = World::new(6, &[100.0, 100.0], 60.0);
    world.policy.slow_start = Duration::from_secs(60);
    world.seconds(60);
    assert_eq!(world.shares(), [FULL; 2]);
    let newcomer = Agent { share: 10, in_traffic: false, born_ms: world.now_ms, ..agent(2, 100.0) };
    world.agents.push(newcomer);
    world.seconds(30);
    assert_eq!(world.shares()[2], 10, "not before it is in traffic");
    let at = world.now_ms;
    (world.agents[2].in_traffic, world.agents[2].born_ms) = (true, world.now_ms);
    for (second, most) in [(10, 30), (30, 60), (50, 90)] {
        world.seconds((second - (world.now_ms - at) / 1000) as u32);
        let share = world.shares()[2];
        assert!(share <= most && share * 2 >= most - 10, "after {second} s: {share}");
    }
    world.seconds(30);
    assert_eq!((world.shares()[2], world.turns(2, at)), (FULL, 0));
    assert!(world.is_capped());
}

#[test]
fn off_gives_everybody_the_full_share_and_one_alone_keeps_it() {
    let mut world = World::new(7, &[100.0, 20.0], 60.0);
    world.seconds(120);
    assert!(world.shares()[1] < FULL);
    world.policy.enabled = false;
    world.seconds(60);
    assert_eq!(world.shares(), [FULL; 2]);
    let mut alone = World::new(8, &[10.0], 60.0);
    alone.seconds(60);
    assert_eq!((alone.shares(), alone.changes.len()), (vec![FULL], 0));
}

#[test]
fn queues_are_compared_where_nothing_else_is_said() {
    let mut world = World::new(9, &[1.0, 1.0, 1.0], 0.0);
    for second in 0..120_u64 {
        for (agent, queue) in world.agents.iter_mut().zip([30.0, 5.0, 5.0]) {
            agent.every_ms = u64::MAX;
            let load = Load { queue_depth: Some(queue), in_flight: Some(1.0), ..Load::default() };
            agent.said = Some((1_000_000 + second * 1000, load));
        }
        world.second();
    }
    let shares = world.shares();
    assert!(shares[0] <= 22 && shares[1..] == [FULL; 2], "{shares:?}");
}

fn seen<'a>(id: &'a InstanceId, incarnation: u64, report: Option<(u64, &'a Load)>) -> Seen<'a> {
    let (incarnation, share) = (Incarnation(incarnation), Share::FULL);
    Seen { id, incarnation, share, in_traffic: true, since: Duration::ZERO, report }
}

fn uses(cpu: f64) -> Load {
    Load { cpu: Some(cpu), ..Load::default() }
}

/// What was reported in time that is taken out again is of later than what comes after it.
#[test]
fn a_report_from_a_time_that_was_taken_out_mutes_none_that_comes_after_it() {
    let (mut weights, policy, ids) = (Weights::default(), LoadPolicy::default(), [id(0), id(1)]);
    let (idle, busy) = (uses(0.2), uses(1.0));
    let mut step = |now_ms, at_ms, first: &Load| {
        let both = [seen(&ids[0], 1, Some((at_ms, first))), seen(&ids[1], 1, Some((at_ms, &idle)))];
        weights.step(now_ms, &policy, &both).len()
    };
    assert_eq!(step(10_000, 70_000, &idle), 0);
    for at_ms in [15_000, 25_000] {
        step(at_ms, at_ms, &busy);
    }
    assert_eq!(step(35_000, 35_000, &busy), 1, "it moves long before 70 s");
}

#[test]
fn who_has_left_is_forgotten_and_another_incarnation_is_a_newcomer() {
    let (mut weights, policy) =
        (Weights::default(), LoadPolicy { slow_start: Duration::from_secs(60), ..LoadPolicy::default() });
    let ids: Vec<InstanceId> = (0..3).map(id).collect();
    let mut newcomers = |now_ms, who: &[(usize, u64)]| -> Vec<String> {
        let all: Vec<Seen<'_>> = who.iter().map(|(at, incarnation)| seen(&ids[*at], *incarnation, None)).collect();
        weights.step(now_ms, &policy, &all).iter().map(|(id, ..)| id.to_string()).collect()
    };
    assert_eq!(newcomers(0, &[(0, 1), (1, 1)]), ["a-0", "a-1"]);
    assert!(newcomers(100_000, &[(0, 1), (1, 1)]).is_empty());
    assert_eq!(newcomers(200_000, &[(1, 2), (2, 1)]), ["a-1", "a-2"], "one left, one came, one is another");
    assert_eq!(newcomers(300_000, &[(0, 1), (1, 2), (2, 1)]), ["a-0"], "it came back");
}

#[test]
fn a_service_that_moves_is_looked_at_as_often_as_its_interval_asks_and_its_size_allows() {
    let seconds = Duration::from_secs;
    for (moves, interval, instances, expected) in [
        (true, seconds(1), 10, seconds(1)),
        (true, seconds(20), 10, seconds(4)),
        (true, seconds(1), 100_000, seconds(3)),
        (false, seconds(20), 10, seconds(20)),
        (false, seconds(20), 1_000_000, seconds(30)),
    ] {
        assert_eq!(super::pause(moves, interval, instances), expected, "{moves} {interval:?} {instances}");
    }
}
