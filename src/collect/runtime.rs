//! The async runtimes of the host: their stable metrics, and how soon they poll what is woken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use super::Source;
use crate::catalog::families;
use crate::config;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, Histogram, Metrics, ObservedCounter};
use crate::store::sync::lock;

/// How often a task of each runtime that works is woken. Half would double the wake-ups of an idle host,
/// twice would give P99 over a minute only three samples above it.
const TICK: Duration = Duration::from_millis(100);

/// Ticks that wait for a runtime that does not poll: after 1.6 s no more are sent, and each of
/// those is recorded with its own delay when the runtime goes on.
const WAITING: usize = 16;

/// Runtimes and workers of each that are shown: their product stays below a family's label sets.
const RUNTIMES: usize = 8;
const WORKERS: usize = 240;

/// The runtimes that the host wants measured.
#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    /// Those that the collecting thread has not taken over yet.
    added: Mutex<Vec<(String, Handle)>>,
}

impl Runtimes {
    /// Measures a runtime from the next second on. A runtime of the same name is measured no more.
    ///
    /// The runtime needs neither its time nor its I/O driver. A current-thread runtime that no one
    /// drives polls nothing, which shows as a delay once it is driven again.
    pub(crate) fn add(&self, name: &str, handle: Handle) {
        let mut added = lock(&self.added);
        added.retain(|(earlier, _)| earlier != name);
        // One more than are shown, so that the source sees and counts what it must leave out.
        if added.len() <= RUNTIMES {
            added.push((name.to_owned(), handle));
        }
    }
}

/// Shows the runtimes.
///
/// # Cost
/// A wake-up per runtime each 100 ms while it works and each second while it sleeps; each second one read of
/// its counters.
pub(crate) struct RuntimeSource {
    store: Arc<Store>,
    runtimes: Arc<Runtimes>,
    watched: BTreeMap<String, Watched>,
    dropped: Counter,
    due: Option<Instant>,
}

impl fmt::Debug for RuntimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeSource")
            .field("watched", &self.watched.keys())
            .finish_non_exhaustive()
    }
}

impl RuntimeSource {
    /// # Errors
    /// Out of range if a family was declared with another shape before.
    pub(crate) fn new(store: Arc<Store>, runtimes: Arc<Runtimes>) -> Result<Self, Error> {
        let labels = ["runtime", "limit"];
        let dropped = store.metrics.counter(&families::AGENT_DROPPED, &labels)?;
        Ok(Self {
            store,
            runtimes,
            watched: BTreeMap::new(),
            dropped,
            due: None,
        })
    }

    fn take_over(&mut self) {
        let added = std::mem::take(&mut *lock(&self.runtimes.added));
        for (name, handle) in added {
            if self.watched.len() >= RUNTIMES && !self.watched.contains_key(&name) {
                self.dropped.inc();
                continue;
            }
            if let Ok(watched) = Watched::new(&self.store.metrics, &name, &handle) {
                self.watched.insert(name, watched);
            }
        }
    }
}

impl Source for RuntimeSource {
    fn component(&self) -> &'static str {
        "runtime"
    }

    fn interval(&self) -> Duration {
        // To wake an idle host ten times a second is a third of what an idle agent costs.
        if self.watched.values().any(|runtime| runtime.works) {
            TICK
        } else {
            config::COLLECT_INTERVAL
        }
    }

    fn collect(&mut self) {
        self.take_over();
        let now = Instant::now();
        if self.due.is_none_or(|due| now >= due) {
            self.due = Some(now + config::COLLECT_INTERVAL);
            self.watched.values().for_each(Watched::read);
        }
        // After the reading, which would find the tick in the queue.
        self.watched.retain(|_, runtime| {
            runtime.look();
            let alive = runtime.tick();
            if !alive {
                runtime.clear();
            }
            alive
        });
    }
}

/// One runtime. Dropping it ends the task inside the runtime.
struct Watched {
    metrics: RuntimeMetrics,
    ticks: Sender<Instant>,
    /// The task has a weak reference only: a runtime that never polls it again must not keep the
    /// agent's memory.
    _delay: Arc<Histogram>,
    workers: Gauge,
    alive_tasks: Gauge,
    queue_depth: Gauge,
    busy: Vec<ObservedCounter>,
    parks: Vec<ObservedCounter>,
    /// How often workers had gone to sleep and woken at the last look.
    turns: u64,
    /// Whether there was more to do than our own tick.
    works: bool,
}

/// What a tick makes of it: a worker that wakes and sleeps again, and another that it calls to help.
const TURNS_OF_A_TICK: u64 = 4;

impl Watched {
    fn new(store: &Metrics, name: &str, handle: &Handle) -> Result<Self, Error> {
        let metrics = handle.metrics();
        let gauge = |metric| store.gauge(metric, &[name]);
        let per_worker = |metric| {
            (0..metrics.num_workers().min(WORKERS))
                .map(|worker| store.observed_counter(metric, &[name, &worker.to_string()]))
                .collect::<Result<Vec<_>, Error>>()
        };
        let delay = Arc::new(store.histogram(&families::TOKIO_SCHEDULE_DELAY, &[name])?);
        let (ticks, mut sent) = mpsc::channel::<Instant>(WAITING);
        let recorded = Arc::downgrade(&delay);
        // A task that is woken from outside, and not one that sleeps: a sleep needs the runtime's
        // time driver and panics without it, which a host built with `panic = "abort"` would not
        // survive. The delay also holds no rounding of the timer wheel.
        drop(handle.spawn(async move {
            while let Some(woken) = sent.recv().await {
                let Some(delay) = recorded.upgrade() else {
                    return;
                };
                delay.record(woken.elapsed());
            }
        }));
        Ok(Self {
            ticks,
            _delay: delay,
            workers: gauge(&families::TOKIO_WORKERS)?,
            alive_tasks: gauge(&families::TOKIO_ALIVE_TASKS)?,
            queue_depth: gauge(&families::TOKIO_GLOBAL_QUEUE_DEPTH)?,
            busy: per_worker(&families::TOKIO_WORKER_BUSY)?,
            parks: per_worker(&families::TOKIO_WORKER_PARKS)?,
            turns: 0,
            works: true,
            metrics,
        })
    }

    /// Notes whether the runtime works: a worker that is awake now, blocked perhaps, or more wake-ups than
    /// the last tick's.
    fn look(&mut self) {
        let counts = (0..self.metrics.num_workers())
            .map(|worker| self.metrics.worker_park_unpark_count(worker));
        let (turns, awake) = counts.fold((0_u64, false), |(turns, awake), count| {
            // Odd while the worker sleeps.
            (turns.wrapping_add(count), awake || count.is_multiple_of(2))
        });
        self.works = awake || turns.wrapping_sub(self.turns) > TURNS_OF_A_TICK;
        self.turns = turns;
    }

    /// Wakes the task; false when the runtime has been shut down, for that drops the task.
    fn tick(&self) -> bool {
        !matches!(
            self.ticks.try_send(Instant::now()),
            Err(TrySendError::Closed(_))
        )
    }

    fn read(&self) {
        self.workers.set(self.metrics.num_workers() as f64);
        self.alive_tasks.set(self.metrics.num_alive_tasks() as f64);
        self.queue_depth
            .set(self.metrics.global_queue_depth() as f64);
        for (worker, (busy, parks)) in self.busy.iter().zip(&self.parks).enumerate() {
            let polling = self.metrics.worker_total_busy_duration(worker);
            busy.set(polling.as_secs_f64());
            parks.set(self.metrics.worker_park_count(worker) as f64);
        }
    }

    fn clear(&self) {
        self.workers.clear();
        self.alive_tasks.clear();
        self.queue_depth.clear();
        for total in self.busy.iter().chain(&self.parks) {
            total.set(f64::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::{shown, value};
    use tokio::runtime::{Builder, Runtime};

    struct Agent {
        store: Arc<Store>,
        runtimes: Arc<Runtimes>,
        source: RuntimeSource,
    }

    fn agent() -> Agent {
        let store = Arc::new(Store::new(10_000));
        let runtimes = Arc::new(Runtimes::default());
        let source = RuntimeSource::new(Arc::clone(&store), Arc::clone(&runtimes)).unwrap();
        Agent {
            store,
            runtimes,
            source,
        }
    }

    impl Agent {
        fn delays(&self, runtime: &str) -> f64 {
            let metrics = &self.store.metrics;
            value(metrics, &families::TOKIO_SCHEDULE_DELAY, runtime).unwrap_or(0.0)
        }

        fn value(&self, metric: &crate::catalog::Metric, labels: &str) -> Option<f64> {
            value(&self.store.metrics, metric, labels)
        }
    }

    fn workers(count: usize) -> Runtime {
        // No driver at all: neither time nor I/O.
        Builder::new_multi_thread()
            .worker_threads(count)
            .build()
            .unwrap()
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_runtime_without_time_driver_is_measured() {
        let (host, mut agent) = (workers(2), agent());
        agent.runtimes.add("main", host.handle().clone());
        agent.source.collect();
        eventually("a delay is recorded", || agent.delays("main") >= 1.0);
        assert_eq!(agent.value(&families::TOKIO_WORKERS, "main"), Some(2.0));
        let alive = agent.value(&families::TOKIO_ALIVE_TASKS, "main");
        assert!(alive >= Some(1.0), "{alive:?}");
        let metrics = &agent.store.metrics;
        assert_eq!(shown(metrics, &families::TOKIO_WORKER_BUSY).len(), 2);
        eventually("a worker parks", || {
            agent.source.due = None;
            agent.source.collect();
            let parks = shown(&agent.store.metrics, &families::TOKIO_WORKER_PARKS);
            parks.iter().map(|(_, parks)| parks).sum::<f64>() >= 1.0
        });
    }

    #[test]
    fn a_runtime_that_sleeps_is_woken_once_a_second_and_one_that_works_ten_times() {
        let (host, mut agent) = (workers(2), agent());
        assert_eq!(agent.source.interval(), config::COLLECT_INTERVAL, "none");
        agent.runtimes.add("main", host.handle().clone());
        agent.source.collect();
        let sleeps = |worker| host.metrics().worker_park_unpark_count(worker) % 2 == 1;
        eventually("all workers sleep", || {
            if (0..2).all(sleeps) {
                agent.source.collect();
            }
            agent.source.interval() == config::COLLECT_INTERVAL
        });
        let (blocked, is_blocked) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let task = host.spawn(async move {
            blocked.send(()).unwrap();
            released.recv().unwrap();
        });
        is_blocked.recv().unwrap();
        agent.source.collect();
        assert_eq!(agent.source.interval(), TICK, "one worker is awake");
        release.send(()).unwrap();
        for _ in 0..100 {
            host.block_on(host.spawn(async {})).unwrap();
        }
        host.block_on(task).unwrap();
        agent.source.collect();
        assert_eq!(agent.source.interval(), TICK, "they were awake meanwhile");
    }

    #[test]
    fn a_blocked_worker_shows_as_delay() {
        let (host, mut agent) = (workers(1), agent());
        agent.runtimes.add("main", host.handle().clone());
        let (blocked, is_blocked) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        drop(host.spawn(async move {
            blocked.send(()).unwrap();
            released.recv().unwrap();
        }));
        is_blocked.recv().unwrap();
        let start = Instant::now();
        agent.source.collect();
        agent.source.collect();
        eventually("30 ms pass", || {
            start.elapsed() >= Duration::from_millis(30)
        });
        assert!(agent.delays("main") < 1.0);
        release.send(()).unwrap();
        eventually("both are recorded", || agent.delays("main") >= 2.0);
        let snapshot = agent.store.metrics.snapshot();
        let family = snapshot.family(&families::TOKIO_SCHEDULE_DELAY).unwrap();
        let crate::store::metrics::Value::Histogram(row) =
            snapshot.values(family).next().unwrap().1
        else {
            panic!("not a histogram")
        };
        let (_, fast) = row
            .cumulative()
            .find(|(bound, _)| *bound == 25_000_000)
            .unwrap();
        assert_eq!((row.count(), fast), (2, 0));
    }

    #[test]
    fn a_runtime_that_does_not_poll_gets_no_endless_ticks() {
        // Nobody drives it.
        let host = Builder::new_current_thread().build().unwrap();
        let mut agent = agent();
        agent.runtimes.add("idle", host.handle().clone());
        for _ in 0..100 {
            agent.source.collect();
        }
        host.block_on(async {
            while agent.delays("idle") < WAITING as f64 {
                tokio::task::yield_now().await;
            }
        });
        assert!((agent.delays("idle") - WAITING as f64).abs() < 0.5);
    }

    #[test]
    fn the_task_ends_with_the_agent() {
        let (host, mut agent) = (workers(1), agent());
        agent.runtimes.add("main", host.handle().clone());
        agent.source.collect();
        assert_eq!(host.metrics().num_alive_tasks(), 1);
        drop(agent);
        eventually("no task is left", || host.metrics().num_alive_tasks() == 0);
    }

    #[test]
    fn a_runtime_that_is_gone_is_absent() {
        let (host, mut agent) = (workers(1), agent());
        agent.runtimes.add("main", host.handle().clone());
        agent.source.collect();
        assert_eq!(agent.value(&families::TOKIO_WORKERS, "main"), Some(1.0));
        drop(host);
        agent.source.collect();
        for metric in [
            &families::TOKIO_WORKERS,
            &families::TOKIO_ALIVE_TASKS,
            &families::TOKIO_GLOBAL_QUEUE_DEPTH,
            &families::TOKIO_WORKER_BUSY,
            &families::TOKIO_WORKER_PARKS,
        ] {
            assert_eq!(shown(&agent.store.metrics, metric), [], "{}", metric.name);
        }
        let again = workers(3);
        agent.runtimes.add("main", again.handle().clone());
        agent.source.due = None;
        agent.source.collect();
        assert_eq!(agent.value(&families::TOKIO_WORKERS, "main"), Some(3.0));
    }

    #[test]
    fn runtimes_beyond_the_limit_are_left_out_and_counted() {
        let (host, mut agent) = (workers(1), agent());
        for number in 0..RUNTIMES + 1 {
            let name = format!("r{number}");
            agent.runtimes.add(&name, host.handle().clone());
            agent.runtimes.add(&name, host.handle().clone());
        }
        agent.source.collect();
        let metrics = &agent.store.metrics;
        assert_eq!(shown(metrics, &families::TOKIO_WORKERS).len(), RUNTIMES);
        let dropped = agent.value(&families::AGENT_DROPPED, "runtime limit");
        assert_eq!(dropped, Some(1.0));
    }
}
