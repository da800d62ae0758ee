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
/// The first heartbeat comes this soon: it opens the stream whose end tells that the server went away.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(200);
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
                let is_new = self.standing == Standing::Unregistered;
                if self.standing != Standing::Leaving {
                    self.standing = Standing::Registered;
                }
                self.renewed(interval, now, jitter);
                if is_new {
                    let soon = shortened(self.interval.min(FIRST_HEARTBEAT), jitter);
                    self.step = Step::Do(Action::Heartbeat, now + soon);
                }
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
            // There is no lease to keep until it is over.
            Event::Leaving if self.standing == Standing::Unregistered => self.stop(),
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

#[cfg(test)]
mod tests {
    use super::{
        Action::{Heartbeat, Register},
        Event::{
            Changed, ConnectionLost, Failed, Kept, Leaving, Refused, RegisterAgain, Registered, Retry, Superseded,
        },
        *,
    };

    const TEN: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// What comes of the events, each a tenth of a second after the one before, with the longest jitter: the next
    /// action, and in how many milliseconds after the last event.
    fn after(events: &[Event]) -> Option<(Action, u128)> {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(now);
        for event in events {
            now += Duration::from_millis(100);
            keepalive.on(*event, now, 1.0);
        }
        match keepalive.step() {
            Step::Do(action, at) => Some((action, at.saturating_duration_since(now).as_millis())),
            Step::Stop => None,
        }
    }

    #[test]
    fn each_event_leads_to_the_next_step() {
        for (events, step) in [
            (&[][..], Some((Register, 0))),
            (&[Registered(TEN)], Some((Heartbeat, 200))),
            (&[Registered(TEN), Kept(TEN)], Some((Heartbeat, 10_000))),
            (&[Registered(TEN), Kept(SECOND)], Some((Heartbeat, 1_000))),
            (&[Registered(Duration::ZERO)], Some((Heartbeat, 10))),
            // Told to register again: at once, however the agent stood.
            (&[Registered(TEN), RegisterAgain], Some((Register, 0))),
            (&[Registered(TEN), Failed, RegisterAgain], Some((Register, 0))),
            // The server is away: longer and longer, for ever, and never longer than the interval.
            (&[Failed], Some((Register, 100))),
            (&[Failed, Failed, Failed], Some((Register, 400))),
            (&[Failed; 200], Some((Register, 5_000))),
            (&[Registered(TEN), Failed], Some((Heartbeat, 100))),
            (&[Registered(TEN), Failed, Failed], Some((Heartbeat, 200))),
            (&[Registered(SECOND), Failed, Failed, Failed, Failed, Failed, Failed], Some((Heartbeat, 1_000))),
            (&[Registered(TEN), Failed, Failed, Kept(TEN), Failed], Some((Heartbeat, 100))),
            // The connection broke between two heartbeats: look soon, but do not put off what is due.
            (&[Registered(TEN), Kept(TEN), ConnectionLost], Some((Heartbeat, 100))),
            (&[Registered(TEN), RegisterAgain, ConnectionLost], Some((Register, 0))),
            // The server cannot tell: as it says, but not slower than after a failure.
            (&[Registered(TEN), Retry(TEN)], Some((Heartbeat, 100))),
            (&[Registered(TEN), Retry(SECOND), Retry(SECOND), Retry(SECOND), Retry(SECOND), Retry(SECOND)], {
                Some((Heartbeat, 1_000))
            }),
            // Refused: without a lease there is time; with one it is kept.
            (&[Refused], Some((Register, 30_000))),
            (&[Registered(TEN), RegisterAgain, Refused], Some((Register, 30_000))),
            (&[Registered(TEN), Refused], Some((Heartbeat, 100))),
            (&[Registered(TEN), Changed, Refused], Some((Heartbeat, 100))),
            (&[Registered(TEN), Superseded], None),
            (&[Superseded, RegisterAgain, Changed, Failed], None),
            // A change goes at once, and again until the server has it.
            (&[Registered(TEN), Changed], Some((Register, 0))),
            (&[Registered(TEN), Changed, Failed], Some((Register, 100))),
            (&[Registered(TEN), Changed, Registered(TEN)], Some((Heartbeat, 10_000))),
            (&[Failed, Failed, Failed, Changed], Some((Register, 300))),
            // Who leaves heartbeats until it is gone, and does not come back.
            (&[Registered(TEN), Kept(TEN), Leaving], Some((Heartbeat, 9_900))),
            (&[Registered(TEN), Changed, Leaving], Some((Heartbeat, 0))),
            (&[Registered(TEN), Leaving, Kept(TEN)], Some((Heartbeat, 10_000))),
            (&[Registered(TEN), Leaving, Failed], Some((Heartbeat, 100))),
            (&[Registered(TEN), Kept(TEN), Leaving, Changed], Some((Heartbeat, 9_800))),
            (&[Registered(TEN), Leaving, RegisterAgain], None),
            (&[Failed, Leaving], None),
            (&[Registered(TEN), Leaving, RegisterAgain, ConnectionLost], None),
        ] {
            assert_eq!(after(events), step, "{events:?}");
        }
    }

    #[test]
    fn jitter_makes_heartbeats_earlier_and_never_later() {
        let now = Instant::now();
        let at = |event, jitter| {
            let mut keepalive = Keepalive::new(now);
            keepalive.on(event, now, jitter);
            let Step::Do(_, at) = keepalive.step() else { panic!("{event:?} leads to a step") };
            at - now
        };
        for (jitter, seconds) in [(0.0, 9.0), (0.5, 9.5), (1.0, 10.0), (7.0, 10.0)] {
            assert_eq!(at(Kept(TEN), jitter), Duration::from_secs_f64(seconds));
        }
        assert_eq!(at(Failed, 0.0), Duration::from_millis(50));
    }
}
