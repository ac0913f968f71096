//! Answers readers who wish for a CPU profile: runs a sampling engine while anybody does.
//!
//! Samples go to the store's windows in buckets; a reader's profile is cut from them, so any number
//! of readers are served by one run. Absent on purpose: how samples are taken (an engine knows) and
//! the thread this runs on (the agent has it).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cpu_answer::{AnswerMeters, Answers, Due};
use super::cpu_engine::{self, Engine};
use super::cpu_profile::Taken;
use super::cpu_routes::RouteCpu;
use crate::catalog::families;
use crate::config::{SampleRate, sampling};
use crate::store::label::{LabelSet, Mark};
use crate::store::metrics::{Counter, Gauge, unix_nanos_now};
use crate::store::sync::lock;
use crate::store::windows::{Dropped, Span, Window};
use crate::store::{CpuWish, Store, Unavailable};

/// Takes samples of all threads' stacks while they use the CPU.
pub(crate) trait CpuEngine: Send {
    /// Begins to sample at a rate.
    ///
    /// # Errors
    /// With a text for the reader when this process cannot be sampled.
    fn start(&mut self, rate: SampleRate) -> Result<(), Unavailable>;

    /// Hands over what was sampled since the last time.
    fn drain(&mut self, sink: &mut Sink<'_>);

    /// Ends sampling; what was not drained is gone.
    fn stop(&mut self);

    /// The engine's name and version.
    fn name(&self) -> &'static str;

    /// What this engine cannot see, for the reader of an incomplete profile.
    fn leaves_out(&self) -> Option<&'static str>;

    /// Whether another part of the program took what the engine samples with.
    fn is_hijacked(&self) -> bool {
        false
    }

    /// How often it must be drained; a bucket's length at most.
    fn interval(&self) -> Duration;
}

/// Takes samples into the open bucket.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    store: &'a Store,
    recorded: u64,
    lost: u64,
    by_set: HashMap<LabelSet, u64>,
}

impl Sink<'_> {
    /// Takes samples of one stack: leaf first, the exact address of the leaf and one byte before
    /// the return address of each caller.
    pub(crate) fn sample(&mut self, stack: &[u64], thread: &str, mark: Mark, weight: u32) {
        self.recorded += u64::from(weight);
        *self.by_set.entry(mark.set).or_default() += u64::from(weight);
        lock(&self.store.samples.windows).add(stack, thread, mark, weight);
    }

    /// Notes that this many of the samples were deeper than is kept.
    pub(crate) fn truncated(&mut self, samples: u32) {
        lock(&self.store.samples.windows).truncate(u64::from(samples));
    }

    /// Notes samples that were due but could not be had.
    pub(crate) fn lost(&mut self, reason: &'static str, samples: u64) {
        self.lost += samples;
        lock(&self.store.samples.windows).lose(reason, samples);
    }
}

/// What the profiling thread does between two waits.
pub(crate) struct CpuCollector {
    store: Arc<Store>,
    engine: Box<dyn CpuEngine>,
    process_cpu: fn() -> Option<Duration>,
    run: Option<Run>,
    readers: Vec<Reader>,
    /// Readers whose windows are over and being named.
    answering: Vec<u64>,
    answers: Answers,
    meters: Option<Meters>,
    route_cpu: RouteCpu,
}

/// The engine is running.
#[derive(Debug, Clone, Copy)]
struct Run {
    rate: SampleRate,
    /// When the open bucket began.
    start: Instant,
    start_unix_nanos: u64,
    start_cpu: Option<Duration>,
    drained: Instant,
}

/// A wish that is being fulfilled.
#[derive(Debug, Clone, Copy)]
struct Reader {
    id: u64,
    wish: CpuWish,
    start: Instant,
}

impl Reader {
    fn end(&self) -> Instant {
        self.start + self.wish.duration
    }
}

/// Between two looks at the wishes. A reader that leaves wakes the thread, but between a turn and
/// the wait nobody hears it; then this is how late the engine stops. 50 ms cost 20 wake-ups per
/// second, while profiling only.
const TURN: Duration = Duration::from_millis(50);
/// The same while nobody wishes for anything.
const IDLE_TURN: Duration = Duration::from_millis(100);

impl fmt::Debug for CpuCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuCollector")
            .field("engine", &self.engine.name())
            .field("run", &self.run)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

impl CpuCollector {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self::with_engine(store, Box::new(Engine::default()), cpu_engine::host_cpu)
    }

    pub(super) fn with_engine(
        store: Arc<Store>,
        engine: Box<dyn CpuEngine>,
        process_cpu: fn() -> Option<Duration>,
    ) -> Self {
        let meters = Meters::new(&store);
        let answers = Answers::new(Arc::clone(&store), answer_meters(&store));
        let route_cpu = RouteCpu::new(Arc::clone(&store));
        Self {
            answering: Vec::new(),
            answers,
            store,
            engine,
            process_cpu,
            run: None,
            readers: Vec::new(),
            meters,
            route_cpu,
        }
    }

    /// Does what is due and says how long to wait for the next turn, at most; the wait should end
    /// early when wishes come or go.
    pub(crate) fn turn(&mut self, now: Instant) -> Duration {
        self.store.cpu.expire(now);
        self.store.refresh.expire(now);
        let open = self.store.cpu.open();
        let is_open = |id| open.iter().any(|(open, _)| *open == id);
        self.readers.retain(|reader| is_open(reader.id));
        self.answering.retain(|id| is_open(*id));
        let newcomers: Vec<Reader> = open
            .iter()
            .filter(|(id, _)| !self.knows(*id))
            .map(|(id, wish)| Reader {
                id: *id,
                wish: *wish,
                start: now,
            })
            .collect();
        let (due, mut staying): (Vec<Reader>, Vec<Reader>) = self
            .readers
            .drain(..)
            .partition(|reader| reader.end() <= now);
        let (due_now, new_now) = (!due.is_empty(), !newcomers.is_empty());
        staying.extend(newcomers);
        self.readers = staying;
        let rate = self.readers.iter().map(|reader| reader.wish.rate).max();
        if let Some(run) = self.run {
            let full = now.saturating_duration_since(run.start) >= sampling::BUCKET;
            if due_now || new_now || full || rate != Some(run.rate) {
                self.cut(now);
            } else if now.saturating_duration_since(run.drained) >= self.engine.interval() {
                self.drain(now);
            }
        }
        let windows: Vec<Option<Window>> = {
            let held = lock(&self.store.samples.windows);
            let windows = due.iter();
            let windows = windows.map(|reader| held.merge(reader.start, now, reader.wish.traces));
            windows.collect()
        };
        self.tune(rate, now);
        let taken = Taken {
            engine: self.engine.name(),
            leaves_out: self.engine.leaves_out(),
        };
        for (reader, window) in due.iter().zip(windows) {
            self.answering.push(reader.id);
            self.answers.begin(Due {
                reader: reader.id,
                window,
                asked: reader.wish.duration,
                taken,
            });
        }
        self.wait(now)
    }

    /// Stops sampling and turns away whoever waits.
    pub(crate) fn stop(&mut self) {
        if self.run.take().is_some() {
            self.engine.stop();
        }
        self.readers.clear();
        for (id, _) in self.store.cpu.open() {
            let why = Unavailable("the agent is stopping".to_owned());
            self.store.cpu.answer(id, Err(why));
        }
        self.answers.finish();
    }

    fn knows(&self, id: u64) -> bool {
        self.readers.iter().any(|reader| reader.id == id) || self.answering.contains(&id)
    }

    /// Makes the engine run at a rate, or not at all.
    fn tune(&mut self, rate: Option<SampleRate>, now: Instant) {
        if self.run.map(|run| run.rate) == rate {
            return;
        }
        if self.run.take().is_some() {
            self.engine.stop();
        }
        let Some(rate) = rate else { return };
        let before = Instant::now();
        match self.engine.start(rate) {
            Ok(()) => {
                // Starting may take a while, which is no reader's window.
                let started = now + before.elapsed();
                self.run = Some(Run::new(rate, started, self.process_cpu));
                for reader in &mut self.readers {
                    if reader.start == now {
                        reader.start = started;
                    }
                }
            }
            Err(why) => {
                if let Some(meters) = &self.meters {
                    meters.hijacked(self.engine.is_hijacked());
                }
                for reader in self.readers.drain(..) {
                    self.store.cpu.answer(reader.id, Err(why.clone()));
                }
            }
        }
    }

    fn drain(&mut self, now: Instant) {
        let mut sink = Sink {
            store: &self.store,
            recorded: 0,
            lost: 0,
            by_set: HashMap::new(),
        };
        self.engine.drain(&mut sink);
        let (recorded, lost) = (sink.recorded, sink.lost);
        if let Some(run) = self.run {
            self.route_cpu.add(&sink.by_set, run.rate.period());
        }
        if let Some(run) = &mut self.run {
            run.drained = now;
        }
        let (dropped, bytes) = {
            let windows = lock(&self.store.samples.windows);
            (windows.dropped(), windows.bytes())
        };
        if let Some(meters) = &mut self.meters {
            meters.drained(recorded, lost, dropped);
            meters.hijacked(self.engine.is_hijacked());
            meters.memory(bytes + self.store.symbols.bytes());
        }
    }

    /// Ends the open bucket at `now` and begins the next.
    fn cut(&mut self, now: Instant) {
        self.drain(now);
        let Some(run) = self.run else { return };
        let next = Run::new(run.rate, now, self.process_cpu);
        let cpu = next.start_cpu.zip(run.start_cpu);
        let span = Span {
            start: run.start,
            end: now,
            start_unix_nanos: run.start_unix_nanos,
            period: run.rate.period(),
            cpu: cpu.map(|(now, before)| now.saturating_sub(before)),
        };
        lock(&self.store.samples.windows).cut(span);
        self.run = Some(next);
    }

    fn wait(&self, now: Instant) -> Duration {
        let Some(run) = self.run else {
            return IDLE_TURN;
        };
        let ends = self.readers.iter().map(Reader::end);
        let next = ends
            .chain([
                run.start + sampling::BUCKET,
                run.drained + self.engine.interval(),
            ])
            .min();
        let left = next.map_or(TURN, |next| next.saturating_duration_since(now));
        left.min(TURN)
    }
}

impl Run {
    fn new(rate: SampleRate, start: Instant, process_cpu: fn() -> Option<Duration>) -> Self {
        Self {
            rate,
            start,
            start_unix_nanos: unix_nanos_now(),
            start_cpu: process_cpu(),
            drained: start,
        }
    }
}

/// The collector's own numbers; absent if the catalogue's rows do not fit, which a test excludes.
#[derive(Debug)]
struct Meters {
    recorded: Counter,
    lost: Counter,
    folded: Counter,
    crowded_out: Counter,
    memory: Gauge,
    hijacked: Gauge,
    dropped: Dropped,
}

impl Meters {
    fn new(store: &Store) -> Option<Self> {
        let metrics = &store.metrics;
        let samples = |result| {
            metrics
                .counter(&families::AGENT_PROFILE_SAMPLES, &["cpu", result])
                .ok()
        };
        let dropped = |reason| {
            metrics
                .counter(&families::AGENT_DROPPED, &["cpu", reason])
                .ok()
        };
        Some(Self {
            recorded: samples("recorded")?,
            lost: samples("lost")?,
            folded: dropped("stack_table_full")?,
            crowded_out: dropped("recorder_full")?,
            memory: metrics.gauge(&families::AGENT_MEMORY, &["profile"]).ok()?,
            hijacked: metrics.gauge(&families::AGENT_SIGNAL_HIJACKED, &[]).ok()?,
            dropped: lock(&store.samples.windows).dropped(),
        })
    }

    fn drained(&mut self, recorded: u64, lost: u64, dropped: Dropped) {
        self.recorded.add(recorded);
        self.lost.add(lost);
        self.folded.add(dropped.folded - self.dropped.folded);
        self.crowded_out.add(dropped.buckets - self.dropped.buckets);
        self.dropped = dropped;
    }

    fn hijacked(&self, yes: bool) {
        self.hijacked.set(f64::from(u8::from(yes)));
    }

    fn memory(&self, bytes: usize) {
        // Bounded by limits far below the whole numbers that a float holds.
        self.memory
            .set(u32::try_from(bytes).map_or(f64::NAN, f64::from));
    }
}

fn answer_meters(store: &Store) -> Option<AnswerMeters> {
    let metrics = &store.metrics;
    let coverage = metrics.gauge(&families::AGENT_PROFILE_COVERAGE, &["cpu"]);
    let panics = metrics.counter(&families::AGENT_PANICS, &["symbols"]);
    Some(AnswerMeters {
        coverage: coverage.ok()?,
        panics: panics.ok()?,
    })
}

/// Sampling signals of this process since its first CPU profile: fired, recorded, lost; `None` before
/// it, and where the engine does not count them.
pub(crate) fn signals() -> Option<[u64; 3]> {
    cpu_engine::signals()
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
