//! The kernel alone: a CPU-clock timer on the running thread, with a handler that only counts.
#![allow(unsafe_code, reason = "a timer and its handler")]

use std::mem::{MaybeUninit, zeroed};
use std::sync::atomic::{AtomicU64, Ordering};

static FIRED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_signal: libc::c_int) {
    FIRED.fetch_add(1, Ordering::Relaxed);
}

/// Signals since the program began.
pub(crate) fn fired() -> u64 {
    FIRED.load(Ordering::Relaxed)
}

/// Fires until it is dropped, on the thread that made it.
#[derive(Debug)]
pub(crate) struct Timer(libc::timer_t);

impl Timer {
    pub(crate) fn start(hertz: u32) -> Self {
        // SAFETY: all-zero is a valid action and a valid event; their fields are set below.
        let (mut action, mut event): (libc::sigaction, libc::sigevent) = unsafe { zeroed() };
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler touches one atomic only.
        let set =
            unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR2;
        // SAFETY: takes nothing, changes nothing.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: both point to live locals.
        let made = unsafe { libc::timer_create(clock, &raw mut event, timer.as_mut_ptr()) };
        assert_eq!(made, 0);
        // SAFETY: made above.
        let timer = unsafe { timer.assume_init() };
        let period = libc::timespec {
            tv_sec: 0,
            tv_nsec: i64::from(1_000_000_000 / hertz),
        };
        let times = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: the timer is live.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const times, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        Self(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `start`, removed once.
        unsafe { libc::timer_delete(self.0) };
    }
}
