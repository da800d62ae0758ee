//! A hierarchical timing wheel (Varghese and Lauck, 1987): O(1) to set a timer, no work until one is due.
//!
//! Timers are not moved when their deadline is: whoever takes a due timer looks at the real deadline, and sets it again
//! if that has advanced. Pure: ticks come in as numbers.

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;

#[derive(Debug)]
pub struct Wheel<T> {
    /// The last tick that was taken.
    now: u64,
    /// Level n holds what is due within 256^(n+1) ticks, by the n-th byte of its tick.
    levels: [Vec<Vec<(u64, T)>>; LEVELS],
    due: Vec<T>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        let level = || (0..SLOTS).map(|_| Vec::new()).collect();
        Self { now: 0, levels: std::array::from_fn(|_| level()), due: Vec::new() }
    }
}

impl<T> Wheel<T> {
    /// Sets a timer. One in the past, or now, is due at the next `advance`; one beyond the wheel's horizon (256^4
    /// ticks) is due at the horizon.
    pub fn set(&mut self, tick: u64, timer: T) {
        if tick <= self.now {
            self.due.push(timer);
            return;
        }
        let horizon = (1u64 << (SLOT_BITS * LEVELS as u32)) - 1;
        let tick = tick.min(self.now + horizon);
        // The level is where the tick first differs from now; above that both run together.
        let differs = 63 - (tick ^ self.now).leading_zeros();
        let level = ((differs / SLOT_BITS) as usize).min(LEVELS - 1);
        self.levels[level][slot(tick, level)].push((tick, timer));
    }

    /// Goes to a tick and takes what is due by then.
    pub fn advance(&mut self, to: u64) -> Vec<T> {
        while self.now < to {
            self.now += 1;
            for level in (1..LEVELS).rev() {
                // A level's slot opens when all levels below it have come round.
                if self.now.trailing_zeros() >= SLOT_BITS * level as u32 {
                    for (tick, timer) in std::mem::take(&mut self.levels[level][slot(self.now, level)]) {
                        self.set(tick, timer);
                    }
                }
            }
            let due = std::mem::take(&mut self.levels[0][slot(self.now, 0)]);
            self.due.extend(due.into_iter().map(|(_, timer)| timer));
        }
        std::mem::take(&mut self.due)
    }
}

fn slot(tick: u64, level: usize) -> usize {
    (tick >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_level_at_its_borders() {
        for tick in [1, 255, 256, 257, 65_535, 65_536, 65_537, 16_777_215, 16_777_216, 16_777_300] {
            let mut wheel = Wheel::default();
            wheel.set(tick, ());
            assert!(wheel.advance(tick - 1).is_empty(), "{tick}");
            assert_eq!(wheel.advance(tick).len(), 1, "{tick}");
            assert!(wheel.advance(tick + 1).is_empty(), "{tick}");
        }
    }

    proptest! {
        #[test]
        fn a_timer_is_taken_at_its_tick(steps in prop::collection::vec((1u64..3000, 0u64..200_000), 1..60)) {
            let (mut wheel, mut now, mut set) = (Wheel::default(), 0, Vec::new());
            for (step, ahead) in steps {
                wheel.set(now + ahead, now + ahead);
                set.push(now + ahead);
                now += step;
                let mut due = wheel.advance(now);
                due.sort_unstable();
                let mut expected: Vec<u64> = set.extract_if(.., |tick| *tick <= now).collect();
                expected.sort_unstable();
                prop_assert_eq!(due, expected);
            }
        }
    }
}
