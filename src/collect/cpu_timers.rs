//! The Linux engine: a CPU-clock timer per thread, weights by overrun, stacks unwound off-thread.
//!
//! CPU clocks are looked at on scheduler ticks, so a timer of 999 Hz signals about 250 times per
//! CPU-second on a 250 Hz kernel; each signal says how many periods have passed, and that is its
//! weight. The total is true at any rate; the detail is as fine as the ticks.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cpu::{CpuEngine, Sink};
use super::cpu_threads::{self, Watcher};
use super::sys::sampling::records::trimmed;
use super::sys::sampling::sampler::Sampler;
use super::sys::sampling::{signal, timer};
use super::unwind::{End, Unwinder};
use crate::config::SampleRate;
use crate::store::Unavailable;
use crate::store::stacks::TRUNCATED;

/// One engine of the process runs at a time: signal, slots and records are the process's.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Slots of 16 KiB: at 999 Hz eight busy threads fill 160 between two drains.
const SLOTS_BASE: usize = 256;
const SLOTS_PER_CORE: usize = 32;
const SLOTS_MOST: usize = 2048;

/// Between two drains.
const DRAIN: Duration = Duration::from_millis(20);
/// How long a stop waits for handlers under way; their slots stay mapped in any case.
const HANDLERS: Duration = Duration::from_millis(200);

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
                "another agent of this process is taking a CPU profile; there is one signal for all, \
                 so ask again when it is done"
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
        cpu_threads::disarm(sampler);
        let until = Instant::now() + HANDLERS;
        while sampler.handlers_running() > 0 && Instant::now() < until {
            std::thread::yield_now();
        }
        if sampler.handlers_running() == 0 {
            cpu_threads::release(sampler);
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
        DRAIN
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn begin(rate: SampleRate) -> Result<Running, Unavailable> {
    let refused = |why: io::Error| Unavailable(format!("CPU timers cannot be used: {why}"));
    let sampler = match Sampler::get() {
        Some(sampler) if signal::is_ours(sampler.signal) => sampler,
        Some(sampler) => {
            return Err(Unavailable(format!(
                "another part of this program took signal {}, which carried the agent's CPU samples; \
                 CPU profiles stay off until the process is started again",
                sampler.signal
            )));
        }
        None => {
            let signal = free_signal()?;
            signal::install(signal).map_err(refused)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let slots = (SLOTS_BASE + SLOTS_PER_CORE * cores).min(SLOTS_MOST);
            Sampler::install(slots, signal).map_err(refused)?
        }
    };
    sampler.set_period(rate.period());
    cpu_threads::arm(sampler);
    match Watcher::start(sampler) {
        Ok(watcher) => Ok(Running {
            sampler,
            watcher,
            lost: Lost::now(sampler),
        }),
        Err(error) => {
            sampler.set_period(Duration::ZERO);
            cpu_threads::disarm(sampler);
            Err(refused(error))
        }
    }
}

/// How often, and how far apart, to look for a signal that no thread blocks: a thread that is just
/// starting blocks all.
const TRIES: usize = 10;
const TRY_AGAIN: Duration = Duration::from_millis(2);

fn free_signal() -> Result<i32, Unavailable> {
    for _ in 0..TRIES {
        let any = cpu_threads::blocked().fold(0, |all, one| all | one);
        if let Some(signal) = signal::free(any) {
            return Ok(signal);
        }
        std::thread::sleep(TRY_AGAIN);
    }
    // Those that block it are left out.
    let everywhere = cpu_threads::blocked().fold(u64::MAX, |all, one| all & one);
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

/// CPU time of the process without the agent's own threads, which are not sampled.
pub(super) fn host_cpu() -> Option<Duration> {
    let process = timer::process_cpu()?;
    let Some(sampler) = Sampler::get() else {
        return Some(process);
    };
    let ended = Duration::from_nanos(sampler.ended_nanos.load(Ordering::Relaxed));
    let agents: Duration = sampler.records.exempt().map(cpu_threads::exempt_cpu).sum();
    Some(process.saturating_sub(ended + agents))
}
