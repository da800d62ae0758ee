//! The timers of leases. They run beside the intake of heartbeats, on its runtime, and tell the registry's task in
//! batches what has become of leases (`Notice`).
//!
//! Each turn sends a marker through the intake and takes, when it is back, the timers that were due when it was sent (see
//! `clock`). So a lease lapses only when every heartbeat that had come by its deadline has been handled. A turn takes a
//! bounded number of timers, and heartbeats are read between two turns, also when a million leases lapse together.
//!
//! While the registry's task does not take what it was told, no timer is taken: nobody lapses faster than that can be
//! written, and nothing queues up.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};

use super::{
    clock::{Clock, Observation},
    lease::{Entry, LeaseTable, Look},
    wheel::Wheel,
};
use crate::model::LeaseId;

/// How often timers are looked at.
pub const TICK: Duration = Duration::from_millis(10);
/// How many timers one turn touches: well under a millisecond.
const TIMERS_PER_TURN: usize = 2_000;
/// Batches of notices that may wait for the registry's task.
const BATCHES_WAITING: usize = 4;
/// What was ready before the marker has passed through so many tasks, one after the other, when it is handled: a
/// connection wakes a stream, a stream a call.
const HOPS: usize = 3;

/// What has become of a lease. `Overdue` and `Lapsed` are told once, until it is heard; `Returned` only after one of
/// them; all three of one lease come in their order. Nothing is told of a lease that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Two heartbeats are missed; its deadline has not passed.
    Overdue(LeaseId),
    /// One that was overdue or lapsed is heard again, by a heartbeat or a registration.
    Returned(LeaseId),
    /// Its deadline has passed, and it cannot be renewed until the registry has decided: by removing it, by
    /// `LeaseTable::keep_lapsed` or by `LeaseTable::postpone`.
    Lapsed(LeaseId),
    /// As `Overdue` and `Returned`, of another replica's lease, as that one says. Only for the brake's counts.
    OverdueElsewhere(LeaseId),
    ReturnedElsewhere(LeaseId),
}

impl Notice {
    /// As the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overdue(_) => "overdue",
            Self::Returned(_) => "returned",
            Self::Lapsed(_) => "lapsed",
            Self::OverdueElsewhere(_) => "overdue_elsewhere",
            Self::ReturnedElsewhere(_) => "returned_elsewhere",
        }
    }
}

pub fn channel() -> (mpsc::Sender<Vec<Notice>>, mpsc::Receiver<Vec<Notice>>) {
    mpsc::channel(BATCHES_WAITING)
}

/// What goes through the intake: a byte that is written to a socket and read from its other end, as heartbeats are. It is
/// read after all that was ready before.
#[derive(Debug)]
pub enum Marker {
    Socket(UnixStream, UnixStream),
    /// Where nothing comes from sockets: in simulations.
    Tasks,
}

impl Marker {
    /// To be made on the intake's runtime.
    pub fn socket() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        Ok(Self::Socket(near, far))
    }

    async fn pass(&mut self) -> io::Result<()> {
        if let Self::Socket(near, far) = self {
            near.write_all(b"m").await?;
            far.read_exact(&mut [0]).await?;
        }
        for _ in 0..HOPS {
            yield_now().await;
        }
        Ok(())
    }
}

/// The wheel and what it is about. Pure but for the table's atomics.
#[derive(Debug)]
pub(super) struct Timers {
    leases: Arc<LeaseTable>,
    wheel: Wheel<Arc<Entry>>,
    /// On their way into the wheel.
    arriving: VecDeque<Arc<Entry>>,
    due: Vec<Arc<Entry>>,
}

impl Timers {
    pub(super) fn new(leases: Arc<LeaseTable>) -> Self {
        Self { leases, wheel: Wheel::default(), arriving: VecDeque::new(), due: Vec::new() }
    }

    /// Takes timers that are due by then, up to a bound, and adds what there is to tell. Answers whether all are taken.
    pub(super) fn turn(&mut self, until_ms: u64, notices: &mut Vec<Notice>) -> bool {
        // Who returned did so from what was told before this turn.
        notices.extend(self.leases.take_returned().into_iter().map(Notice::Returned));
        self.arriving.extend(self.leases.take_untimed());
        let arrived = self.arriving.len().min(TIMERS_PER_TURN);
        for entry in self.arriving.drain(..arrived) {
            Self::look(&mut self.wheel, entry, until_ms, notices);
        }
        let there = self.wheel.advance(until_ms / tick_ms(), TIMERS_PER_TURN, &mut self.due);
        for entry in self.due.drain(..) {
            Self::look(&mut self.wheel, entry, until_ms, notices);
        }
        there && self.arriving.is_empty()
    }

    fn look(wheel: &mut Wheel<Arc<Entry>>, entry: Arc<Entry>, until_ms: u64, notices: &mut Vec<Notice>) {
        match entry.look(until_ms) {
            Look::At(at) => wheel.set(tick_of(at), entry),
            Look::Overdue(deadline) => {
                notices.push(Notice::Overdue(entry.id()));
                wheel.set(tick_of(deadline), entry);
            }
            Look::Lapsed => notices.push(Notice::Lapsed(entry.id())),
            Look::Stale => {}
        }
    }
}

/// Runs until the registry's task has gone, or the marker fails.
pub(super) async fn run(
    mut timers: Timers,
    clock: Clock,
    mut marker: Marker,
    told: mpsc::Sender<Vec<Notice>>,
) -> io::Result<()> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut observation = Observation::default();
    let mut all_taken = true;
    loop {
        if all_taken {
            tick.tick().await;
        }
        let sent = clock.elapsed_ms();
        marker.pass().await?;
        let observed = observation.back(sent, clock.elapsed_ms());
        clock.observe(observed);
        if observed.unheard_ms > 0 {
            let ms = observed.unheard_ms;
            tracing::warn!(ms, "Convoy could hear nobody for a while; all leases are extended by that time");
        }
        all_taken = true;
        match told.try_reserve() {
            Ok(place) => {
                let mut notices = Vec::new();
                all_taken = timers.turn(observed.until_ms, &mut notices);
                if !notices.is_empty() {
                    place.send(notices);
                }
            }
            Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
        }
    }
}

pub fn tick_ms() -> u64 {
    TICK.as_millis() as u64
}

/// The first tick at or after a time.
pub fn tick_of(at_ms: u64) -> u64 {
    at_ms.div_ceil(tick_ms())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::registry::lease::{Renewal, Whose};

    const LEASES: u128 = 6;

    fn ours(from_ms: u64) -> Whose {
        Whose::Ours { from_ms, spread: false }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Set(u128, u64),
        Heartbeat(u128),
        Revive(u128),
        Remove(u128),
        Keep(u128),
        Postpone(u128),
        ExpireKept(u128),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lease = 0..LEASES;
        prop_oneof![
            8 => (1u64..900).prop_map(Step::Wait),
            3 => (lease.clone(), 100u64..3_000).prop_map(|(lease, ttl)| Step::Set(lease, ttl)),
            8 => lease.clone().prop_map(Step::Heartbeat),
            1 => lease.clone().prop_map(Step::Revive),
            1 => lease.clone().prop_map(Step::Remove),
            1 => lease.clone().prop_map(Step::Keep),
            1 => lease.clone().prop_map(Step::Postpone),
            1 => lease.prop_map(Step::ExpireKept),
        ]
    }

    /// What a lease was last told to be.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Told {
        Nothing,
        Overdue,
        Lapsed,
    }

    /// What a lease must be, by the rules and nothing else.
    #[derive(Clone, Copy, Debug)]
    struct Model {
        ttl: u64,
        /// None: it is kept without one.
        deadline: Option<u64>,
        told: Told,
        /// It was heard since it was last told.
        heard: bool,
        /// Lapsed, and not decided.
        undecided: bool,
    }

    #[derive(Default)]
    struct World {
        now: u64,
        leases: BTreeMap<u128, Model>,
        /// An id is never given again.
        removed: BTreeSet<u128>,
    }

    impl World {
        fn hear(model: &mut Model, now: u64) {
            model.heard = model.told != Told::Nothing;
            model.deadline = Some(now + model.ttl);
            model.undecided = false;
        }

        fn tell(&mut self, notice: Notice) {
            let (Notice::Overdue(LeaseId(id)) | Notice::Returned(LeaseId(id)) | Notice::Lapsed(LeaseId(id))) = notice
            else {
                panic!("of another replica's lease no timer tells: {notice:?}");
            };
            let now = self.now;
            let Some(model) = self.leases.get_mut(&id) else { return assert!(matches!(notice, Notice::Returned(_))) };
            match notice {
                Notice::Overdue(_) => {
                    assert_eq!(model.told, Told::Nothing, "told twice");
                    assert!(model.deadline.is_some_and(|deadline| now <= deadline + tick_ms()), "late");
                    model.told = Told::Overdue;
                }
                Notice::Returned(_) => {
                    assert!(model.heard, "nobody heard {id}");
                    (model.told, model.heard) = (Told::Nothing, false);
                }
                Notice::Lapsed(_) => {
                    assert!(model.deadline.is_some_and(|deadline| deadline <= now), "a lease that holds lapses");
                    (model.told, model.undecided) = (Told::Lapsed, true);
                }
                Notice::OverdueElsewhere(_) | Notice::ReturnedElsewhere(_) => {}
            }
        }

        /// What must have been told by now.
        fn check(&self) {
            for (id, model) in &self.leases {
                assert!(!model.heard, "{id} was heard, and nobody told");
                if let Some(deadline) = model.deadline
                    && deadline + 2 * tick_ms() < self.now
                {
                    assert!(model.undecided, "{id} should have lapsed at {deadline}, it is {}", self.now);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// A renewed lease never lapses; a silent one does within two ticks; what is told comes in order.
        #[test]
        fn what_is_told_is_what_happened(steps in prop::collection::vec(step(), 1..80)) {
            let table = Arc::new(LeaseTable::default());
            let (mut timers, mut world) = (Timers::new(table.clone()), World::default());
            for step in steps {
                let now = world.now;
                match step {
                    Step::Wait(ms) => {
                        for _ in 0..=ms / tick_ms() {
                            world.now += tick_ms();
                            let mut notices = Vec::new();
                            while !timers.turn(world.now, &mut notices) {}
                            notices.into_iter().for_each(|notice| world.tell(notice));
                            world.check();
                        }
                    }
                    Step::Set(id, ..) if world.removed.contains(&id) => {}
                    Step::Set(id, ttl) => {
                        table.set(LeaseId(id), Duration::from_millis(ttl), ours(now));
                        let told = world.leases.get(&id).map_or(Told::Nothing, |model| model.told);
                        let new = Model { ttl, deadline: Some(now + ttl), told, heard: false, undecided: false };
                        let model = world.leases.entry(id).insert_entry(new).into_mut();
                        World::hear(model, now);
                    }
                    Step::Heartbeat(id) => {
                        let renewed = table.renew(LeaseId(id), now, None, None);
                        let model = world.leases.get_mut(&id).filter(|model| !model.undecided);
                        prop_assert_eq!(matches!(renewed, Renewal::Kept { .. }), model.is_some());
                        model.into_iter().for_each(|model| World::hear(model, now));
                    }
                    Step::Revive(id) => {
                        table.revive(LeaseId(id), now);
                        world.leases.get_mut(&id).into_iter().for_each(|model| World::hear(model, now));
                    }
                    Step::Remove(id) => {
                        table.remove(LeaseId(id));
                        world.leases.remove(&id);
                        world.removed.insert(id);
                    }
                    Step::Keep(id) => {
                        table.keep_lapsed(LeaseId(id));
                        if let Some(model) = world.leases.get_mut(&id).filter(|model| model.undecided) {
                            (model.deadline, model.undecided) = (None, false);
                        }
                    }
                    Step::Postpone(id) => {
                        table.postpone(LeaseId(id), now + 100);
                        if let Some(model) = world.leases.get_mut(&id).filter(|model| model.undecided) {
                            (model.deadline, model.undecided) = (Some(now + 100), false);
                        }
                    }
                    Step::ExpireKept(id) => {
                        let expired = table.expire_kept(LeaseId(id));
                        let model = world.leases.get_mut(&id).filter(|model| model.deadline.is_none());
                        prop_assert_eq!(expired, model.is_some());
                        if let Some(model) = model {
                            (model.deadline, model.undecided) = (Some(now), true);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_million_that_lapse_together_are_told_in_bounded_turns() {
        let table = Arc::new(LeaseTable::default());
        let mut timers = Timers::new(table.clone());
        (0..100_000).for_each(|id| table.set(LeaseId(id), Duration::from_secs(30), ours(0)));
        let (mut lapsed, mut turns) = (0, 0);
        for until in [10, 31_000] {
            loop {
                let mut notices = Vec::new();
                let all = timers.turn(until, &mut notices);
                turns += 1;
                assert!(notices.len() <= 2 * TIMERS_PER_TURN);
                lapsed += notices.iter().filter(|notice| matches!(notice, Notice::Lapsed(_))).count();
                if all {
                    break;
                }
            }
        }
        assert_eq!(lapsed, 100_000);
        assert!(turns > 100, "{turns}");
    }
}
