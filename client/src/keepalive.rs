//! When to heartbeat, when to register, when to stop: the decisions of an agent, without time, tasks or sockets.
//!
//! Invariants: as long as the agent is wanted there is always a next step; a heartbeat is never later than the server
//! asked; failures never end the agent; an agent that leaves never registers again.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// The wait before asking again for what was refused: it takes a person to change that, and a refusal is no reason to
/// be a load.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// The heartbeat interval if an answer has none: a third of the default TTL.
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// A server that asks for less than this is answered at this pace.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Register,
    Heartbeat,
}

/// The next step: the action and its time, or none, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Do(Action, Instant),
    Stop,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The registration was accepted, or changed; heartbeats are due at this interval.
    Registered(Duration),
    /// The lease was renewed.
    Kept(Duration),
    /// The lease is not known, or over.
    RegisterAgain,
    /// The server cannot tell now whether the lease holds, and asks again after this.
    Retry(Duration),
    /// The action failed in a way that may pass: the server is away, or too slow.
    Failed,
    /// The server refused the action; the same again will be refused again.
    Refused,
    /// A newer incarnation, or an operator, has taken this one's place: it may never come back.
    Superseded,
    /// The connection broke while nothing was asked.
    ConnectionLost,
    /// What the agent says of itself has changed.
    Changed,
    /// The agent was drained or deregistered: it does not come back when the lease is gone.
    Leaving,
}

/// What the server holds of us, as far as we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    Unregistered,
    /// Our lease, and a registration that has changed since.
    Changed,
    /// Our lease.
    Registered,
    /// Our lease, until the drain is over.
    Leaving,
    /// Nothing, and that is final.
    Over,
}

/// An agent's decisions. Each event is answered by the next step; `jitter` is a random number from 0 to 1.
#[derive(Debug)]
pub(crate) struct Keepalive {
    standing: Standing,
    step: Step,
    interval: Duration,
    backoff: Backoff,
}

impl Keepalive {
    /// A new agent registers at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            standing: Standing::Unregistered,
            step: Step::Do(Action::Register, now),
            interval: DEFAULT_INTERVAL,
            backoff: Backoff::default(),
        }
    }

    /// The next step.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Whether the agent no longer comes back by itself.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.standing, Standing::Leaving | Standing::Over)
    }

    /// Takes in what happened; afterwards `step` is up to date.
    pub(crate) fn on(&mut self, event: Event, now: Instant, jitter: f64) {
        if self.standing == Standing::Over {
            return;
        }
        match event {
            Event::Registered(interval) => {
                if self.standing != Standing::Leaving {
                    self.standing = Standing::Registered;
                }
                self.renewed(interval, now, jitter);
            }
            Event::Kept(interval) => self.renewed(interval, now, jitter),
            Event::Retry(interval) => {
                let wait = self.backoff.failed(interval, jitter);
                self.step = Step::Do(self.action(), now + wait);
            }
            Event::RegisterAgain if self.standing == Standing::Leaving => self.stop(),
            Event::RegisterAgain => {
                self.standing = Standing::Unregistered;
                self.step = Step::Do(Action::Register, now);
            }
            Event::Changed if self.standing == Standing::Registered => {
                self.standing = Standing::Changed;
                self.step = Step::Do(Action::Register, now);
            }
            // It goes with the registration that is due anyway, or never.
            Event::Changed => {}
            Event::Failed => {
                // Never longer than the interval: a server that came back gives each lease one TTL to be heard in.
                let wait = self.backoff.failed(self.interval, jitter);
                self.step = Step::Do(self.action(), now + wait);
            }
            Event::Refused if self.standing == Standing::Unregistered => {
                self.step = Step::Do(Action::Register, now + shortened(REFUSED_WAIT, jitter));
            }
            Event::Refused => {
                // The lease is held, whatever else is wrong: keep it.
                if self.standing == Standing::Changed {
                    self.standing = Standing::Registered;
                }
                let wait = self.backoff.failed(self.interval, jitter);
                self.step = Step::Do(Action::Heartbeat, now + wait);
            }
            Event::Superseded => self.stop(),
            Event::ConnectionLost => self.reconnect(now, jitter),
            Event::Leaving => {
                self.standing = Standing::Leaving;
                if let Step::Do(_, at) = self.step {
                    self.step = Step::Do(Action::Heartbeat, at);
                }
            }
        }
    }

    fn renewed(&mut self, interval: Duration, now: Instant, jitter: f64) {
        self.backoff.reset();
        self.interval = interval.max(SHORTEST_INTERVAL);
        self.step = Step::Do(Action::Heartbeat, now + shortened(self.interval, jitter));
    }

    /// Makes sure soon that the server, which may be a new one, knows us.
    fn reconnect(&mut self, now: Instant, jitter: f64) {
        let Step::Do(action, at) = self.step else { return };
        let wait = self.backoff.failed(self.interval, jitter);
        self.step = Step::Do(action, at.min(now + wait));
    }

    fn action(&self) -> Action {
        match self.standing {
            Standing::Unregistered | Standing::Changed => Action::Register,
            Standing::Registered | Standing::Leaving | Standing::Over => Action::Heartbeat,
        }
    }

    fn stop(&mut self) {
        self.standing = Standing::Over;
        self.step = Step::Stop;
    }
}

/// Nine tenths of the interval to the whole: agents that started together drift apart, and none is late.
fn shortened(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(0.9 + 0.1 * jitter.clamp(0.0, 1.0))
}
