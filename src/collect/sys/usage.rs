//! What the kernel charges the process for, threads that have ended included.
//!
//! `/proc/self/status` counts the context switches of the main thread only, and the files of the
//! other threads vanish with them.

#![expect(unsafe_code, reason = "getrusage has no counterpart in std or /proc")]

use std::mem::MaybeUninit;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
}

/// Totals since the start of the process.
///
/// # Cost
/// One system call; the kernel walks the threads.
pub(crate) fn of_process() -> Option<Usage> {
    let mut raw = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to a whole, writable `rusage` that outlives the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, raw.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: getrusage returned 0, so it has filled the struct.
    let raw = unsafe { raw.assume_init() };
    Some(Usage {
        user: duration(raw.ru_utime)?,
        system: duration(raw.ru_stime)?,
        minor_faults: raw.ru_minflt.try_into().ok()?,
        major_faults: raw.ru_majflt.try_into().ok()?,
        voluntary_switches: raw.ru_nvcsw.try_into().ok()?,
        involuntary_switches: raw.ru_nivcsw.try_into().ok()?,
    })
}

fn duration(time: libc::timeval) -> Option<Duration> {
    let seconds = Duration::from_secs(time.tv_sec.try_into().ok()?);
    let micros = Duration::from_micros(time.tv_usec.try_into().ok()?);
    seconds.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_have_ended_stay_counted() {
        let before = of_process().unwrap();
        let burn = || {
            let own = || {
                let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                let nanos = text.split_whitespace().next().unwrap().parse().unwrap();
                Duration::from_nanos(nanos)
            };
            let mut sum = 0_u64;
            while own() < Duration::from_millis(60) {
                sum = (0..100_000).fold(sum, |sum, value| std::hint::black_box(sum ^ value));
            }
        };
        std::thread::spawn(burn).join().unwrap();
        let after = of_process().unwrap();
        let used = (after.user + after.system) - (before.user + before.system);
        assert!(used >= Duration::from_millis(55), "{used:?}");
        assert!(after.voluntary_switches > before.voluntary_switches);
    }
}
