//! How much is kept, and how much is done at once. This crate's own tests have small ones, so that a history of a few
//! dozen steps meets every one of them.

/// How many events are kept to resume from.
pub(super) const KEPT_EVENTS: usize = if cfg!(test) { 48 } else { 65_536 };
/// What waits in a watch's inbox: a burst.
pub(super) const MAX_DUE: usize = if cfg!(test) { 4 } else { 64 };
/// How many events a watch that is behind reads from the log at once.
pub(super) const BATCH: usize = if cfg!(test) { 12 } else { 1024 };
/// If more than these of a batch match, they are merged.
pub(super) const MAX_UNMERGED: usize = if cfg!(test) { 3 } else { 64 };
/// So many of the latest events keep their bytes, for watches that take a little longer.
pub(super) const WARM: usize = if cfg!(test) { 2 } else { 256 };
