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
use super::even::Even;
use super::records::{Record, Records, ThreadName};
use super::timer::{self, Cookie};
use super::{handler, modules, records, signal};

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
    pub(super) shares: Even,
    phases: Even,
    /// Between two of the kernel's looks at CPU clocks.
    tick: u64,
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
        let tick = whole_nanos(timer::tick());
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
            tick_nanos: AtomicU64::new(tick),
            ended_nanos: AtomicU64::new(0),
            allowed: timer::allowed(),
            shares: Even::from_seed(timer::current_tid()),
            phases: Even::from_seed(timer::current_tid()),
            tick,
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

    /// Arms a claimed record's timer.
    ///
    /// # Errors
    /// The kernel's; the record stays claimed.
    pub(crate) fn arm(&self, number: u32, record: &Record) -> std::io::Result<()> {
        self.set(record, self.create(number, record)?);
        Ok(())
    }

    fn create(&self, number: u32, record: &Record) -> std::io::Result<i32> {
        let cookie = Cookie {
            number,
            generation: record.generation(),
        };
        let timer = timer::create_for_thread(record.tid(), self.signal, cookie)?;
        record.arm(timer);
        Ok(timer)
    }

    /// Puts a record's timer into service: from the thread's next tick on.
    ///
    /// The kernel looks at CPU clocks on its ticks only, so what a thread used after its last tick is
    /// never seen, half a tick on average; all of it for a thread that meets no tick. What is right for
    /// any life is that each tick stands for a tick of CPU time. So the timer is due at once, its first
    /// signal weighs one tick, and [`go_on`](Self::go_on) counts periods from there. A random first
    /// expiry instead, with half a tick on top of the first sample, would be lost with that sample: at
    /// 99 Hz a thread of 6 ms would count 4.8 ms.
    ///
    /// What is left: a thread that loses its core in the middle of a tick has ticks that lie closer
    /// in its CPU time, and what it used before the first and after the last of them is more than one.
    /// Threads of 6 ms came to 1.008 of their CPU time on two cores of their own and to 0.91-0.94 with
    /// three busy threads on them, those of 20 ms to 0.99 and 0.98 (2026-11-26, 2-core VM, windows of
    /// 6 CPU-seconds).
    pub(crate) fn set(&self, record: &Record, timer: i32) {
        record.fresh.store(true, Ordering::Relaxed);
        self.put(timer, |_| Duration::from_nanos(1));
    }

    /// The weight of a timer's first signal, which comes on the first tick that it can.
    pub(super) fn first_weight(&self, record: &Record) -> u32 {
        if let Some(timer) = record.timer() {
            self.go_on(timer);
        }
        self.shares
            .share(self.tick, self.period_nanos.load(Ordering::Relaxed))
    }

    /// Counts periods from here, where a tick was weighed just now. At a random phase: else threads
    /// that live shorter than a period would not be counted on.
    fn go_on(&self, timer: i32) {
        self.put(timer, |period| {
            Duration::from_nanos(self.phases.moment(whole_nanos(period)))
        });
    }

    fn put(&self, timer: i32, first: impl Fn(Duration) -> Duration) {
        loop {
            let period = self.period();
            let first = if period.is_zero() {
                period
            } else {
                first(period)
            };
            timer::set(timer, first, period);
            // Another thread may have changed the period and been here before: the last word must be
            // the new one.
            fence(Ordering::SeqCst);
            if self.period() == period {
                return;
            }
        }
    }

    /// Gives the running thread a timer of its own by system calls alone, so that a handler may; not
    /// if it has a record, if sampling is off or if there are no more timers.
    fn give_timer(&self, tid: u32, name: ThreadName, begin: impl FnOnce(&Record, i32)) {
        if self.records.held_count() >= self.allowed {
            return;
        }
        let Some((number, record)) = self.records.claim(tid) else {
            return;
        };
        record.set_name(name);
        match self.create(number, record) {
            Ok(timer) => begin(record, timer),
            Err(_) => self.records.release(record),
        }
    }

    /// The running thread, which has just started, is sampled from its first tick on.
    pub(crate) fn welcome(&self) {
        let is_off = self.alive.load(Ordering::Relaxed) != 1 || self.period().is_zero();
        let tid = timer::current_tid();
        if is_off || self.records.of(tid).is_some() || signal::is_blocked_here(self.signal) {
            return;
        }
        let name = timer::current_name();
        if records::is_agents_own(&name) {
            return;
        }
        // As for a handler: whoever stops sampling waits until the timer is known.
        self.running.fetch_add(1, Ordering::AcqRel);
        self.give_timer(tid, name, |record, timer| self.set(record, timer));
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A word that is 1 here and 0 in every forked child, whichever way it was forked.
pub(super) fn wiped_on_fork() -> std::io::Result<&'static AtomicU32> {
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
        assert!(timer::goes_on(first) && record.fresh.load(Ordering::Relaxed));
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
    fn a_timer_that_is_set_while_sampling_ends_does_not_go_on() {
        let sampler = sampler();
        sampler.welcome();
        let (_, record) = sampler.records.of(timer::current_tid()).unwrap();
        let timer = record.timer().unwrap();
        sampler.set_period(Duration::ZERO);
        sampler.go_on(timer);
        assert!(!timer::goes_on(timer));
        timer::delete(timer);
    }
}
