//! Health: independent axes, each with its own since-when and why, and one verdict derived from them.
//!
//! | axis      | what it is                                             | whose word              |
//! | --------- | ------------------------------------------------------ | ----------------------- |
//! | lease     | held, or lapsed and kept by the brake                  | the agent's heartbeats  |
//! | readiness | whether it can take traffic                            | the agent's             |
//! | checks    | what active probes found, liveness and readiness apart | Convoy's probes         |
//! | operator  | an override                                            | somebody's              |
//! | drain     | it leaves                                              | the agent's, somebody's |

use std::{borrow::Cow, sync::Arc};

use super::{Check, Instance, RemovalCause, UnixMillis};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Starting,
    Healthy,
    Degraded,
    Suspect,
    Unhealthy,
    Draining,
}

impl Verdict {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Healthy, Self::Degraded, Self::Suspect, Self::Unhealthy, Self::Draining];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }

    /// Whether it may be sent requests.
    pub fn serves(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded | Self::Suspect)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub verdict: Verdict,
    pub reason: Cow<'static, str>,
    pub since: UnixMillis,
}

/// What a check's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckKind {
    /// It is taken out of traffic, and after a set time deregistered.
    Liveness,
    /// It is taken out of traffic, and stays registered.
    Readiness,
}

impl CheckKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckStatus {
    /// Not yet told: not enough probes so far.
    Pending,
    Passing,
    /// It answers, and says that it is not well.
    Degraded,
    Failing,
}

impl CheckStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Passing => "passing",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// What a check found of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckState {
    pub name: Arc<str>,
    pub kind: CheckKind,
    pub status: CheckStatus,
    pub since: UnixMillis,
    /// The probe's last word: `503 Service Unavailable`.
    pub output: Arc<str>,
}

impl CheckState {
    /// Of a check that has yet to be made.
    pub fn pending(check: &Check, now: UnixMillis) -> Self {
        Self {
            name: check.name.clone(),
            kind: check.kind,
            status: CheckStatus::Pending,
            since: now,
            output: "not probed yet".into(),
        }
    }
}

/// What an operator says, until somebody takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverrideHealth {
    /// Over readiness and checks; a lease that lapses counts still.
    Healthy,
    Degraded,
    Unhealthy,
}

impl OverrideHealth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub health: OverrideHealth,
    pub reason: Arc<str>,
    pub since: UnixMillis,
}

/// Of what too much fell silent, or failed, at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BrakeScope {
    Service,
    Zone,
    /// Everything that Convoy hears.
    Intake,
    /// Nothing at all is heard any more: Convoy takes itself for blind.
    Blind,
    /// The probes of Convoy: they fail nearly everywhere.
    Checks,
}

impl BrakeScope {
    pub const ALL: [Self; 5] = [Self::Service, Self::Zone, Self::Intake, Self::Blind, Self::Checks];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Zone => "zone",
            Self::Intake => "intake",
            Self::Blind => "blind",
            Self::Checks => "checks",
        }
    }
}

/// Why an instance is kept that would have left, or would be out of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    pub scope: BrakeScope,
    pub since: UnixMillis,
}

/// One turn of an instance's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub at: UnixMillis,
    pub turn: Turn,
    pub reason: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    To(Verdict),
    Removed(RemovalCause),
}

/// How many turns are kept of one instance.
pub const KEPT_TRANSITIONS: usize = 16;

/// The last turns of an instance's life, oldest first. Nothing until there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Option<Arc<[Transition]>>);

impl History {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.0.iter().flat_map(|turns| turns.iter())
    }

    /// The same with one more, and without the oldest if there are too many.
    #[must_use]
    pub fn with(&self, turn: Transition) -> Self {
        let kept = self.0.as_deref().unwrap_or_default();
        let over = (kept.len() + 1).saturating_sub(KEPT_TRANSITIONS);
        Self(Some(kept[over..].iter().cloned().chain([turn]).collect()))
    }
}

impl FromIterator<Transition> for History {
    fn from_iter<I: IntoIterator<Item = Transition>>(turns: I) -> Self {
        let turns: Arc<[Transition]> = turns.into_iter().collect();
        Self((!turns.is_empty()).then_some(turns))
    }
}

/// The axes as the truth table takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    pub draining: bool,
    pub operator: Option<OverrideHealth>,
    /// The brake keeps it: because its lease lapsed, or because checks that would take it out are not believed.
    pub lapsed: bool,
    /// A check that fails is not believed.
    pub disbelieved: bool,
    /// The worst of the liveness checks, and of the readiness checks. Passing if there are none.
    pub liveness: CheckStatus,
    pub readiness: CheckStatus,
    pub ready: bool,
    /// Whether this incarnation was ever ready, by its own word and by its checks.
    pub was_ready: bool,
}

/// Merges the axes; the first row that holds decides. A lapsed lease that is not braked is no row: the instance is gone.
///
/// | #  | when                                                   | verdict                              |
/// | -- | ------------------------------------------------------ | ------------------------------------ |
/// | 1  | draining                                               | draining                             |
/// | 2  | an operator says unhealthy                             | unhealthy                            |
/// | 3  | the lease lapsed, and rows 4 to 9 would let it serve   | suspect                              |
/// | 4  | an operator says healthy or degraded                   | that                                 |
/// | 5  | its agent says that it is not ready                    | unhealthy; starting if it never was  |
/// | 6  | a check fails                                          | unhealthy; suspect if not believed   |
/// | 7  | a check is pending, and it was never ready             | starting                             |
/// | 8  | a check says degraded                                  | degraded                             |
/// | 9  | else                                                   | healthy                              |
pub fn verdict(axes: Axes) -> Verdict {
    if axes.draining {
        return Verdict::Draining;
    }
    match (axes.operator, without_lapse(axes)) {
        (Some(OverrideHealth::Unhealthy), _) => Verdict::Unhealthy,
        (_, verdict) if axes.lapsed && verdict.serves() => Verdict::Suspect,
        (_, verdict) => verdict,
    }
}

/// Rows 4 to 9.
fn without_lapse(axes: Axes) -> Verdict {
    let status = |status| axes.liveness == status || axes.readiness == status;
    match axes.operator {
        Some(OverrideHealth::Healthy) => Verdict::Healthy,
        Some(OverrideHealth::Degraded) => Verdict::Degraded,
        _ if !axes.ready && axes.was_ready => Verdict::Unhealthy,
        _ if !axes.ready => Verdict::Starting,
        _ if status(CheckStatus::Failing) && axes.disbelieved => Verdict::Suspect,
        _ if status(CheckStatus::Failing) => Verdict::Unhealthy,
        _ if status(CheckStatus::Pending) && !axes.was_ready => Verdict::Starting,
        _ if status(CheckStatus::Degraded) => Verdict::Degraded,
        _ => Verdict::Healthy,
    }
}

impl Instance {
    pub fn axes(&self) -> Axes {
        let worst = |kind| {
            let of = self.checks.iter().filter(|check| check.kind == kind).map(|check| check.status);
            let rank = |status: &CheckStatus| match status {
                CheckStatus::Passing => 0,
                CheckStatus::Degraded => 1,
                CheckStatus::Pending => 2,
                CheckStatus::Failing => 3,
            };
            of.max_by_key(rank).unwrap_or(CheckStatus::Passing)
        };
        Axes {
            draining: self.drain.is_some(),
            operator: self.operator.as_ref().map(|operator| operator.health),
            lapsed: self.lapsed.is_some(),
            disbelieved: self.disbelieved.is_some(),
            liveness: worst(CheckKind::Liveness),
            readiness: worst(CheckKind::Readiness),
            ready: self.spec.ready,
            was_ready: self.was_ready,
        }
    }

    pub fn verdict(&self) -> Verdict {
        verdict(self.axes())
    }

    /// What keeps it, or keeps it in traffic.
    pub fn brake(&self) -> Option<Brake> {
        let checks = |since| Brake { scope: BrakeScope::Checks, since };
        self.lapsed.or(self.disbelieved.map(checks))
    }

    /// What the verdict would be if nothing had lapsed, and no check were disbelieved: the health of a suspect as it was.
    pub fn verdict_before(&self) -> Verdict {
        let axes = self.axes();
        let believed =
            |status| if axes.disbelieved && status == CheckStatus::Failing { CheckStatus::Passing } else { status };
        let (liveness, readiness) = (believed(axes.liveness), believed(axes.readiness));
        verdict(Axes { lapsed: false, disbelieved: false, liveness, readiness, ..axes })
    }

    pub fn health(&self) -> Health {
        let verdict = self.verdict();
        Health { verdict, reason: self.reason(verdict), since: self.health_since }
    }

    /// Why the verdict is what it is, for people.
    fn reason(&self, verdict: Verdict) -> Cow<'static, str> {
        let kept = |what: &str| {
            let scope = self.brake().map_or("", |brake| brake.scope.as_str());
            Cow::from(format!("{what}; it is kept by the brake ({scope})"))
        };
        let check = |status: CheckStatus| {
            let check = self.checks.iter().find(|check| check.status == status)?;
            Some(Cow::from(format!("check {} is {}: {}", check.name, status.as_str(), check.output)))
        };
        let operator = || self.operator.as_ref().map(|operator| Cow::from(format!("an operator: {}", operator.reason)));
        match verdict {
            Verdict::Draining => "it was asked to drain".into(),
            Verdict::Suspect if self.lapsed.is_some() => kept("its heartbeats have stopped"),
            Verdict::Suspect => kept(&check(CheckStatus::Failing).unwrap_or_default()),
            _ if let Some(reason) = operator() => reason,
            Verdict::Unhealthy if !self.spec.ready => "its agent says that it is not ready".into(),
            Verdict::Unhealthy => check(CheckStatus::Failing).unwrap_or_default(),
            Verdict::Starting if !self.spec.ready => "its agent has not yet said that it is ready".into(),
            Verdict::Starting => check(CheckStatus::Pending).unwrap_or_default(),
            Verdict::Degraded => check(CheckStatus::Degraded).unwrap_or_default(),
            Verdict::Healthy if self.checks.is_empty() => "its agent says that it is ready".into(),
            Verdict::Healthy => "its agent says that it is ready, and its checks pass".into(),
        }
    }

    /// Works out what follows from the axes having changed: since when the verdict holds, and the turn it took.
    #[must_use]
    pub fn settled(mut self, before: Option<&Self>, now: UnixMillis) -> Self {
        let (axes, answers) = (self.axes(), |status| matches!(status, CheckStatus::Passing | CheckStatus::Degraded));
        self.was_ready |= axes.ready && answers(axes.liveness) && answers(axes.readiness);
        let verdict = self.verdict();
        match before {
            Some(before) if before.verdict() == verdict => self.health_since = before.health_since,
            Some(_) => {
                self.health_since = now;
                let reason = self.reason(verdict).into();
                self.history = self.history.with(Transition { at: now, turn: Turn::To(verdict), reason });
            }
            None => self.health_since = now,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Axes = Axes {
        draining: false,
        operator: None,
        lapsed: false,
        disbelieved: false,
        liveness: CheckStatus::Passing,
        readiness: CheckStatus::Passing,
        ready: true,
        was_ready: true,
    };

    #[test]
    fn the_truth_table() {
        use CheckStatus::{Degraded as Unwell, Failing, Pending};
        use Verdict::{Degraded, Draining, Healthy, Starting, Suspect, Unhealthy};
        type Change = fn(&mut Axes);
        let table: &[(&str, Verdict, Change)] = &[
            ("nothing is wrong", Healthy, |_| {}),
            ("it drains, whatever else", Draining, |a| {
                (a.draining, a.lapsed, a.operator, a.ready) = (true, true, Some(OverrideHealth::Unhealthy), false);
            }),
            ("out by an operator", Unhealthy, |a| a.operator = Some(OverrideHealth::Unhealthy)),
            ("out by an operator, and lapsed", Unhealthy, |a| {
                (a.operator, a.lapsed) = (Some(OverrideHealth::Unhealthy), true);
            }),
            ("lapsed", Suspect, |a| a.lapsed = true),
            ("lapsed, in by an operator", Suspect, |a| (a.lapsed, a.operator) = (true, Some(OverrideHealth::Healthy))),
            ("lapsed, and out before", Unhealthy, |a| (a.lapsed, a.ready) = (true, false)),
            ("lapsed, and its check fails", Unhealthy, |a| (a.lapsed, a.readiness) = (true, Failing)),
            ("in by an operator", Healthy, |a| {
                (a.operator, a.ready, a.readiness) = (Some(OverrideHealth::Healthy), false, Failing);
            }),
            ("degraded by an operator", Degraded, |a| a.operator = Some(OverrideHealth::Degraded)),
            ("not ready", Unhealthy, |a| a.ready = false),
            ("not yet ready", Starting, |a| (a.ready, a.was_ready) = (false, false)),
            ("a readiness check fails", Unhealthy, |a| a.readiness = Failing),
            ("a liveness check fails", Unhealthy, |a| a.liveness = Failing),
            ("a check fails, and is not believed", Suspect, |a| (a.liveness, a.disbelieved) = (Failing, true)),
            ("a new check is pending", Healthy, |a| a.readiness = Pending),
            ("a check is pending from the start", Starting, |a| (a.readiness, a.was_ready) = (Pending, false)),
            ("a check says degraded", Degraded, |a| a.readiness = Unwell),
            ("one says degraded, one fails", Unhealthy, |a| (a.liveness, a.readiness) = (Unwell, Failing)),
        ];
        for (name, expected, change) in table {
            let mut axes = FINE;
            change(&mut axes);
            assert_eq!(verdict(axes), *expected, "{name}");
        }
    }

    #[test]
    fn the_history_keeps_the_last_turns() {
        let turn = |at| Transition { at: UnixMillis(at), turn: Turn::To(Verdict::Healthy), reason: "".into() };
        let history = (0..40).fold(History::default(), |history, at| history.with(turn(at)));
        let kept: Vec<u64> = history.iter().map(|turn| turn.at.0).collect();
        assert_eq!(kept, (24..40).collect::<Vec<_>>());
    }
}
