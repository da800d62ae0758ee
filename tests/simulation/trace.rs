//! What happens in a history, for who looks for the cause of a failure.

use std::{
    cell::Cell,
    fmt::{Debug, Display},
};

use convoy::model::UnixMillis;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

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

/// What all of something comes to, and what the wall clock says: two runs of one seed say the same.
pub fn state<T: Debug>(of: impl Display, what: impl FnOnce() -> T) {
    note(|| format!("{of} is {:016x} at {}", xxh3_64(format!("{:?}", what()).as_bytes()), UnixMillis::now().0));
}
