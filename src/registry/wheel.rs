//! A hierarchical timing wheel (Varghese and Lauck, 1987): O(1) to set a timer, no work until one is due.
//!
//! Timers are not moved when their deadline is: whoever takes a due timer looks at the real deadline, and sets it again
//! if that has advanced. Pure: ticks come in as numbers.
//!
//! A million timers may stand in one slot. So the work is bounded: `advance` takes so many steps at most, and the next
//! call goes on where it stopped; nothing is lost or early meanwhile.

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;

type Slot<T> = Vec<(u64, T)>;

#[derive(Debug)]
pub struct Wheel<T> {
    /// The last tick that was taken.
    now: u64,
    /// Level n holds what is due within 256^(n+1) ticks, by the n-th byte of its tick.
    levels: [Vec<Slot<T>>; LEVELS],
    /// Slots that have opened, and whose timers are still to be set anew or are due.
    opened: Vec<Slot<T>>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        let level = || (0..SLOTS).map(|_| Vec::new()).collect();
        Self { now: 0, levels: std::array::from_fn(|_| level()), opened: Vec::new() }
    }
}

impl<T> Wheel<T> {
    /// Sets a timer. One in the past, or now, is due at the next `advance`; one beyond the wheel's horizon (256^4
    /// ticks) is due at the horizon.
    pub fn set(&mut self, tick: u64, timer: T) {
        if tick <= self.now {
            match self.opened.first_mut() {
                Some(slot) => slot.push((tick, timer)),
                None => self.opened.push(vec![(tick, timer)]),
            }
            return;
        }
        let horizon = (1u64 << (SLOT_BITS * LEVELS as u32)) - 1;
        let tick = tick.min(self.now + horizon);
        // The level is where the tick first differs from now; above that both run together.
        let differs = 63 - (tick ^ self.now).leading_zeros();
        let level = ((differs / SLOT_BITS) as usize).min(LEVELS - 1);
        self.levels[level][slot(tick, level)].push((tick, timer));
    }

    /// Goes towards a tick, and hands over what is due by then; `steps` is how many timers may be touched. Answers
    /// whether it is there.
    pub fn advance(&mut self, to: u64, steps: usize, due: &mut Vec<T>) -> bool {
        for _ in 0..steps {
            let Some((tick, timer)) = self.next_opened(to) else { return true };
            if tick <= self.now {
                due.push(timer);
            } else {
                self.set(tick, timer);
            }
        }
        false
    }

    /// The next timer of a slot that has opened by then.
    fn next_opened(&mut self, to: u64) -> Option<(u64, T)> {
        loop {
            while let Some(slot) = self.opened.last_mut() {
                if let Some(timer) = slot.pop() {
                    return Some(timer);
                }
                self.opened.pop();
            }
            if self.now >= to {
                return None;
            }
            self.now += 1;
            for level in 0..LEVELS {
                // A level's slot opens when all levels below it have come round.
                if self.now.trailing_zeros() >= SLOT_BITS * level as u32 {
                    self.opened.push(std::mem::take(&mut self.levels[level][slot(self.now, level)]));
                }
            }
        }
    }
}

fn slot(tick: u64, level: usize) -> usize {
    (tick >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn advance<T>(wheel: &mut Wheel<T>, to: u64) -> Vec<T> {
        let mut due = Vec::new();
        assert!(wheel.advance(to, usize::MAX, &mut due), "without a limit it gets there");
        due
    }

    #[test]
    fn each_level_at_its_borders() {
        for tick in [1, 255, 256, 257, 65_535, 65_536, 65_537, 16_777_215, 16_777_216, 16_777_300] {
            let mut wheel = Wheel::default();
            wheel.set(tick, ());
            assert!(advance(&mut wheel, tick - 1).is_empty(), "{tick}");
            assert_eq!(advance(&mut wheel, tick).len(), 1, "{tick}");
            assert!(advance(&mut wheel, tick + 1).is_empty(), "{tick}");
        }
    }

    #[test]
    fn a_full_slot_is_taken_in_bounded_turns() {
        for tick in [3, 300, 70_000] {
            let mut wheel = Wheel::default();
            (0..1_000).for_each(|timer| wheel.set(tick, timer));
            let (mut due, mut turns) = (Vec::new(), 0);
            while !wheel.advance(tick, 100, &mut due) {
                turns += 1;
                assert!(due.len() <= turns * 100);
            }
            due.sort_unstable();
            // Each is touched once to be taken, and once more for each level that it comes down.
            assert!((9..40).contains(&turns), "{tick}: {turns}");
            assert_eq!(due, (0..1_000).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn in_turns_nothing_is_lost_and_nothing_early(
            steps in prop::collection::vec((0u64..3000, 0u64..200_000, 0usize..4), 1..60),
        ) {
            let (mut wheel, mut to, mut set, mut taken) = (Wheel::default(), 0, Vec::new(), Vec::new());
            for (step, ahead, turns) in steps {
                to += step;
                wheel.set(to + ahead, to + ahead);
                set.push(to + ahead);
                wheel.advance(to, turns, &mut taken);
                prop_assert!(taken.iter().all(|tick| *tick <= to));
            }
            wheel.advance(to + 200_000, usize::MAX, &mut taken);
            set.sort_unstable();
            taken.sort_unstable();
            prop_assert_eq!(taken, set);
        }

        #[test]
        fn a_timer_is_taken_at_its_tick(steps in prop::collection::vec((1u64..3000, 0u64..200_000), 1..60)) {
            let (mut wheel, mut now, mut set) = (Wheel::default(), 0, Vec::new());
            for (step, ahead) in steps {
                wheel.set(now + ahead, now + ahead);
                set.push(now + ahead);
                now += step;
                let mut due = advance(&mut wheel, now);
                due.sort_unstable();
                let mut expected: Vec<u64> = set.extract_if(.., |tick| *tick <= now).collect();
                expected.sort_unstable();
                prop_assert_eq!(due, expected);
            }
        }
    }
}
