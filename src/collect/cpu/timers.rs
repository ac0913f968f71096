//! The Linux engine: a CPU-clock timer per thread, weights by overrun, stacks unwound off-thread.
//!
//! CPU clocks are looked at on scheduler ticks, so a timer of 999 Hz signals about 250 times per
//! CPU-second on a 250 Hz kernel; each signal says how many periods have passed, and that is its
//! weight. The total is true at any rate; the detail is as fine as the ticks.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use super::threads::{self, Watcher};
use super::{Clocks, CpuEngine, Sink};
use crate::collect::code::unwind::{End, Unwinder};
use crate::collect::sys::sampling::arena::Head;
use crate::collect::sys::sampling::records::trimmed;
use crate::collect::sys::sampling::sampler::Sampler;
use crate::collect::sys::sampling::{signal, timer};
use crate::config::{SampleRate, sampling};
use crate::store::Unavailable;
use crate::store::stacks::TRUNCATED;
use crate::store::sync::lock;

/// One engine of the process runs at a time: signal, slots and records are the process's.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Slots of 256 KiB, of which only as many are touched as are full at one time: at 999 Hz eight busy
/// threads fill 160 between two drains.
const SLOTS_BASE: usize = 128;
const SLOTS_PER_CORE: usize = 32;
const SLOTS_MOST: usize = 512;

/// Between two drains, at least.
const DRAIN: Duration = Duration::from_millis(20);
/// The part of the slots that may fill between two drains: what is left bears a drain that is late
/// three times over, on a machine where all cores are busy.
const SLOTS_PART: usize = 4;
/// How long a stop waits for handlers under way; their slots stay mapped in any case.
const HANDLERS: Duration = Duration::from_millis(200);
/// The same for a change of rate: a handler takes microseconds unless its thread lost its core.
const HANDLERS_SOON: Duration = Duration::from_millis(2);

/// The threads whose CPU time sampling costs.
const SAMPLING_THREADS: [&[u8]; 2] = [b"sg-profile", b"sg-watch"];

#[derive(Default)]
pub(super) struct Engine {
    running: Option<Running>,
    unwinder: Unwinder,
    frames: Vec<u64>,
}

struct Running {
    sampler: &'static Sampler,
    watcher: Watcher,
    lost: Lost,
    rate: SampleRate,
}

/// The loss counters at the last drain.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    full: u64,
    busy: u64,
    foreign: u64,
    off: u64,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl Lost {
    fn now(sampler: &Sampler) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            full: read(&sampler.counts.lost_full),
            busy: read(&sampler.counts.lost_busy),
            foreign: read(&sampler.counts.lost_foreign),
            off: read(&sampler.counts.lost_off),
        }
    }
}

impl CpuEngine for Engine {
    fn start(&mut self, rate: SampleRate) -> Result<(), Unavailable> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Unavailable(
                "another agent of this process samples its CPU time, and there is one signal for all: \
                 ask that agent, or start it with recorder(0) and ask again when its readers are done"
                    .to_owned(),
            ));
        }
        match begin(rate) {
            Ok(running) => {
                self.running = Some(running);
                Ok(())
            }
            Err(why) => {
                TAKEN.store(false, Ordering::Release);
                Err(why)
            }
        }
    }

    /// Sampling is off for the moment in which the last slots are emptied, so that no sample of one
    /// rate is counted at the other.
    fn retune(&mut self, rate: SampleRate, sink: &mut Sink<'_>) -> Result<(), Unavailable> {
        // Unwinding is most of the work, and what runs while sampling is off is not seen.
        self.drain(sink);
        let Some(running) = &mut self.running else {
            return self.start(rate);
        };
        if running.watcher.is_hijacked() || !signal::is_ours(running.sampler.signal) {
            let why = hijacked(running.sampler);
            self.stop();
            return Err(why);
        }
        let sampler = running.sampler;
        self.disarm(sink);
        if let Some(running) = &mut self.running {
            running.rate = rate;
        }
        sampler.set_period(rate.period());
        fence(Ordering::SeqCst);
        threads::arm(sampler);
        Ok(())
    }

    fn settle(&mut self, sink: &mut Sink<'_>) -> Result<(), Unavailable> {
        let rate = self.running.as_ref().map(|running| running.rate);
        rate.map_or(Ok(()), |rate| self.retune(rate, sink))
    }

    fn drain(&mut self, sink: &mut Sink<'_>) {
        let Some(running) = &mut self.running else {
            return;
        };
        self.unwinder.refresh();
        let (unwinder, frames) = (&mut self.unwinder, &mut self.frames);
        running.sampler.arena.drain(|head, stack| {
            if unwinder.unwind(head, stack, frames) == End::Truncated {
                sink.truncated(head.weight);
                frames.push(TRUNCATED);
            }
            let name = String::from_utf8_lossy(trimmed(&head.name));
            sink.sample(frames, &name, head.mark, head.weight);
        });
        let lost = Lost::now(running.sampler);
        let before = std::mem::replace(&mut running.lost, lost);
        sink.lost("slots_full", lost.full - before.full);
        sink.lost("record_reused", lost.busy - before.busy);
        sink.lost("foreign_signal", lost.foreign - before.foreign);
        sink.lost("sampling_off", lost.off - before.off);
    }

    fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let Running {
            sampler, watcher, ..
        } = running;
        sampler.set_period(Duration::ZERO);
        drop(watcher);
        threads::disarm(sampler);
        if wait_for_handlers(sampler, HANDLERS) {
            threads::release(sampler);
        }
        sampler.arena.drain(|_, _| {});
        TAKEN.store(false, Ordering::Release);
    }

    fn name(&self) -> &'static str {
        "per-thread CPU timers"
    }

    fn leaves_out(&self) -> Option<&'static str> {
        self.is_hijacked()
            .then_some("all that came after another part of the program took the agent's signal")
    }

    fn is_hijacked(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.watcher.is_hijacked())
            || Sampler::get().is_some_and(|sampler| !signal::is_ours(sampler.signal))
    }

    fn interval(&self) -> Duration {
        let Some(running) = &self.running else {
            return sampling::BUCKET;
        };
        let cores = cores();
        let part = u64::try_from(slots(cores) / SLOTS_PART).unwrap_or(u64::MAX);
        // Each core gives at most one sample per period, and one per tick.
        let ticks = 1000 / u64::try_from(timer::tick().as_millis()).unwrap_or(1).max(1);
        let each = u64::from(running.rate.hz()).min(ticks);
        let per_second = each * u64::try_from(cores).unwrap_or(u64::MAX);
        Duration::from_millis(1000 * part / per_second.max(1)).clamp(DRAIN, sampling::BUCKET)
    }
}

impl Engine {
    /// Takes the timers out of service and hands over all that is due by now.
    fn disarm(&mut self, sink: &mut Sink<'_>) {
        let Some(running) = &self.running else {
            return;
        };
        let (sampler, period) = (running.sampler, running.rate.period());
        threads::disarm(sampler);
        sampler.set_period(Duration::ZERO);
        wait_for_handlers(sampler, HANDLERS_SOON);
        self.drain(sink);
        for (record, blocks, unseen) in threads::unseen(sampler, period) {
            if blocks {
                sink.lost("signal_blocked", unseen.into());
            } else {
                sink.unseen(&String::from_utf8_lossy(trimmed(&record.name())), unseen);
            }
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn slots(cores: usize) -> usize {
    (SLOTS_BASE + SLOTS_PER_CORE * cores).min(SLOTS_MOST)
}

/// Waits until no handler is under way; says whether that is so.
fn wait_for_handlers(sampler: &Sampler, patience: Duration) -> bool {
    // What was turned off before is seen by every handler that is not counted yet.
    fence(Ordering::SeqCst);
    let until = Instant::now() + patience;
    while sampler.handlers_running() > 0 {
        if Instant::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Held while signal and slots are chosen, so that two threads choose the same.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The process's sampler, with its signal installed.
pub(in crate::collect) fn sampler() -> Result<&'static Sampler, Unavailable> {
    let refused = |why: io::Error| Unavailable(format!("no samples can be taken: {why}"));
    let _installing = lock(&INSTALLING);
    match Sampler::get() {
        Some(sampler) if signal::is_ours(sampler.signal) => Ok(sampler),
        Some(sampler) => Err(hijacked(sampler)),
        None => {
            let signal = free_signal()?;
            signal::install(signal).map_err(refused)?;
            Sampler::install(slots(cores()), signal).map_err(refused)
        }
    }
}

fn begin(rate: SampleRate) -> Result<Running, Unavailable> {
    let refused = |why: io::Error| Unavailable(format!("CPU timers cannot be used: {why}"));
    let sampler = sampler()?;
    sampler.set_period(rate.period());
    threads::arm(sampler);
    match Watcher::start(sampler) {
        Ok(watcher) => Ok(Running {
            sampler,
            watcher,
            lost: Lost::now(sampler),
            rate,
        }),
        Err(error) => {
            sampler.set_period(Duration::ZERO);
            threads::disarm(sampler);
            Err(refused(error))
        }
    }
}

fn hijacked(sampler: &Sampler) -> Unavailable {
    Unavailable(format!(
        "another part of this program took signal {}, which carried the agent's CPU samples; CPU \
         profiles stay off until the process is started again",
        sampler.signal
    ))
}

/// Samples the process for as long as `work` says that it goes on, and gives the samples as the handler
/// wrote them.
pub(super) fn copies(
    rate: SampleRate,
    mut work: impl FnMut() -> bool,
) -> Result<Vec<(Head, Vec<u8>)>, Unavailable> {
    let mut engine = Engine::default();
    engine.start(rate)?;
    let mut copies = Vec::new();
    while let Some(running) = engine.running.as_ref().filter(|_| work()) {
        let arena = &running.sampler.arena;
        arena.drain(|head, stack| copies.push((*head, stack.to_vec())));
    }
    Ok(copies)
}

/// How often, and how far apart, to look for a signal that no thread blocks: a thread that is just
/// starting blocks all.
const TRIES: usize = 10;
const TRY_AGAIN: Duration = Duration::from_millis(2);

fn free_signal() -> Result<i32, Unavailable> {
    for _ in 0..TRIES {
        let any = threads::blocked().fold(0, |all, one| all | one);
        if let Some(signal) = signal::free(any) {
            return Ok(signal);
        }
        std::thread::sleep(TRY_AGAIN);
    }
    // Those that block it are left out.
    let everywhere = threads::blocked().fold(u64::MAX, |all, one| all & one);
    signal::free(everywhere).ok_or_else(|| {
        Unavailable(
            "CPU samples need a realtime signal with the default action that the threads of this \
             program do not block; there is none"
                .to_owned(),
        )
    })
}

/// Signals by what became of them: fired, recorded, lost.
pub(super) fn signals() -> Option<[u64; 3]> {
    let counts = &Sampler::get()?.counts;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let lost = [
        &counts.lost_full,
        &counts.lost_busy,
        &counts.lost_foreign,
        &counts.lost_off,
    ];
    let lost = lost.into_iter().map(read).sum();
    Some([read(&counts.fired), read(&counts.recorded), lost])
}

/// The running thread has just started.
pub(super) fn thread_started() {
    if let Some(sampler) = Sampler::get() {
        sampler.welcome();
    }
}

/// The running thread is the agent's own and ends now.
pub(super) fn own_thread_ends() {
    if let Some(sampler) = Sampler::get() {
        sampler.farewell();
    }
}

/// CPU time of the process without the agent's own threads, which are not sampled.
pub(super) fn clocks() -> Clocks {
    let process = timer::process_cpu();
    let Some(sampler) = Sampler::get() else {
        return Clocks {
            host: process,
            sampling: None,
        };
    };
    let mut agents = Duration::from_nanos(sampler.ended_nanos.load(Ordering::Relaxed));
    let mut sampling = Duration::ZERO;
    for record in sampler.records.exempt() {
        let used = threads::exempt_cpu(record);
        agents += used;
        if SAMPLING_THREADS.contains(&trimmed(&record.name())) {
            sampling += used;
        }
    }
    Clocks {
        host: process.map(|process| process.saturating_sub(agents)),
        sampling: Some(sampling),
    }
}
