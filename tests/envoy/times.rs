//! How long changes took, and the promise about it.

use std::{collections::BTreeMap, time::Duration};

/// From the API's answer, for the median of several.
const PROMISE: Duration = Duration::from_millis(100);
/// For each single change: the machine may have had something else to do.
const LIMIT: Duration = Duration::from_secs(1);

/// Times by the kind of change and where it was seen.
#[derive(Default)]
pub struct Times(BTreeMap<(&'static str, &'static str), Vec<Duration>>);

impl Times {
    pub fn add(&mut self, change: &'static str, seen_in: &'static str, took: Duration) {
        self.0.entry((change, seen_in)).or_default().push(took);
    }

    /// Prints the times, and panics if they are too long.
    pub fn keep_the_promise(mut self, what: &str) {
        let mut late = Vec::new();
        for ((change, seen_in), times) in &mut self.0 {
            let in_order: Vec<_> = times.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
            times.sort();
            let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
            println!("{what} {change}, in {seen_in}: median {median:.1?}, all in ms: {in_order:.0?}");
            if median > PROMISE || longest > LIMIT {
                late.push(format!("{change}, in {seen_in}: median {median:?}, longest {longest:?}"));
            }
        }
        assert!(late.is_empty(), "a median is over {PROMISE:?}, or a single time over {LIMIT:?}: {late:#?}");
    }
}
