//! A fixed number of threads with a bounded queue, for work that would hold up the runtime.
//!
//! Guide 6.2. Metrics: `worker_pool_workers{state}`, `worker_pool_queue_depth`, `worker_pool_job_wait_seconds`,
//! `worker_pool_job_duration_seconds`, `worker_pool_jobs_total{result}`, `worker_pool_rejected_total`. Breaking
//! tests: `a_full_queue_refuses`, `a_panic_is_a_failed_job_and_its_worker_goes_on`, `a_drain_runs_what_is_queued`.
//!
//! Not `spawn_blocking`: that is up to 512 threads and a queue without an end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use streamgate_agent::{AgentHandle, QueuedJob, WorkerPool};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a worker runs; whether it did what it was made for.
type Work = Box<dyn FnOnce() -> bool + Send>;

/// The pool. Dropped, it runs no more than what its workers have begun.
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// A job has come, or there will be none.
    changed: Condvar,
    observe: WorkerPool,
    capacity: usize,
    /// Workers that have not ended.
    alive: watch::Sender<usize>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Work, QueuedJob)>,
    closed: bool,
}

/// The queue has no place, or the service stops.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl Workers {
    /// As many workers as the process may use cores, which honours a quota; so many jobs wait at most.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new(agent: &AgentHandle, capacity: usize) -> io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(agent, workers, capacity)
    }

    fn of(agent: &AgentHandle, workers: usize, capacity: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            observe: agent.worker_pool("jobs", workers, capacity),
            capacity,
            alive: watch::Sender::new(workers),
        });
        let pool = Self(shared);
        for number in 0..workers {
            let shared = Arc::clone(&pool.0);
            let thread = std::thread::Builder::new().name(format!("job-{number}"));
            let spawned = thread.spawn(move || {
                streamgate_agent::thread_started();
                shared.run();
                shared.alive.send_modify(|alive| *alive -= 1);
            });
            spawned?;
        }
        Ok(pool)
    }

    /// Has a job run as soon as a worker is free.
    ///
    /// # Errors
    /// [`QueueFull`]: as many jobs wait as may, or the service stops.
    pub(crate) fn submit(
        &self,
        work: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), QueueFull> {
        let mut queue = self.0.queue();
        if queue.closed || queue.jobs.len() >= self.0.capacity {
            drop(queue);
            self.0.observe.rejected();
            return Err(QueueFull);
        }
        let queued = self.0.observe.queued();
        queue.jobs.push_back((Box::new(work), queued));
        drop(queue);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs and runs those that wait; the number of jobs given up at the deadline.
    pub(crate) async fn drain(&self, deadline: Instant) -> usize {
        self.close();
        let mut alive = self.0.alive.subscribe();
        let ended = alive.wait_for(|alive| *alive == 0);
        if tokio::time::timeout_at(deadline, ended).await.is_ok() {
            return 0;
        }
        std::mem::take(&mut self.0.queue().jobs).len()
    }

    fn close(&self) {
        self.0.queue().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life.
    fn run(&self) {
        while let Some((work, queued)) = self.next() {
            let running = queued.started();
            // Dropped without an end where the job panics, which counts it as that.
            match catch_unwind(AssertUnwindSafe(work)) {
                Ok(true) => running.ok(),
                Ok(false) => running.failed(),
                Err(_) => drop(running),
            }
        }
    }

    /// The next job; `None` when there will be none.
    fn next(&self) -> Option<(Work, QueuedJob)> {
        let waits = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
        let waited = self.changed.wait_while(self.queue(), waits);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .jobs
            .pop_front()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
        drop(std::mem::take(&mut self.0.queue().jobs));
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use streamgate_agent::Agent;

    use super::*;

    /// A pool of one worker, and the agent that sees it.
    fn pool(capacity: usize) -> (Workers, AgentHandle) {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        (Workers::of(&agent, 1, capacity).unwrap(), agent)
    }

    async fn metric(agent: &AgentHandle, series: &str) -> f64 {
        let request = streamgate_agent::Request::new("GET", "/metrics").header("host", "localhost");
        let page = agent.respond(request).await;
        let page = String::from_utf8_lossy(page.body()).into_owned();
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(f64::NAN, |value| value.trim().parse().unwrap())
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Has the one worker wait; it says when it has begun, and goes on when the sender is dropped.
    fn block(pool: &Workers) -> mpsc::Sender<()> {
        let (go, wait) = mpsc::channel::<()>();
        let (tell, began) = mpsc::channel();
        pool.submit(move || {
            tell.send(()).unwrap();
            wait.recv().is_err()
        })
        .unwrap();
        began.recv().unwrap();
        go
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let (pool, agent) = pool(2);
        let go = block(&pool);
        for _ in 0..2 {
            pool.submit(|| true).unwrap();
        }
        assert_eq!(pool.submit(|| true), Err(QueueFull));
        let rejected = "worker_pool_rejected_total{pool=\"jobs\",reason=\"queue_full\"}";
        let depth = "worker_pool_queue_depth{pool=\"jobs\"}";
        let busy = "worker_pool_workers{pool=\"jobs\",state=\"busy\"}";
        for (series, wanted) in [(rejected, 1.0), (depth, 2.0), (busy, 1.0)] {
            let seen = metric(&agent, series).await;
            assert!((seen - wanted).abs() < 0.5, "{series} {seen}");
        }
        drop(go);
        assert_eq!(pool.drain(in_a_minute()).await, 0);
        for (series, wanted) in [(depth, 0.0), (busy, 0.0)] {
            let seen = metric(&agent, series).await;
            assert!((seen - wanted).abs() < 0.5, "{series} {seen}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_job_and_its_worker_goes_on() {
        let (pool, agent) = pool(8);
        pool.submit(|| panic!("a job's own fault")).unwrap();
        pool.submit(|| false).unwrap();
        pool.submit(|| true).unwrap();
        assert_eq!(pool.drain(in_a_minute()).await, 0);
        for result in ["panicked", "failed", "ok"] {
            let series = format!("worker_pool_jobs_total{{pool=\"jobs\",result=\"{result}\"}}");
            let seen = metric(&agent, &series).await;
            assert!((seen - 1.0).abs() < 0.5, "{series} {seen}");
        }
    }

    #[tokio::test]
    async fn a_drain_runs_what_is_queued_and_refuses_what_comes() {
        let (pool, _agent) = pool(8);
        let go = block(&pool);
        let (ran, seen) = mpsc::channel();
        pool.submit(move || ran.send(()).is_ok()).unwrap();
        let mut draining = std::pin::pin!(pool.drain(in_a_minute()));
        assert!(futures_util::poll!(draining.as_mut()).is_pending());
        assert_eq!(pool.submit(|| true), Err(QueueFull));
        drop(go);
        assert_eq!(draining.await, 0);
        assert!(seen.recv().is_ok());
    }

    #[tokio::test]
    async fn at_the_deadline_a_drain_gives_up_what_waits() {
        let (pool, _agent) = pool(8);
        let go = block(&pool);
        pool.submit(|| true).unwrap();
        assert_eq!(pool.drain(Instant::now()).await, 1);
        drop(go);
    }
}
