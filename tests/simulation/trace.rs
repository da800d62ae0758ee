//! What happens in a history, for who looks for the cause of a failure.

use std::{cell::Cell, fmt::Display};

use tokio::time::Instant;

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Prints from now on, with the time since.
pub fn begin() {
    BEGUN.set(Some(Instant::now()));
}

pub fn note<T: Display>(what: impl FnOnce() -> T) {
    if let Some(begun) = BEGUN.get() {
        eprintln!("{:9.3} s  {}", begun.elapsed().as_secs_f64(), what());
    }
}
