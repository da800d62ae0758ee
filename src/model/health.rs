//! Health: independent axes, and one verdict derived from them.

use super::{Instance, UnixMillis};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Starting,
    Healthy,
    Unhealthy,
    Draining,
}

impl Verdict {
    /// In the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Healthy, Self::Unhealthy, Self::Draining];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub verdict: Verdict,
    pub reason: &'static str,
    pub since: UnixMillis,
}

/// Merges the axes. A lapsed lease is no row: the instance is gone then.
///
/// | draining | ready | was ready | verdict   |
/// | -------- | ----- | --------- | --------- |
/// | yes      | any   | any       | draining  |
/// | no       | yes   | any       | healthy   |
/// | no       | no    | no        | starting  |
/// | no       | no    | yes       | unhealthy |
pub fn verdict(draining: bool, ready: bool, was_ready: bool) -> (Verdict, &'static str) {
    match (draining, ready, was_ready) {
        (true, _, _) => (Verdict::Draining, "it was asked to drain"),
        (false, true, _) => (Verdict::Healthy, "its agent says that it is ready"),
        (false, false, false) => (Verdict::Starting, "its agent has not yet said that it is ready"),
        (false, false, true) => (Verdict::Unhealthy, "its agent says that it is not ready"),
    }
}

impl Instance {
    pub fn health(&self) -> Health {
        let (verdict, reason) = verdict(self.drain.is_some(), self.spec.ready, self.was_ready);
        Health { verdict, reason, since: self.health_since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_table() {
        use Verdict::{Draining, Healthy, Starting, Unhealthy};
        for (draining, ready, was_ready, expected) in [
            (true, true, true, Draining),
            (true, true, false, Draining),
            (true, false, true, Draining),
            (true, false, false, Draining),
            (false, true, true, Healthy),
            (false, true, false, Healthy),
            (false, false, true, Unhealthy),
            (false, false, false, Starting),
        ] {
            assert_eq!(verdict(draining, ready, was_ready).0, expected, "{draining} {ready} {was_ready}");
        }
    }
}
