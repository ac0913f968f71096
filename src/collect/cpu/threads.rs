//! The thread `sg-watch`: keeps a timer on every thread of the process while sampling is on.
//!
//! Threads older than the agent, threads of C libraries and threads that end are all found the same
//! way, by looking at `/proc/self/task`. It also looks up where each thread's stack lies. Threads that
//! it has not met, or that the kernel refused a timer, are left to the process's timer.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::collect::heap::leave_out_this_thread;
use crate::collect::sys::sampling::records::{self, Record, ThreadName};
use crate::collect::sys::sampling::sampler::Sampler;
use crate::collect::sys::sampling::{signal, timer};
use crate::store::metrics::whole_nanos;
use crate::store::sync::lock;

/// Between two looks at the number of threads, while threads come and go or somebody waits for a fine
/// profile, in which a new thread must have its timer soon.
const LOOK: Duration = Duration::from_millis(50);
/// The same at all other times: then only the recorder samples. A look wakes a thread on a cold cache,
/// which costs ten times what the look does; until a new thread is found, the process's timer samples it.
const CALM: Duration = Duration::from_millis(250);
/// How long a thread that was found must have stayed to be given a timer.
const STAY: Duration = Duration::from_millis(30);
/// Between two full scans when the number has not changed: one thread may have ended as another began.
const SCAN: Duration = Duration::from_secs(1);
/// A period up to which a profile is a fine one.
const FINE: Duration = Duration::from_millis(20);
/// How long the process's timer stays fast after a thread without a timer was seen.
const CHURN: Duration = Duration::from_secs(1);
/// The process's timer while threads come and go: shorter than any tick, so that it signals on each
/// tick of each core; one that is due now and then goes to whichever core ticks first.
const FAST: Duration = Duration::from_micros(1);
/// The same while all threads have timers: it only looks for new ones.
const SLOW: Duration = Duration::from_millis(20);
/// Between two tries of a thread that blocks the signal, at most. At first it is tried at every look:
/// one that is just starting blocks all signals for a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// Full scans in which each thread's start is read once. Kernels that do not tell of an ended thread's
/// timer learn then that its id is another's.
const TURNS: u32 = 8;
/// Signals after which the CPU time that one of them stands for is worked out anew.
const TICKS: u64 = 16;

/// What the watcher and its owner share.
#[derive(Debug, Default)]
struct Shared {
    stop: Mutex<bool>,
    changed: Condvar,
    hijacked: AtomicBool,
}

/// The running watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Arms every thread there is, then starts the thread that follows them.
    ///
    /// # Errors
    /// The operating system's if it gives no thread.
    pub(super) fn start(sampler: &'static Sampler) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut watch = Watch {
            sampler,
            shared: Arc::clone(&shared),
            links: 0,
            newcomers: HashSet::new(),
            blocking: HashMap::new(),
            turn: 0,
            process: ProcessTimer::new(sampler),
        };
        watch.scan(Arming::All, true);
        let thread = std::thread::Builder::new()
            .name("sg-watch".to_owned())
            .spawn(move || {
                leave_out_this_thread();
                watch.run();
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Somebody else took the signal.
    pub(super) fn is_hijacked(&self) -> bool {
        self.shared.hijacked.load(Ordering::Acquire)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by the panic hook; timers are disarmed by the owner.
            drop(thread.join());
        }
    }
}

/// The timer on the process's CPU clock; `None` if the kernel refused it.
///
/// It is removed when this is dropped.
#[derive(Debug)]
struct ProcessTimer {
    sampler: &'static Sampler,
    timer: Option<i32>,
    period: Duration,
    /// When it last met a thread without a timer.
    met: Instant,
    unmet: u64,
    /// CPU time and signals when the time per signal was last worked out.
    cpu: Option<Duration>,
    ticks: u64,
}

impl ProcessTimer {
    fn new(sampler: &'static Sampler) -> Self {
        let timer = timer::create_for_process(sampler.signal).ok();
        let mut made = Self {
            sampler,
            timer,
            period: Duration::ZERO,
            met: Instant::now(),
            unmet: sampler.unmet.load(Ordering::Relaxed),
            cpu: None,
            ticks: 0,
        };
        made.set(FAST);
        made
    }

    fn set(&mut self, period: Duration) {
        if let Some(timer) = self.timer {
            timer::set(timer, period, period);
        }
        self.period = period;
        let nanos = period.max(timer::tick()).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.sampler.tick_nanos.store(nanos, Ordering::Relaxed);
        self.cpu = timer::process_cpu();
        self.ticks = self.sampler.ticks.load(Ordering::Relaxed);
    }

    /// Makes it fast at once: threads without a timer were seen.
    fn hurry(&mut self) {
        self.met = Instant::now();
        if self.period != FAST {
            self.set(FAST);
        }
    }

    /// Follows what the timer's signals met; says whether that was a thread without a timer.
    fn look(&mut self) -> bool {
        let unmet = self.sampler.unmet.load(Ordering::Relaxed);
        let met = unmet != self.unmet;
        if met {
            self.unmet = unmet;
            self.met = Instant::now();
        }
        let wanted = if self.met.elapsed() < CHURN {
            FAST
        } else {
            SLOW
        };
        if wanted == self.period {
            self.work_out();
        } else {
            self.set(wanted);
        }
        met
    }

    /// The CPU time that one signal stands for.
    fn work_out(&mut self) {
        let ticks = self.sampler.ticks.load(Ordering::Relaxed);
        let signals = ticks.wrapping_sub(self.ticks);
        if signals < TICKS {
            return;
        }
        let now = timer::process_cpu();
        if let Some((now, before)) = now.zip(self.cpu) {
            let nanos = now.saturating_sub(before).as_nanos() / u128::from(signals);
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.sampler.tick_nanos.store(nanos, Ordering::Relaxed);
        }
        self.cpu = now;
        self.ticks = ticks;
    }
}

impl Drop for ProcessTimer {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer::delete(timer);
        }
    }
}

/// Which threads without a timer get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arming {
    All,
    /// Those that were there at the scan before: for one that ends soon a timer is wasted.
    Stayed,
}

/// What became of a thread that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// It has a timer, or never will have one.
    Done,
    /// It blocks the signal now.
    Blocking,
}

/// When a thread that blocks the signal is tried again.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    due: Instant,
    pause: Duration,
}

struct Watch {
    sampler: &'static Sampler,
    shared: Arc<Shared>,
    /// Links of the task folder: two and one per thread.
    links: u64,
    /// Threads seen for the first time at the last scan.
    newcomers: HashSet<u32>,
    /// Threads that blocked the signal when they were last tried.
    blocking: HashMap<u32, Blocking>,
    /// Of [`TURNS`].
    turn: u32,
    process: ProcessTimer,
}

impl Watch {
    fn run(&mut self) {
        let mut scanned = Instant::now();
        loop {
            {
                let stop = lock(&self.shared.stop);
                let coarse = self.sampler.period() > FINE;
                let calm = coarse && self.newcomers.is_empty() && self.process.period != FAST;
                let pause = match (self.newcomers.is_empty(), calm) {
                    (false, _) => STAY,
                    (true, false) => LOOK,
                    (true, true) => CALM,
                };
                let waited = self
                    .shared
                    .changed
                    .wait_timeout_while(stop, pause, |stop| !*stop);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
            }
            if !signal::is_ours(self.sampler.signal) {
                // Not ours to fight over: stop sending, and say so.
                self.sampler.set_period(Duration::ZERO);
                self.process.set(Duration::ZERO);
                disarm(self.sampler);
                self.shared.hijacked.store(true, Ordering::Release);
                return;
            }
            let met = self.process.look();
            for record in self.sampler.records.exempt() {
                exempt_cpu(record);
            }
            let links = fs::metadata("/proc/self/task").map_or(0, |task| task.nlink());
            let due = scanned.elapsed() >= SCAN;
            // Where threads come and go their number may stay, and the records of those that went are
            // wanted back.
            if met || links != self.links || !self.newcomers.is_empty() || due {
                self.scan(Arming::Stayed, due);
                if !self.newcomers.is_empty() {
                    self.process.hurry();
                }
            }
            self.try_again(Instant::now());
            if due {
                self.rename();
                scanned = Instant::now();
            }
            if self.sampler.wants_bounds.swap(false, Ordering::AcqRel) {
                self.find_bounds();
            }
        }
    }

    /// Gives back the records of threads that have ended and arms new ones; if it is `thorough`, also
    /// where another thread has taken an ended one's id.
    fn scan(&mut self, arming: Arming, thorough: bool) {
        self.links = fs::metadata("/proc/self/task").map_or(0, |task| task.nlink());
        let records = &self.sampler.records;
        // Before the look at what is alive: a thread may take a record by itself at any time.
        let held: Vec<(u32, &Record)> = records.held().map(|it| (it.tid(), it)).collect();
        let Ok(tasks) = fs::read_dir("/proc/self/task") else {
            return;
        };
        let alive: HashSet<u32> = tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        if thorough {
            self.turn = (self.turn + 1) % TURNS;
        }
        for (tid, record) in held.into_iter().filter(|(tid, it)| it.tid() == *tid) {
            // Half a microsecond for the timer, twenty for the start.
            let goes_on = record.timer().is_some_and(timer::goes_on);
            let due = tid % TURNS == self.turn || !goes_on;
            let reused = || {
                thorough
                    && due
                    && start_ticks(tid).is_some_and(|now| {
                        let started = record.started.load(Ordering::Relaxed);
                        // Of a thread that took its record by itself the start is not known yet; without
                        // a timer it is about to have one.
                        let is_new = started == 0 && (goes_on || !record.is_armed());
                        let is_same = now == started || is_new;
                        record.started.store(now, Ordering::Relaxed);
                        !is_same
                    })
            };
            if !alive.contains(&tid) || reused() {
                let ended = record.cpu_nanos.load(Ordering::Relaxed);
                self.sampler.ended_nanos.fetch_add(ended, Ordering::Relaxed);
                give_back(self.sampler, record);
            }
        }
        self.blocking.retain(|tid, _| alive.contains(tid));
        let known = |tid: &u32| records.of(*tid).is_some() || self.blocking.contains_key(tid);
        let unmet = alive.into_iter().filter(|tid| !known(tid));
        let (ready, newcomers): (Vec<u32>, Vec<u32>) =
            unmet.partition(|tid| arming == Arming::All || self.newcomers.contains(tid));
        self.newcomers = newcomers.into_iter().collect();
        for tid in ready {
            self.attempt(tid, LOOK);
        }
    }

    /// Tries the threads that blocked the signal, each less and less often.
    fn try_again(&mut self, now: Instant) {
        let due = self.blocking.iter().filter(|(_, held)| held.due <= now);
        let due: Vec<(u32, Duration)> = due.map(|(tid, held)| (*tid, held.pause)).collect();
        for (tid, pause) in due {
            self.blocking.remove(&tid);
            self.attempt(tid, (pause * 2).min(PATIENCE));
        }
    }

    /// Meets a thread, unless there are no timers left; if it blocks the signal, again after a pause.
    fn attempt(&mut self, tid: u32, pause: Duration) {
        if self.sampler.records.held_count() >= self.sampler.allowed {
            return;
        }
        if self.meet(tid) == Met::Blocking {
            let due = Instant::now() + pause;
            self.blocking.insert(tid, Blocking { due, pause });
        }
    }

    /// Gives a thread a record and a timer. Without them the process's timer samples it, unless it
    /// blocks the signal: then only `coverage` knows of it.
    fn meet(&self, tid: u32) -> Met {
        let records = &self.sampler.records;
        let (Some(name), Some(started)) = (comm(tid), start_ticks(tid)) else {
            return Met::Done;
        };
        let blocks = |mask| signal::is_in(mask, self.sampler.signal);
        match blocked_by(tid) {
            None => return Met::Done,
            Some(mask) if blocks(mask) => return Met::Blocking,
            Some(_) => {}
        }
        let Some((number, record)) = records.claim(tid) else {
            return Met::Done;
        };
        record.set_name(name);
        record.started.store(started, Ordering::Relaxed);
        if records::is_agents_own(&name) {
            records.leave_out(number);
        } else if self.sampler.arm(number, record).is_err() {
            // The thread has ended, or the user's pending signals are used up.
            records.release(record);
        }
        Met::Done
    }

    /// Reads the names of the threads that were sampled since the last time: threads are named after
    /// their start, and pools rename theirs.
    fn rename(&self) {
        let records = self.sampler.records.armed();
        for record in records.filter(|record| record.seen.swap(false, Ordering::Relaxed)) {
            if let Some(name) = comm(record.tid()) {
                record.set_name(name);
            }
        }
    }

    /// Looks up the mapping around each thread's block, which lies in its stack.
    fn find_bounds(&self) {
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
            return;
        };
        let main = std::process::id();
        for record in self.sampler.records.armed() {
            let pointer = record.thread_pointer.load(Ordering::Acquire);
            if pointer == 0 || record.low.load(Ordering::Acquire) != 0 {
                continue;
            }
            let bounds = if record.tid() == main {
                main_stack(&maps)
            } else {
                around(&maps, pointer)
            };
            if let Some((low, high)) = bounds {
                set_bounds(record, low, high);
            }
        }
    }
}

/// The handler looks at `low` first: it is set last.
fn set_bounds(record: &Record, low: usize, high: usize) {
    record.high.store(high, Ordering::Release);
    record.low.store(low, Ordering::Release);
}

/// Takes all timers out of service; they stay with their threads.
pub(super) fn disarm(sampler: &Sampler) {
    for timer in sampler.records.armed().filter_map(Record::timer) {
        timer::set(timer, Duration::ZERO, Duration::ZERO);
    }
}

/// Puts timers that were left from an earlier run into service.
pub(super) fn arm(sampler: &Sampler) {
    for record in sampler.records.armed() {
        if let Some(timer) = record.timer() {
            sampler.set(record, timer);
        }
    }
}

/// Removes all timers; no handler may be under way.
pub(super) fn release(sampler: &Sampler) {
    for record in sampler.records.held() {
        give_back(sampler, record);
    }
}

fn give_back(sampler: &Sampler, record: &Record) {
    if let Some(timer) = record.timer() {
        timer::delete(timer);
    }
    sampler.records.release(record);
}

/// The threads of which samples are due that no signal stands for, whether they block the signal, and how
/// many samples; no timer may be in service.
pub(super) fn unseen(
    sampler: &Sampler,
    period: Duration,
) -> impl Iterator<Item = (&Record, bool, u32)> {
    sampler.records.armed().filter_map(move |record| {
        let unseen = sampler.unseen(record, period);
        let blocks = || {
            let blocked = blocked_by(record.tid());
            blocked.is_some_and(|mask| signal::is_in(mask, sampler.signal))
        };
        (unseen > 0).then(|| (record, blocks(), unseen))
    })
}

/// CPU time of a thread that is left out; as it was last seen if the thread has ended.
pub(super) fn exempt_cpu(record: &Record) -> Duration {
    if let Some(now) = timer::thread_cpu(record.tid()) {
        let nanos = whole_nanos(now);
        record.cpu_nanos.store(nanos, Ordering::Relaxed);
    }
    Duration::from_nanos(record.cpu_nanos.load(Ordering::Relaxed))
}

/// The signals that each thread blocks, as sets.
pub(super) fn blocked() -> impl Iterator<Item = u64> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks.filter_map(|task| blocked_by(task.ok()?.file_name().to_str()?.parse().ok()?))
}

fn blocked_by(tid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let mut lines = status.lines();
    let set = lines.find_map(|line| line.strip_prefix("SigBlk:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn comm(tid: u32) -> Option<ThreadName> {
    let text = fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut name = ThreadName::default();
    for (place, byte) in name.iter_mut().zip(text) {
        *place = *byte;
    }
    Some(name)
}

/// Field 22 of the thread's stat: its start in clock ticks since boot.
fn start_ticks(tid: u32) -> Option<u64> {
    let mut stat = fs::File::open(format!("/proc/self/task/{tid}/stat")).ok()?;
    // The kernel gives it in one piece, of at most 52 numbers; to the end would take six reads, and an
    // idle agent does little else.
    let mut line = [0; 1200];
    let length = stat.read(&mut line).ok()?;
    let stat = String::from_utf8_lossy(line.get(..length)?);
    // The name in field 2 may hold anything, but field 3 begins behind its last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The start of the mapping that holds `pointer`, and `pointer` itself: what lies above it is the
/// thread's block, not its stack.
fn around(maps: &str, pointer: usize) -> Option<(usize, usize)> {
    let held = |(low, high, _): &(usize, usize, &str)| (*low..*high).contains(&pointer);
    let (low, _, _) = maps.lines().filter_map(mapping).find(held)?;
    Some((low, pointer))
}

/// The main thread's stack grows downwards on demand, to the limit that was set at its start; what
/// lies between the stack pointer and its end is mapped.
fn main_stack(maps: &str) -> Option<(usize, usize)> {
    let (low, high, _) = maps
        .lines()
        .filter_map(mapping)
        .find(|(_, _, rest)| rest.ends_with("[stack]"))?;
    /// The usual limit. Where it is larger, samples of stacks deeper than this have their leaf only.
    const GROWTH: usize = 8 << 20;
    Some((low.min(high.saturating_sub(GROWTH)), high))
}

/// A readable and writable mapping: start, end, the rest of its line.
fn mapping(line: &str) -> Option<(usize, usize, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (low, high) = range.split_once('-')?;
    let low = usize::from_str_radix(low, 16).ok()?;
    let high = usize::from_str_radix(high, 16).ok()?;
    rest.starts_with("rw").then_some((low, high, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0-55e0 r-xp 00000000 08:01 1  /usr/bin/x
7f10-7f20 ---p 00000000 00:00 0
7f20-7f80 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn a_stack_reaches_from_its_mapping_to_the_threads_block() {
        assert_eq!(around(MAPS, 0x7f70), Some((0x7f20, 0x7f70)));
        assert_eq!(around(MAPS, 0x7f18), None, "a guard page is no stack");
        assert_eq!(around(MAPS, 0x55d8), None, "code is no stack");
    }

    #[test]
    fn the_main_stack_may_have_grown_since() {
        let (low, high) = main_stack(MAPS).unwrap();
        assert_eq!(
            (low, high),
            (0x7ffc_0002_1000 - (8 << 20), 0x7ffc_0002_1000)
        );
    }

    #[test]
    fn this_thread_has_a_start_and_a_name() {
        let tid = timer::current_tid();
        assert!(start_ticks(tid).unwrap() > 0);
        assert_eq!(comm(tid).unwrap(), timer::current_name());
        assert_eq!(comm(u32::MAX), None);
    }
}
