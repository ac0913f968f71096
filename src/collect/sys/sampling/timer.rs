//! POSIX CPU-clock timers by raw system call, so that the handler may make one too.
//!
//! Source: timer_create(2), clock_getcpuclockid(3). The C library's own `timer_create` keeps a list
//! under a lock for some modes; the system call does not.
#![expect(unsafe_code, reason = "timer system calls")]

use std::io;
use std::time::Duration;

use super::records::ThreadName;

/// The CPU clock of one thread: the kernel's encoding of "per thread, scheduler time".
fn thread_clock(tid: u32) -> i64 {
    (i64::from(!tid.cast_signed()) << 3) | 6
}

/// What a timer is for, carried back by its signal: never a pointer, since any process of the same
/// user can forge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

impl Cookie {
    /// The timer of the whole process.
    pub(crate) const PROCESS: Self = Self {
        number: u32::MAX,
        generation: u32::MAX,
    };

    pub(crate) fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
        Self {
            number: u32::from_le_bytes([a, b, c, d]),
            generation: u32::from_le_bytes([e, f, g, h]),
        }
    }

    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.number) | (u64::from(self.generation) << 32)
    }
}

/// The kernel's `struct sigevent`: 64 bytes on every 64-bit Linux.
#[repr(C)]
struct SigEvent {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    padding: [i32; 11],
}

/// A timer on the CPU clock of `tid` whose signal goes to that thread.
///
/// # Errors
/// The kernel's: EAGAIN when the user's pending signals are used up, EINVAL when the thread is gone.
pub(crate) fn create_for_thread(tid: u32, signal: i32, cookie: Cookie) -> io::Result<i32> {
    create(
        thread_clock(tid),
        libc::SIGEV_THREAD_ID,
        tid.cast_signed(),
        signal,
        cookie,
    )
}

/// A timer on the CPU clock of the process whose signal goes to some thread of it.
///
/// # Errors
/// The kernel's.
pub(crate) fn create_for_process(signal: i32) -> io::Result<i32> {
    let clock = i64::from(libc::CLOCK_PROCESS_CPUTIME_ID);
    create(clock, libc::SIGEV_SIGNAL, 0, signal, Cookie::PROCESS)
}

fn create(clock: i64, notify: i32, tid: i32, signal: i32, cookie: Cookie) -> io::Result<i32> {
    let event = SigEvent {
        value: cookie.to_bits(),
        signo: signal,
        notify,
        tid,
        padding: [0; 11],
    };
    let mut timer: i32 = -1;
    // SAFETY: both pointers are to live locals of the layout that the system call reads and writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_timer_create,
            clock,
            &raw const event,
            &raw mut timer,
        )
    };
    if result == 0 {
        Ok(timer)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the time to the first signal and between signals; a zero period disarms.
///
/// Says whether the kernel took it.
pub(crate) fn set(timer: i32, first: Duration, period: Duration) -> bool {
    set_time(timer, 0, first, period)
}

/// The same with the first signal at a time of the timer's clock.
pub(crate) fn set_at(timer: i32, first: Duration, period: Duration) -> bool {
    set_time(timer, libc::TIMER_ABSTIME, first, period)
}

fn set_time(timer: i32, flags: i32, first: Duration, period: Duration) -> bool {
    let spec = libc::itimerspec {
        it_interval: timespec(period),
        it_value: timespec(first),
    };
    let none = std::ptr::null_mut::<libc::itimerspec>();
    // SAFETY: `spec` is a live local; a null old value is allowed.
    let result =
        unsafe { libc::syscall(libc::SYS_timer_settime, timer, flags, &raw const spec, none) };
    result == 0
}

/// Whether a timer that was set goes on. One whose thread has ended does not, on kernels that say so;
/// others say yes to the end.
pub(crate) fn goes_on(timer: i32) -> bool {
    let mut spec = libc::itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(Duration::ZERO),
    };
    // SAFETY: `spec` is a live local of the layout that the system call writes.
    let result = unsafe { libc::syscall(libc::SYS_timer_gettime, timer, &raw mut spec) };
    result == 0 && (spec.it_interval.tv_sec, spec.it_interval.tv_nsec) != (0, 0)
}

/// Removes a timer; a signal of it may still be pending.
pub(crate) fn delete(timer: i32) {
    // SAFETY: takes a number; an unknown one is an error that changes nothing.
    unsafe { libc::syscall(libc::SYS_timer_delete, timer) };
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// CPU time that a thread has used; `None` if it is gone.
pub(crate) fn thread_cpu(tid: u32) -> Option<Duration> {
    clock(thread_clock(tid))
}

/// CPU time that the process has used, in all its threads, ended ones included.
pub(crate) fn process_cpu() -> Option<Duration> {
    clock(i64::from(libc::CLOCK_PROCESS_CPUTIME_ID))
}

fn clock(clock: i64) -> Option<Duration> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a live local of the layout that the system call writes.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).ok()?;
    let nanos = u32::try_from(now.tv_nsec).ok()?;
    (result == 0).then(|| Duration::new(seconds, nanos))
}

/// The running thread's id.
#[inline]
pub(crate) fn current_tid() -> u32 {
    // SAFETY: takes nothing, changes nothing, cannot fail.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    u32::try_from(tid).unwrap_or(0)
}

/// The running thread's name. Safe in a handler: one system call.
pub(crate) fn current_name() -> ThreadName {
    let mut name = ThreadName::default();
    // SAFETY: the kernel writes 16 bytes, which `name` has.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Between two of the kernel's looks at CPU clocks; as fine as they are.
pub(crate) fn tick() -> Duration {
    let mut resolution = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `resolution` is a live local.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    let nanos = u64::try_from(resolution.tv_nsec).unwrap_or(0);
    Duration::from_nanos(nanos.clamp(1_000_000, 10_000_000))
}

/// Timers that this process may take: half of the user's places for pending signals, since each takes
/// one and the user's other processes need some.
pub(crate) fn allowed() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live local of the layout that the call writes.
    unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut limit) };
    usize::try_from(limit.rlim_cur / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_survives_its_bits() {
        let cookie = Cookie {
            number: 0xdead_beef,
            generation: 0x0102_0304,
        };
        assert_eq!(Cookie::from_bits(cookie.to_bits()), cookie);
    }

    #[test]
    fn a_thread_that_is_gone_is_an_error() {
        let tid = std::thread::spawn(current_tid).join().unwrap();
        assert!(create_for_thread(tid, libc::SIGRTMAX(), Cookie::PROCESS).is_err());
    }

    #[test]
    fn a_timer_goes_on_until_it_is_disarmed() {
        let tid = current_tid();
        let timer = create_for_thread(tid, libc::SIGRTMAX(), Cookie::PROCESS).unwrap();
        assert!(!goes_on(timer), "it was never set");
        let far = Duration::from_secs(3600);
        assert!(set(timer, far, far) && goes_on(timer));
        assert!(set(timer, Duration::ZERO, Duration::ZERO) && !goes_on(timer));
        delete(timer);
        assert!(!goes_on(timer));
    }
}
