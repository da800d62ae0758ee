//! All chance of a thread from one seed, so that a simulated history goes the same way each time: the order of hash maps, and
//! which branch of a `select!` is looked at first, come from what the system gives out as random.
//!
//! On Linux the standard library asks for that by the symbol `getrandom`, if there is one. This one is it, in whatever
//! program links this crate: a thread that was given a seed is answered from it, all others by the system. The wall clock of
//! a thread is put in its place in the same way (`wall_from`).

mod wall;

use std::{cell::RefCell, fs::File, io::Read, slice};

use rand::{Rng, SeedableRng, rngs::StdRng};
pub use wall::wall_from;

thread_local! {
    static SOURCE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on, and until it ends, all that this thread draws by lot follows from the seed. To be called before it draws
/// anything: on a new thread.
pub fn from_seed(seed: u64) {
    SOURCE.with_borrow_mut(|source| *source = Some(StdRng::seed_from_u64(seed)));
}

/// # Safety
/// As of the system's: there is room for `length` bytes at `buffer`.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's promise.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer, length) };
    let from_seed = SOURCE.try_with(|source| match &mut *source.borrow_mut() {
        Some(random) => {
            random.fill_bytes(buffer);
            true
        }
        None => false,
    });
    let filled =
        from_seed == Ok(true) || File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer)).is_ok();
    if filled { length as isize } else { -1 }
}
