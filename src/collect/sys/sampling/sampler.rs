//! What the sampling handler shares with the threads that arm and drain it.
#![expect(
    unsafe_code,
    reason = "memory that a signal handler may find at any later time"
)]

use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
use std::time::Duration;

use super::arena::Arena;
use super::ask::Asks;
use super::records::{Record, Records};
use super::timer::{self, Cookie};
use super::{handler, modules, records, signal};
use crate::store::metrics::whole_nanos;

/// Events by what became of them: `fired` is the sum of all others.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) fired: AtomicU64,
    pub(crate) recorded: AtomicU64,
    /// No slot was free.
    pub(crate) lost_full: AtomicU64,
    /// The record belonged to another thread by the time the signal came.
    pub(crate) lost_busy: AtomicU64,
    /// The signal was not sent by one of our timers.
    pub(crate) lost_foreign: AtomicU64,
    /// Sampling was off by the time the signal came.
    pub(crate) lost_off: AtomicU64,
}

/// A share of a whole that is handed out in whole numbers: what is left over is kept for the next one,
/// so that the sum is right to less than 1.
#[derive(Debug, Default)]
pub(super) struct Shares(AtomicU64);

impl Shares {
    /// The whole multiples of `unit` that have come together with `part`.
    #[inline]
    pub(super) fn take(&self, part: u64, unit: u64) -> u32 {
        let unit = unit.max(1);
        let before = self.0.fetch_add(part, Ordering::Relaxed);
        let whole = before.wrapping_add(part) / unit;
        u32::try_from(whole.saturating_sub(before / unit)).unwrap_or(0)
    }
}

/// What the handler works with. Leaked: a signal may arrive at any later time.
pub(crate) struct Sampler {
    /// 1 in the process that made it; on a page that the kernel zeroes in a forked child.
    pub(super) alive: &'static AtomicU32,
    pub(crate) arena: Arena,
    /// Questions to single threads, apart from the timers' samples.
    pub(crate) asks: Asks,
    pub(crate) records: Records,
    /// CPU time between samples; 0 while sampling is off.
    pub(super) period_nanos: AtomicU64,
    pub(crate) counts: Counts,
    /// Handlers under way.
    pub(super) running: AtomicUsize,
    pub(crate) signal: i32,
    /// This code is part of the program itself: in a library that was loaded later, the first look at
    /// a thread's mark may allocate.
    pub(super) reads_marks: bool,
    /// A thread wants its stack bounds looked up.
    pub(crate) wants_bounds: AtomicBool,
    /// Signals of the process's timer, and those of them that met a thread without a timer.
    pub(crate) ticks: AtomicU64,
    pub(crate) unmet: AtomicU64,
    /// CPU time that one signal of the process's timer stands for.
    pub(crate) tick_nanos: AtomicU64,
    /// CPU time of exempt threads that have ended.
    pub(crate) ended_nanos: AtomicU64,
    /// Threads that may have a timer at once.
    pub(crate) allowed: usize,
    pub(super) unmet_shares: Shares,
    pub(super) late_shares: Shares,
    random: AtomicU64,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

static SAMPLER: AtomicPtr<Sampler> = AtomicPtr::new(std::ptr::null_mut());

impl Sampler {
    /// Makes the one sampler of the process, or returns the one that exists.
    ///
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(crate) fn install(slots: usize, signal: i32) -> std::io::Result<&'static Self> {
        if let Some(present) = Self::get() {
            return Ok(present);
        }
        let made = Box::leak(Box::new(Self::new(slots, signal)?));
        SAMPLER.store(made, Ordering::Release);
        Ok(made)
    }

    /// A sampler that no signal comes to yet.
    ///
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(super) fn new(slots: usize, signal: i32) -> std::io::Result<Self> {
        Ok(Self {
            alive: wiped_on_fork()?,
            arena: Arena::new(slots)?,
            asks: Asks::new()?,
            records: Records::new(),
            period_nanos: AtomicU64::new(0),
            counts: Counts::default(),
            running: AtomicUsize::new(0),
            signal,
            reads_marks: modules::is_in_main_program(handler::address()),
            wants_bounds: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            unmet: AtomicU64::new(0),
            tick_nanos: AtomicU64::new(whole_nanos(timer::tick())),
            ended_nanos: AtomicU64::new(0),
            allowed: timer::allowed(),
            unmet_shares: Shares::default(),
            late_shares: Shares::default(),
            random: AtomicU64::new(u64::from(timer::current_tid()) | 1),
        })
    }

    /// The one sampler, if there is one.
    pub(crate) fn get() -> Option<&'static Self> {
        // SAFETY: a non-null pointer was stored by `install` and is never freed.
        unsafe { SAMPLER.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn period(&self) -> Duration {
        Duration::from_nanos(self.period_nanos.load(Ordering::Acquire))
    }

    /// Sets the period for timers armed from now on; zero turns sampling off.
    pub(crate) fn set_period(&self, period: Duration) {
        self.period_nanos
            .store(whole_nanos(period), Ordering::Release);
    }

    pub(crate) fn handlers_running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// A moment in (0, period]: timers that all begin with a whole period would under-count threads
    /// that live shorter than one.
    pub(crate) fn random_first(&self, period: Duration) -> Duration {
        // xorshift64 on a shared word: a lost update only repeats a number.
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Ordering::Relaxed);
        Duration::from_nanos(x % whole_nanos(period).max(1) + 1)
    }

    /// Arms a claimed record's timer.
    ///
    /// The kernel looks at CPU clocks on its ticks, half a tick late on average, so a thread ends
    /// with half a tick unseen. The first sample therefore stands for half a tick more. What is unseen
    /// of a thread that goes on is known: see [`unseen`](Self::unseen).
    ///
    /// # Errors
    /// The kernel's; the record stays claimed.
    pub(crate) fn arm(&self, number: u32, record: &Record) -> std::io::Result<()> {
        let cookie = Cookie {
            number,
            generation: record.generation(),
        };
        let timer = timer::create_for_thread(record.tid(), self.signal, cookie)?;
        record.arm(timer);
        let late = whole_nanos(timer::tick()) / 2;
        record.late_nanos.store(late, Ordering::Relaxed);
        self.set(record, timer);
        Ok(())
    }

    /// Puts a record's timer into service at a random phase.
    pub(crate) fn set(&self, record: &Record, timer: i32) {
        let mut period = self.period();
        while !period.is_zero() {
            let Some(used) = timer::thread_cpu(record.tid()) else {
                return;
            };
            let first = used + self.random_first(period);
            record.signalled.store(0, Ordering::Relaxed);
            record
                .first_nanos
                .store(whole_nanos(first), Ordering::Relaxed);
            timer::set_at(timer, first, period);
            // Another thread may have changed the period and been here before: the last word must be
            // the new one.
            fence(Ordering::SeqCst);
            let now = self.period();
            if now == period {
                return;
            }
            period = now;
        }
    }

    /// Samples that are due of a thread whose timer was set at this period, without a signal that stands
    /// for them; to be asked when the timer is out of service.
    ///
    /// The signal comes at the next tick that meets the thread, be it seconds later: a thread that is
    /// called in step with the tick is met by none. Until then the timer counts on by itself.
    pub(crate) fn unseen(&self, record: &Record, period: Duration) -> u32 {
        let first = record.first_nanos.load(Ordering::Relaxed);
        let used = timer::thread_cpu(record.tid()).map_or(0, whole_nanos);
        let beyond = used.checked_sub(first).filter(|_| first > 0);
        let due = beyond.map_or(0, |beyond| 1 + beyond / whole_nanos(period).max(1));
        let unseen = due.saturating_sub(record.signalled.load(Ordering::Relaxed));
        u32::try_from(unseen).unwrap_or(u32::MAX)
    }

    /// The running thread is the agent's own and ends now: its time is none of the host's, however short
    /// it was for the watcher to meet it.
    pub(crate) fn farewell(&self) {
        let tid = timer::current_tid();
        let used = timer::thread_cpu(tid).map_or(0, whole_nanos);
        match self.records.of(tid) {
            // Added when the watcher finds that the thread has ended.
            Some((_, record)) => record.cpu_nanos.store(used, Ordering::Relaxed),
            None => {
                self.ended_nanos.fetch_add(used, Ordering::Relaxed);
            }
        }
    }

    /// The running thread, which has just started, has a timer of its own at once, or is left out if it
    /// is the agent's.
    pub(crate) fn welcome(&self) {
        let is_off = self.alive.load(Ordering::Relaxed) != 1 || self.period().is_zero();
        let tid = timer::current_tid();
        let is_full = self.records.held_count() >= self.allowed;
        let is_known = self.records.of(tid).is_some();
        if is_off || is_full || is_known || signal::is_blocked_here(self.signal) {
            return;
        }
        let name = timer::current_name();
        // As for a handler: whoever stops sampling waits until the timer is known.
        self.running.fetch_add(1, Ordering::AcqRel);
        if let Some((number, record)) = self.records.claim(tid) {
            record.set_name(name);
            if records::is_agents_own(&name) {
                self.records.leave_out(number);
            } else if self.arm(number, record).is_err() {
                self.records.release(record);
            }
        }
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A word that is 1 here and 0 in every forked child, whichever way it was forked.
pub(in crate::collect::sys) fn wiped_on_fork() -> std::io::Result<&'static AtomicU32> {
    let page = 4096;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping made above.
    let advised = unsafe { libc::madvise(mapped, page, libc::MADV_WIPEONFORK) };
    if advised != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: page-aligned, zeroed, never unmapped.
    let word = unsafe { &*mapped.cast::<AtomicU32>() };
    word.store(1, Ordering::Release);
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sampler whose signal is ignored, so that its timers run and nothing comes of them.
    fn sampler() -> Sampler {
        let signal = libc::SIGRTMIN() + 9;
        // SAFETY: nobody else in this program uses this signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
        let sampler = Sampler::new(1, signal).unwrap();
        sampler.set_period(Duration::from_millis(10));
        sampler
    }

    #[test]
    fn a_thread_that_says_that_it_started_has_one_timer_at_once() {
        let sampler = sampler();
        sampler.welcome();
        let (number, record) = sampler.records.of(timer::current_tid()).unwrap();
        let first = record.timer().unwrap();
        assert!(timer::goes_on(first));
        assert_eq!(record.name(), timer::current_name());
        sampler.welcome();
        let again = sampler.records.of(timer::current_tid()).unwrap();
        assert_eq!((again.0, again.1.timer()), (number, Some(first)));
        assert_eq!(sampler.records.held_count(), 1);
        timer::delete(first);
    }

    #[test]
    fn nothing_is_set_up_where_nothing_is_sampled_or_no_timer_is_left() {
        let mut sampler = sampler();
        sampler.set_period(Duration::ZERO);
        sampler.welcome();
        assert_eq!(sampler.records.held_count(), 0);
        sampler.set_period(Duration::from_millis(10));
        sampler.allowed = 0;
        sampler.welcome();
        assert_eq!(sampler.records.held_count(), 0);
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let shares = Shares::default();
        let total: u32 = (0..1000).map(|_| shares.take(396, 1000)).sum();
        assert_eq!(total, 396);
        let total: u32 = (0..1000).map(|_| shares.take(4000, 1001)).sum();
        assert!((3995..=3996).contains(&total), "{total}");
    }
}
