//! Runs a sampling engine and cuts its samples into buckets: the flight recorder all the time, a
//! higher rate while somebody waits for the seconds to come.
//!
//! Samples go to the store's windows; every profile is added up from these buckets, so any number of
//! readers are served by one run, and a reader of the past at once. Absent on purpose: how samples
//! are taken (an engine knows) and the thread this runs on (the agent has it).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::heap::leave_out_this_thread;
use crate::config::{Config, SampleRate, sampling};
use crate::store::label::{LabelSet, Mark};
use crate::store::metrics::unix_nanos_now;
use crate::store::recorder::Recorder;
use crate::store::sync::lock;
use crate::store::windows::{Span, Window};
use crate::store::{CpuSpan, CpuWish, Detail, NoProfile, Store, Unavailable};
use answer::{Answers, Due};
use engine::Engine;
use profile::Taken;
use routes::RouteCpu;

mod answer;
#[cfg_attr(target_os = "linux", path = "timers.rs")]
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
pub(in crate::collect) mod engine;
mod governor;
mod meters;
#[cfg_attr(feature = "pprof", path = "pprof_crate.rs")]
#[cfg_attr(not(feature = "pprof"), path = "pprof_none.rs")]
mod pprof_engine;
mod profile;
mod routes;
#[cfg(target_os = "linux")]
pub(crate) mod steps;
#[cfg(target_os = "linux")]
mod threads;

use governor::{Governor, Reading};
use meters::Meters;

/// Takes samples of all threads' stacks while they use the CPU.
pub(crate) trait CpuEngine: Send {
    /// Begins to sample at a rate.
    ///
    /// # Errors
    /// With a text for the reader when this process cannot be sampled.
    fn start(&mut self, rate: SampleRate) -> Result<(), Unavailable>;

    /// Goes on at another rate. All that was sampled at the old one goes to the sink, nothing of the
    /// new one does, so that a bucket can end in between.
    ///
    /// # Errors
    /// As for [`start`](Self::start); the engine has stopped then.
    fn retune(&mut self, rate: SampleRate, sink: &mut Sink<'_>) -> Result<(), Unavailable> {
        self.drain(sink);
        self.stop();
        self.start(rate)
    }

    /// Goes on at the same rate, and all that was sampled goes to the sink, as where it changes.
    ///
    /// # Errors
    /// As for [`retune`](Self::retune).
    fn settle(&mut self, sink: &mut Sink<'_>) -> Result<(), Unavailable> {
        self.drain(sink);
        Ok(())
    }

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

/// CPU time as the engine's platform can tell it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clocks {
    /// Used by the process without the agent's threads, as far as they can be told apart.
    pub(super) host: Option<Duration>,
    /// Used by the threads that sample; `None` where it is not known, and then nobody governs.
    pub(super) sampling: Option<Duration>,
}

/// Takes samples into the open bucket.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    store: &'a Store,
    taken: Drained,
}

/// What came of one drain.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) recorded: u64,
    pub(super) truncated: u64,
    pub(super) lost: Vec<(&'static str, u64)>,
    pub(super) by_set: HashMap<LabelSet, u64>,
}

impl Sink<'_> {
    /// Takes samples of one stack: leaf first, the exact address of the leaf and one byte before
    /// the return address of each caller.
    pub(crate) fn sample(&mut self, stack: &[u64], thread: &str, mark: Mark, weight: u32) {
        self.taken.recorded += u64::from(weight);
        *self.taken.by_set.entry(mark.set).or_default() += u64::from(weight);
        lock(&self.store.samples.windows).add(stack, thread, mark, weight);
    }

    /// Takes samples that are due of a thread without that its stack was seen: they stand with what was
    /// seen of threads of that name last.
    pub(crate) fn unseen(&mut self, thread: &str, samples: u32) {
        self.taken.recorded += u64::from(samples);
        let mut windows = lock(&self.store.samples.windows);
        for (set, weight) in windows.add_unseen(thread, samples) {
            *self.taken.by_set.entry(set).or_default() += u64::from(weight);
        }
    }

    /// Notes that this many of the samples were deeper than is kept.
    pub(crate) fn truncated(&mut self, samples: u32) {
        self.taken.truncated += u64::from(samples);
        lock(&self.store.samples.windows).truncate(u64::from(samples));
    }

    /// Notes samples that were due but could not be had.
    pub(crate) fn lost(&mut self, reason: &'static str, samples: u64) {
        if samples > 0 {
            self.taken.lost.push((reason, samples));
            lock(&self.store.samples.windows).lose(reason, samples);
        }
    }
}

/// What the profiling thread does between two waits.
pub(crate) struct CpuCollector {
    store: Arc<Store>,
    engine: Box<dyn CpuEngine>,
    clocks: fn() -> Clocks,
    /// The flight recorder's rate; `None`: it is off.
    recorder: Option<SampleRate>,
    governor: Governor,
    run: Option<Run>,
    /// Why the engine does not run although it should.
    obstacle: Option<Obstacle>,
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
    /// The rate is lower than wished for.
    slowed: bool,
    /// When the open bucket began.
    start: Instant,
    start_unix_nanos: u64,
    start_cpu: Option<Duration>,
    drained: Instant,
    /// Samples of the open bucket.
    recorded: u64,
}

/// The engine could not be started.
#[derive(Debug)]
struct Obstacle {
    why: Unavailable,
    /// When the flight recorder tries again.
    until: Instant,
    pause: Duration,
}

/// A wish for the seconds to come that is being fulfilled.
#[derive(Debug, Clone, Copy)]
struct Reader {
    id: u64,
    rate: SampleRate,
    duration: Duration,
    detail: Detail,
    start: Instant,
}

impl Reader {
    fn end(&self) -> Instant {
        self.start + self.duration
    }
}

/// Why the open bucket has to end now.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// The window of somebody who waits begins or ends.
    for_reader: bool,
    /// Somebody asks for the past that it belongs to.
    touched: bool,
}

/// Between two looks at the clock when nothing is due: wishes end the wait, but readers that nobody
/// answers have to be turned away in time.
const TURN: Duration = Duration::from_millis(500);
/// The same while a reader of the metrics waits.
const SOON: Duration = Duration::from_millis(100);

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
    pub(crate) fn new(store: Arc<Store>, config: &Config) -> Self {
        Self::with_engine(store, config, Box::new(Engine::default()), engine::clocks)
    }

    pub(super) fn with_engine(
        store: Arc<Store>,
        config: &Config,
        engine: Box<dyn CpuEngine>,
        clocks: fn() -> Clocks,
    ) -> Self {
        Self {
            answering: Vec::new(),
            answers: Answers::new(Arc::clone(&store)),
            meters: Meters::new(&store),
            engine,
            clocks,
            recorder: SampleRate::of_recorder(config),
            governor: Governor::new(config.profiling_budget),
            run: None,
            obstacle: None,
            readers: Vec::new(),
            route_cpu: RouteCpu::new(Arc::clone(&store)),
            store,
        }
    }

    /// Does what is due and says how long to wait for the next turn, at most; the wait should end
    /// early when wishes come or go.
    pub(crate) fn turn(&mut self, now: Instant) -> Duration {
        self.store.cpu.expire(now);
        self.store.refresh.expire(now);
        self.answers.name(now);
        let open = self.store.cpu.open();
        let is_open = |id| open.iter().any(|(open, _)| *open == id);
        self.readers.retain(|reader| is_open(reader.id));
        self.answering.retain(|id| is_open(*id));
        let mut newcomers = Vec::new();
        let mut past = Vec::new();
        for (id, wish) in open.iter().filter(|(id, _)| !self.knows(*id)) {
            match wish.span {
                CpuSpan::Next { rate, duration } => newcomers.push(Reader {
                    id: *id,
                    rate,
                    duration,
                    detail: wish.detail,
                    start: now,
                }),
                CpuSpan::Ago { .. } | CpuSpan::Between { .. } => past.push((*id, *wish)),
            }
        }
        let (due, staying): (Vec<Reader>, Vec<Reader>) = self
            .readers
            .drain(..)
            .partition(|reader| reader.end() <= now);
        let came: Vec<u64> = newcomers.iter().map(|reader| reader.id).collect();
        self.readers = staying;
        self.readers.extend(newcomers);
        let touched = past.iter().any(|(_, wish)| self.is_open_in(wish.span, now));
        let cut = Cut {
            for_reader: !due.is_empty() || !came.is_empty(),
            touched,
        };
        let edge = self.follow(now, cut);
        for reader in &mut self.readers {
            if came.contains(&reader.id) {
                reader.start = edge;
            }
        }
        for reader in due {
            let window = lock(&self.store.samples.windows).merge(reader.start, edge, reader.detail);
            let window = window.ok_or_else(|| {
                let why = "no samples were gathered in this window: sampling stopped";
                Unavailable(why.to_owned()).into()
            });
            self.answer(reader.id, reader.duration, window);
        }
        for (id, wish) in past {
            self.answer(id, wish.span.duration(), self.held(wish, now));
        }
        self.wait(now)
    }

    /// Turns away whoever waits for seconds to come.
    pub(crate) fn turn_away(&mut self) {
        for (id, wish) in self.store.cpu.open() {
            if let CpuSpan::Next { .. } = wish.span {
                self.store.cpu.answer(id, Err(ends()));
            }
        }
    }

    /// Stops sampling and turns away whoever waits.
    pub(crate) fn stop(&mut self) {
        if self.run.is_some() {
            self.halt();
        }
        self.readers.clear();
        self.store.cpu.close(Err(ends()));
        for (id, addresses) in self.store.names.open() {
            let none = vec![None; addresses.len()];
            self.store.names.answer(id, none.into());
        }
        self.answers.finish();
    }

    fn knows(&self, id: u64) -> bool {
        self.readers.iter().any(|reader| reader.id == id) || self.answering.contains(&id)
    }

    fn answer(&mut self, reader: u64, asked: Duration, window: Result<Window, NoProfile>) {
        match window {
            Ok(window) => {
                self.answering.push(reader);
                self.answers.begin(Due {
                    reader,
                    window,
                    taken: Taken {
                        engine: self.engine.name(),
                        leaves_out: self.engine.leaves_out(),
                        budget: self.governor.share(),
                        asked,
                    },
                });
            }
            Err(why) => self.store.cpu.answer(reader, Err(why)),
        }
    }

    /// The rate that is wished for now: the highest of all.
    fn wished(&self, now: Instant) -> Option<SampleRate> {
        let tries = self.run.is_some() || self.obstacle.as_ref().is_none_or(|it| it.until <= now);
        let recorder = self.recorder.filter(|_| tries);
        let readers = self.readers.iter().map(|reader| reader.rate);
        readers.chain(recorder).max()
    }

    /// Makes the engine run as it is wished for and ends the bucket where it must end. Returns when
    /// the open bucket began if it is a new one, else `now`.
    fn follow(&mut self, now: Instant, cut: Cut) -> Instant {
        let wished = self.wished(now);
        let rate = wished.map(|rate| self.governor.allowed(rate));
        let slowed = rate != wished;
        let edge = match (self.run, rate) {
            (None, None) => return now,
            (None, Some(rate)) => return self.begin(rate, slowed, now),
            (Some(run), None) => {
                let edge = self.retune(run.rate, slowed, now);
                self.halt();
                return edge;
            }
            (Some(run), Some(rate)) if rate != run.rate || cut.for_reader => {
                self.retune(rate, slowed, now)
            }
            (Some(run), Some(_)) => {
                let full = now.saturating_duration_since(run.start) >= sampling::BUCKET;
                if cut.touched || full {
                    self.cut(now, slowed);
                } else if now.saturating_duration_since(run.drained) >= self.engine.interval() {
                    self.drain(now);
                }
                now
            }
        };
        if self.readers.is_empty() && self.run.is_some() && self.engine.is_hijacked() {
            let why = "another part of this program took the signal of the CPU samples";
            self.cut(now, slowed);
            self.halt();
            self.refuse(Unavailable(why.to_owned()), now);
        }
        edge
    }

    fn begin(&mut self, rate: SampleRate, slowed: bool, now: Instant) -> Instant {
        let before = Instant::now();
        match self.engine.start(rate) {
            Ok(()) => {
                self.obstacle = None;
                // Starting may take a while, which is no reader's window.
                let started = now + before.elapsed();
                self.governor.begin();
                let cpu = (self.clocks)().host;
                self.run = Some(Run::new(rate, slowed, started, cpu));
                self.publish();
                started
            }
            Err(why) => {
                self.refuse(why, now);
                now
            }
        }
    }

    /// Ends sampling at one rate and goes on at another, or at the same one with nothing left over.
    fn retune(&mut self, rate: SampleRate, slowed: bool, now: Instant) -> Instant {
        let before = Instant::now();
        let mut sink = Sink {
            store: &self.store,
            taken: Drained::default(),
        };
        let tuned = if self.run.is_some_and(|run| run.rate == rate) {
            self.engine.settle(&mut sink)
        } else {
            self.engine.retune(rate, &mut sink)
        };
        let taken = sink.taken;
        let edge = now + before.elapsed();
        self.took(&taken, edge);
        let cpu = self.close(edge);
        match tuned {
            Ok(()) => self.run = Some(Run::new(rate, slowed, edge, cpu)),
            Err(why) => {
                self.run = None;
                self.refuse(why, now);
            }
        }
        self.publish();
        edge
    }

    fn halt(&mut self) {
        self.engine.stop();
        self.run = None;
        self.publish();
    }

    /// Turns away all who wait for the seconds to come; the flight recorder tries again later, less
    /// and less often.
    fn refuse(&mut self, why: Unavailable, now: Instant) {
        for reader in self.readers.drain(..) {
            self.store.cpu.answer(reader.id, Err(why.clone().into()));
        }
        let pause = self.obstacle.take().map_or(sampling::RETRY, |it| {
            (it.pause * 2).min(sampling::RETRY_LAST)
        });
        // Without the flight recorder nothing should be sampled now.
        self.obstacle = self.recorder.map(|_| Obstacle {
            why,
            until: now + pause,
            pause,
        });
        if let Some(meters) = &self.meters {
            meters.hijacked(self.engine.is_hijacked());
        }
        self.publish();
    }

    fn drain(&mut self, now: Instant) {
        let mut sink = Sink {
            store: &self.store,
            taken: Drained::default(),
        };
        self.engine.drain(&mut sink);
        let taken = sink.taken;
        self.took(&taken, now);
    }

    fn took(&mut self, taken: &Drained, now: Instant) {
        if let Some(run) = &mut self.run {
            self.route_cpu.add(&taken.by_set, run.rate.period());
            run.drained = now;
            run.recorded += taken.recorded;
        }
        let (dropped, bytes) = {
            let windows = lock(&self.store.samples.windows);
            (windows.dropped(), windows.bytes())
        };
        if let Some(meters) = &mut self.meters {
            meters.drained(taken, dropped);
            meters.hijacked(self.engine.is_hijacked());
            meters.memory(bytes + self.store.symbols.bytes());
        }
    }

    /// Ends the open bucket at `now`, with all that was sampled until then, and begins the next.
    fn cut(&mut self, now: Instant, slowed: bool) {
        self.drain(now);
        let cpu = self.close(now);
        if let Some(run) = self.run {
            self.run = Some(Run::new(run.rate, slowed, now, cpu));
        }
        self.publish();
    }

    /// Ends the open bucket with what was drained; the host's CPU time at its end.
    fn close(&mut self, now: Instant) -> Option<Duration> {
        let run = self.run?;
        let clocks = (self.clocks)();
        let cpu = clocks.host.zip(run.start_cpu);
        let cpu = cpu.map(|(now, before)| now.saturating_sub(before));
        lock(&self.store.samples.windows).cut(Span {
            start: run.start,
            end: now,
            start_unix_nanos: run.start_unix_nanos,
            period: run.rate.period(),
            cpu,
            slowed: run.slowed,
        });
        let reading = clocks.sampling.zip(clocks.host);
        let reading = reading.map(|(sampling, host)| Reading {
            at: now,
            sampling,
            host,
        });
        let change = self.governor.read(reading, run.rate);
        if let Some(meters) = &mut self.meters {
            let length = now.saturating_duration_since(run.start);
            meters.bucket(length, run.rate.period(), run.recorded, cpu);
            meters.governed(change, self.governor.ceiling());
        }
        clocks.host
    }

    /// Whether seconds that are over reach into the bucket that is open.
    fn is_open_in(&self, span: CpuSpan, now: Instant) -> bool {
        self.run.is_some_and(|run| match span {
            CpuSpan::Ago { ago, duration } => run.start + ago < now + duration,
            CpuSpan::Between { to, .. } => run.start_unix_nanos / NANOS_PER_MILLI < to,
            CpuSpan::Next { .. } => false,
        })
    }

    /// The samples that are held of seconds that are over.
    fn held(&self, wish: CpuWish, now: Instant) -> Result<Window, NoProfile> {
        let windows = lock(&self.store.samples.windows);
        let window = match wish.span {
            CpuSpan::Ago { ago, duration } => now
                .checked_sub(ago)
                .and_then(|from| windows.merge(from, from + duration, wish.detail)),
            CpuSpan::Between { from, to } => {
                let nanos = |millis: u64| millis.saturating_mul(NANOS_PER_MILLI);
                windows.merge_unix(nanos(from), nanos(to), wish.detail)
            }
            CpuSpan::Next { .. } => None,
        };
        let held = windows.held();
        drop(windows);
        window.ok_or_else(|| match (held, &self.obstacle) {
            (Some(held), _) => {
                // Inwards, so that what is shown here can be asked for.
                let (from, to) = (
                    held.from.div_ceil(NANOS_PER_MILLI),
                    held.to / NANOS_PER_MILLI,
                );
                let seconds = Duration::from_millis(to.saturating_sub(from)).as_secs();
                NoProfile {
                    text: format!(
                        "nothing is held of that span: the flight recorder holds {seconds} s, \
                         from={from}&to={to} (Unix ms)"
                    ),
                    not_held: true,
                }
            }
            (None, Some(obstacle)) => obstacle.why.clone().into(),
            (None, None) if self.recorder.is_none() => {
                let why = "the flight recorder is off and holds nothing of the past: ask without \
                           ago, from and to for the seconds to come";
                Unavailable(why.to_owned()).into()
            }
            (None, None) => {
                let why = "the flight recorder holds nothing yet: ask again in a second";
                Unavailable(why.to_owned()).into()
            }
        })
    }

    /// Says how things stand.
    fn publish(&self) {
        if let Some(meters) = &self.meters {
            meters.rate(self.run.map(|run| run.rate));
        }
        let windows = lock(&self.store.samples.windows);
        let (held, bytes, buckets) = (windows.held(), windows.bytes(), windows.len());
        drop(windows);
        let why = self
            .obstacle
            .as_ref()
            .map(|obstacle| obstacle.why.0.clone());
        *lock(&self.store.recorder) = Recorder {
            hz: self.run.map(|run| run.rate.hz()),
            limit_hz: self.governor.ceiling().map(SampleRate::hz),
            obstacle: why,
            held,
            bytes,
            buckets,
        };
    }

    fn wait(&self, now: Instant) -> Duration {
        let due = match (&self.run, &self.obstacle) {
            (Some(run), _) => {
                Some((run.start + sampling::BUCKET).min(run.drained + self.engine.interval()))
            }
            (None, Some(obstacle)) => self.recorder.map(|_| obstacle.until),
            (None, None) => None,
        };
        let soon = (self.store.refresh.waiting() > 0).then_some(now + SOON);
        let ends = self.readers.iter().map(Reader::end);
        let next = ends.chain(due).chain(soon).min();
        let left = next.map_or(TURN, |next| next.saturating_duration_since(now));
        left.min(TURN)
    }
}

const NANOS_PER_MILLI: u64 = 1_000_000;

/// What those are told who come too late.
fn ends() -> NoProfile {
    Unavailable("the agent is stopping".to_owned()).into()
}

impl Run {
    fn new(rate: SampleRate, slowed: bool, start: Instant, start_cpu: Option<Duration>) -> Self {
        Self {
            rate,
            slowed,
            start,
            start_unix_nanos: unix_nanos_now(),
            start_cpu,
            drained: start,
            recorded: 0,
        }
    }
}

/// Sampling signals of this process since sampling began: fired, recorded, lost; `None` before it,
/// and where the engine does not count them.
pub(crate) fn signals() -> Option<[u64; 3]> {
    engine::signals()
}

/// The running thread has just started: it is sampled from its first tick on, if anything is.
pub(crate) fn thread_started() {
    engine::thread_started();
}

/// Does work on a thread that the agent has started for it: neither its time nor what it allocates is the
/// host's, however soon it ends.
pub(crate) fn on_own_thread<T>(work: impl FnOnce() -> T) -> T {
    leave_out_this_thread();
    engine::thread_started();
    let done = work();
    engine::own_thread_ends();
    done
}

#[cfg(test)]
mod tests;
