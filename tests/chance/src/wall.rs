//! The wall clock of a thread, as a simulation tells it, and not the machine's.
//!
//! The standard library asks for the time by the symbol `clock_gettime`. On Linux this one is it, in whatever program links
//! this crate: a thread that has a wall clock of its own is answered by that. All other clocks, and other threads' wall
//! clocks, are the system's.

use std::{cell::Cell, time::Duration};

thread_local! {
    static WALL: Cell<Option<fn() -> Duration>> = const { Cell::new(None) };
}

/// From now on, and until it ends, this thread's wall clock is as `tell` says: so long after the beginning of 1970.
pub fn wall_from(tell: fn() -> Duration) {
    WALL.set(Some(tell));
}

#[cfg(target_os = "linux")]
mod symbol {
    use std::ptr::addr_of_mut;

    use super::WALL;

    /// # Safety
    /// As of the system's: there is room for the time at `time`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
        let is_wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
        match WALL.try_with(|wall| wall.get()).ok().flatten().filter(|_| is_wall) {
            Some(tell) => {
                let now = tell();
                // SAFETY: the caller's promise.
                unsafe {
                    addr_of_mut!((*time).tv_sec).write(now.as_secs() as libc::time_t);
                    addr_of_mut!((*time).tv_nsec).write(now.subsec_nanos() as libc::c_long);
                }
                0
            }
            // SAFETY: the caller's promise, passed on.
            None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        thread,
        time::{Instant, SystemTime, UNIX_EPOCH},
    };

    use super::*;

    fn now() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
    }

    #[test]
    fn a_thread_has_a_wall_clock_of_its_own_and_no_other_clock_or_thread_is_touched() {
        let told = Duration::new(86_400, 7);
        thread::spawn(move || {
            let real = now();
            wall_from(|| Duration::new(86_400, 7));
            assert_eq!(now(), told);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {}
            assert_eq!(now(), told);
            assert!(thread::spawn(now).join().expect("it ends") >= real);
        })
        .join()
        .expect("the clocks are as they should be");
    }
}
