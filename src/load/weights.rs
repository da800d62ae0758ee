//! The function from load to weight, for one service. Pure: time comes as an argument.
//!
//! What an instance reports becomes one number, its *utilisation*:
//!
//! - `application_utilization` if reported, else `cpu`, else half of (`queue_depth` + `in_flight`) over the mean of the
//!   service's instances that report only these (that mean counts as `LEAST_WORK` at least);
//! - plus `ERROR_COST` × `error_rate`: who fails fast is not idle. At most `MOST`.
//!
//! It is smoothed by time (`SMOOTHING` intervals), and no report counts for more than half. The share that it wants is
//!
//! > share = 100 % × ((mean + OFFSET) / (utilisation + OFFSET))², from the policy's `min_share` to 100 %
//!
//! where *mean* is that of the service's **other** instances in traffic that report. So whoever is less loaded than the
//! others keeps its static weight, which is never exceeded, and a load that is the same for all changes nothing. In the closed loop the
//! square is a gain under 2 (and the offset keeps it under 1.6 up to full utilisation); with smoothing by at most a half
//! for each report that is stable: what is too much by δ is too little by less than 0.3 δ after it.
//!
//! Shares are on a ladder (`LADDER`, steps of about a twentieth). A share leaves its step only when what is wanted is one
//! and a half steps away, or is one of the ends, and then it goes half of the way; in one batch it falls by at most half and grows by at most a third. A service has one batch in
//! an interval at most.
//!
//! Whoever reports nothing, or nothing any more for `STALE_MS`, wants its full share, and does not count for the mean; so
//! after a restart of Convoy shares stay as they are stored until their agents are heard, for so long at most. A
//! newcomer's share is bounded by its slow start: it grows evenly from `min_share` to 100 % from when it was first in traffic.

use std::{collections::HashMap, time::Duration};

use convoy_client::proto::Load;

use crate::model::{Incarnation, InstanceId, LoadPolicy, Share};

/// What an error rate of 1 adds to the utilisation.
const ERROR_COST: f64 = 4.0;
const MOST: f64 = 2.0;
/// Differences between those that do nearly nothing mean little.
const OFFSET: f64 = 0.25;
const GAIN: i32 = 2;
/// Fewer requests than this at a time are no work.
const LEAST_WORK: f64 = 4.0;
/// The time constant, in intervals.
const SMOOTHING: f64 = 3.0;
/// Reports may come more seldom than the intervals: none counts for more.
const LARGEST_PART: f64 = 0.5;
/// Six of the longest intervals between heartbeats.
const STALE_MS: u64 = 60_000;
/// In percent; each about a twentieth less than the one before, as far as whole numbers allow.
const LADDER: [u32; 51] = [
    100, 95, 90, 86, 81, 77, 74, 70, 66, 63, 60, 57, 54, 51, 49, 46, 44, 42, 40, 38, 36, 34, 32, 31, 29, 28, 26, 25,
    24, 23, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1,
];
/// How far from its step a share is wanted to be for it to leave, in steps. With a gain g a move by one step moves what is
/// wanted by up to 1 + g steps the other way: under half of that two neighbours would change places for ever.
const HYSTERESIS: f64 = 1.5;
/// So near to an end is there: what is smoothed reaches it never.
const END: f64 = 1.005;
/// How much of the way to what is wanted is made at once.
const PART_OF_THE_WAY: f64 = 0.5;
/// How far a share falls and grows in one batch.
const FALL: f64 = 0.5;
const GROWTH: f64 = 4.0 / 3.0;

/// An instance as it stands.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    pub id: &'a InstanceId,
    pub incarnation: Incarnation,
    /// As it is stored.
    pub share: Share,
    /// Whether proxies send it requests.
    pub in_traffic: bool,
    /// For how long it has been, as far as is known. Looked at when it is seen in traffic first.
    pub since: Duration,
    /// What was reported last, and when.
    pub report: Option<(u64, &'a Load)>,
}

/// What is known of one instance.
#[derive(Clone, Debug, Default)]
struct Member {
    incarnation: Incarnation,
    first_seen_ms: u64,
    /// Since when it is in traffic; it may be before all time.
    started_ms: Option<i128>,
    /// The time of the last report.
    reported_ms: Option<u64>,
    /// Smoothed. Work is apart from it: how much is much is known of all together only.
    utilisation: Option<f64>,
    work: Option<f64>,
    /// The turn in which it was seen last.
    turn: u64,
}

impl Member {
    fn see(&mut self, turn: u64, now_ms: u64, policy: &LoadPolicy, instance: &Seen<'_>) {
        self.turn = turn;
        if instance.in_traffic && self.started_ms.is_none() {
            self.started_ms = Some(i128::from(now_ms) - instance.since.as_millis() as i128);
        }
        if let Some((at_ms, load)) = instance.report {
            self.take(at_ms, load, policy.interval);
        }
    }

    fn take(&mut self, at_ms: u64, load: &Load, interval: Duration) {
        let passed = match self.reported_ms {
            Some(before) if before == at_ms => return,
            // Time in which Convoy heard nobody is taken out again: the one before may be of later.
            Some(before) => at_ms.saturating_sub(before) as f64,
            None => f64::INFINITY,
        };
        let constant = SMOOTHING * interval.as_millis() as f64;
        let part = if passed > STALE_MS as f64 { 1.0 } else { (1.0 - (-passed / constant).exp()).min(LARGEST_PART) };
        self.reported_ms = Some(at_ms);
        let errors = ERROR_COST * load.error_rate.unwrap_or_default();
        let utilisation = load.application_utilization.or(load.cpu).map(|used| (used + errors).min(MOST));
        let work = (load.queue_depth.is_some() || load.in_flight.is_some())
            .then(|| load.queue_depth.unwrap_or_default() + load.in_flight.unwrap_or_default());
        let blend = |before: Option<f64>, now: f64| before.map_or(now, |before| before + (now - before) * part);
        self.work = work.filter(|_| utilisation.is_none()).map(|work| blend(self.work, work * (1.0 + errors)));
        self.utilisation = utilisation.map(|now| blend(self.utilisation, now));
    }

    /// It has not reported so far, and has not had much time to.
    fn is_awaited(&self, now_ms: u64) -> bool {
        self.reported_ms.is_none() && now_ms.saturating_sub(self.first_seen_ms) <= STALE_MS
    }

    fn is_fresh(&self, now_ms: u64) -> bool {
        self.reported_ms.is_some_and(|at| now_ms.saturating_sub(at) <= STALE_MS)
    }
}

/// The weights of one service.
#[derive(Debug, Default)]
pub struct Weights {
    members: HashMap<InstanceId, Member>,
    turn: u64,
    last_batch_ms: Option<u64>,
}

impl Weights {
    /// The steps to be stored now, if any; at most one batch an interval. `seen` are all of the service's instances.
    pub fn step(
        &mut self,
        now_ms: u64,
        policy: &LoadPolicy,
        seen: &[Seen<'_>],
    ) -> Vec<(InstanceId, Incarnation, Share)> {
        self.take(now_ms, policy, seen);
        let interval_ms = policy.interval.as_millis() as u64;
        if self.last_batch_ms.is_some_and(|last| now_ms.saturating_sub(last) < interval_ms) {
            return Vec::new();
        }
        let wanted = self.wanted(now_ms, policy, seen);
        let step = |(instance, wanted): (&Seen<'_>, f64)| {
            let next = next(instance.share, wanted, policy.min_share);
            (next != instance.share).then(|| (instance.id.clone(), instance.incarnation, next))
        };
        let batch: Vec<_> = seen.iter().zip(wanted).filter_map(step).collect();
        if !batch.is_empty() {
            self.last_batch_ms = Some(now_ms);
        }
        batch
    }

    /// Whether anybody has reported, lately enough, what makes a weight.
    pub fn hears(&self, now_ms: u64) -> bool {
        self.members
            .values()
            .any(|member| member.is_fresh(now_ms) && (member.utilisation.is_some() || member.work.is_some()))
    }

    fn take(&mut self, now_ms: u64, policy: &LoadPolicy, seen: &[Seen<'_>]) {
        self.turn += 1;
        for instance in seen {
            match self.members.get_mut(instance.id).filter(|known| known.incarnation == instance.incarnation) {
                Some(known) => known.see(self.turn, now_ms, policy, instance),
                None => {
                    let incarnation = instance.incarnation;
                    let mut new = Member { incarnation, first_seen_ms: now_ms, ..Member::default() };
                    new.see(self.turn, now_ms, policy, instance);
                    self.members.insert(instance.id.clone(), new);
                }
            }
        }
        if self.members.len() > seen.len() {
            self.members.retain(|_, member| member.turn == self.turn);
        }
    }

    /// The shares that the function gives, in percent, in the order of the instances.
    fn wanted(&self, now_ms: u64, policy: &LoadPolicy, seen: &[Seen<'_>]) -> Vec<f64> {
        if !policy.enabled {
            return vec![100.0; seen.len()];
        }
        let heard: Vec<Option<&Member>> = seen
            .iter()
            .map(|instance| self.members.get(instance.id).filter(|_| instance.in_traffic))
            .map(|member| member.filter(|member| member.is_fresh(now_ms)))
            .collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let works: Vec<f64> = heard.iter().flatten().filter_map(|member| member.work).collect();
        let usual_work = mean(&works).max(LEAST_WORK);
        let used = |member: &Member| member.utilisation.or(member.work.map(|work| (0.5 * work / usual_work).min(MOST)));
        let used: Vec<Option<f64>> = heard.into_iter().map(|member| member.and_then(used)).collect();
        let (sum, count) = used.iter().flatten().fold((0.0, 0), |(sum, count), used| (sum + used, count + 1));
        let by_load = |used: Option<f64>| match used {
            Some(used) if count > 1 => {
                let others = (sum - used) / f64::from(count - 1);
                100.0 * ((others + OFFSET) / (used + OFFSET)).powi(GAIN)
            }
            _ => 100.0,
        };
        let floor = f64::from(policy.min_share.percent());
        let share = |(instance, used): (&Seen<'_>, Option<f64>)| {
            let grown = self.grown(now_ms, policy, instance.id);
            let most = floor + (100.0 - floor) * grown;
            let awaited = self.members.get(instance.id).is_some_and(|member| member.is_awaited(now_ms));
            let by_load = if awaited && grown >= 1.0 { f64::from(instance.share.percent()) } else { by_load(used) };
            by_load.min(most).clamp(floor, 100.0)
        };
        seen.iter().zip(used).map(share).collect()
    }

    /// How far an instance's slow start is: 0 to 1.
    fn grown(&self, now_ms: u64, policy: &LoadPolicy, id: &InstanceId) -> f64 {
        if policy.slow_start.is_zero() {
            return 1.0;
        }
        let Some(started) = self.members.get(id).and_then(|member| member.started_ms) else { return 0.0 };
        let age = (i128::from(now_ms) - started) as f64;
        (age / policy.slow_start.as_millis() as f64).clamp(0.0, 1.0)
    }
}

/// The next step of a share, on the way to what is wanted: half of the way, since the load that follows comes towards it.
fn next(now: Share, wanted: f64, floor: Share) -> Share {
    let now_percent = f64::from(now.percent());
    let is_end = wanted * END >= 100.0 || wanted <= f64::from(floor.percent()) * END;
    let (from, way) = (rung(now_percent), rung(wanted) - rung(now_percent));
    let is_near = way.abs() < HYSTERESIS;
    if is_near && !is_end && is_on_ladder(now, floor) {
        return now;
    }
    let to = if is_near { from + way } else { from + way * PART_OF_THE_WAY };
    let fall = rung(now_percent * FALL);
    let growth = rung((now_percent * GROWTH).max(now_percent + 1.0));
    let to = to.clamp(growth, fall).round() as usize;
    Share::of_percent(LADDER[to.min(LADDER.len() - 1)]).max(floor)
}

/// The floor is a step too: nobody wants less.
fn is_on_ladder(share: Share, floor: Share) -> bool {
    share == floor || (share > floor && LADDER.contains(&share.percent()))
}

/// Where a share is on the ladder; between two steps, by its logarithm.
fn rung(percent: f64) -> f64 {
    let at = LADDER.partition_point(|step| f64::from(*step) >= percent);
    if at == 0 || at == LADDER.len() {
        return at.saturating_sub(1) as f64;
    }
    let (above, below) = (f64::from(LADDER[at - 1]), f64::from(LADDER[at]));
    (at - 1) as f64 + (above / percent).ln() / (above / below).ln()
}
