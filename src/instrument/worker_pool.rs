//! Pools of workers with a queue: how long jobs wait, how long they run, and how they end.

use std::sync::Arc;
use std::time::Instant;

use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, Held, Histogram, UpDown};

/// A pool of workers of the host. Cloning is cheap.
///
/// ```
/// # use streamgate_agent::Agent;
/// # let agent = Agent::builder("shop").no_listener().start()?;
/// let pool = agent.worker_pool("render", 2, 1_024);
/// let job = pool.queued();
/// let job = job.started(); // by a worker
/// job.ok();
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct WorkerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    idle: UpDown,
    busy: UpDown,
    depth: Gauge,
    wait: Histogram,
    duration: Histogram,
    ok: Counter,
    failed: Counter,
    panicked: Counter,
    rejected: Counter,
}

impl WorkerPool {
    pub(crate) fn new(store: &Store, name: &str, workers: usize, capacity: usize) -> Self {
        let metrics = &store.metrics;
        let by_state = |state| metrics.own_up_down(&rows::WORKER_POOL_WORKERS, &[name, state]);
        let by_result = |result| metrics.own_counter(&rows::WORKER_POOL_JOBS, &[name, result]);
        let label = [name];
        let idle = by_state("idle");
        idle.add(i64::try_from(workers).unwrap_or(i64::MAX));
        let depth = metrics.own_gauge(&rows::WORKER_POOL_QUEUE_DEPTH, &label);
        depth.set(0.0);
        let most = metrics.own_gauge(&rows::WORKER_POOL_QUEUE_CAPACITY, &label);
        most.set(capacity as f64);
        Self {
            inner: Arc::new(Inner {
                idle,
                busy: by_state("busy"),
                depth,
                wait: metrics.own_histogram(&rows::WORKER_POOL_JOB_WAIT, &label),
                duration: metrics.own_histogram(&rows::WORKER_POOL_JOB_DURATION, &label),
                ok: by_result("ok"),
                failed: by_result("failed"),
                panicked: by_result("panicked"),
                rejected: metrics.own_counter(&rows::WORKER_POOL_REJECTED, &[name, "queue_full"]),
            }),
        }
    }

    /// A job waits in the queue from now on.
    #[must_use]
    pub fn queued(&self) -> QueuedJob {
        self.inner.depth.add(1.0);
        QueuedJob {
            pool: Arc::clone(&self.inner),
            since: Instant::now(),
        }
    }

    /// A job found no place in the queue.
    pub fn rejected(&self) {
        self.inner.rejected.inc();
    }
}

/// A job in the queue; dropped, it has left it without being run.
#[derive(Debug)]
pub struct QueuedJob {
    pool: Arc<Inner>,
    since: Instant,
}

impl QueuedJob {
    /// A worker takes the job: records the wait and starts the clock of its run.
    #[must_use]
    pub fn started(self) -> RunningJob {
        let now = Instant::now();
        self.pool.wait.record(now.duration_since(self.since));
        self.pool.idle.add(-1);
        RunningJob {
            _busy: self.pool.busy.hold(),
            pool: Arc::clone(&self.pool),
            since: now,
            ended: false,
        }
    }
}

impl Drop for QueuedJob {
    fn drop(&mut self) {
        self.pool.depth.add(-1.0);
    }
}

/// A job that runs; dropped without an end, it has panicked.
#[derive(Debug)]
pub struct RunningJob {
    pool: Arc<Inner>,
    since: Instant,
    ended: bool,
    _busy: Held,
}

impl RunningJob {
    /// The job did what it was made for.
    pub fn ok(mut self) {
        self.ended = true;
        self.pool.ok.inc();
    }

    /// The job ended and did not.
    pub fn failed(mut self) {
        self.ended = true;
        self.pool.failed.inc();
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.panicked.inc();
        }
        self.pool.duration.record(self.since.elapsed());
        self.pool.idle.add(1);
    }
}
