//! Arrivals that wait for a free connection, and the bound on requests in flight.
//!
//! Lives on one thread (`RefCell`): between a look at the queue and the wait for a wake-up nothing else
//! runs, so no wake-up is lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::Notify;

use super::pacer::Due;

/// An arrival taken in by the generator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// What to ask and since when it is due.
    pub(crate) due: Due,
    /// When the generator took it in.
    pub(crate) taken: Instant,
    /// Whether a connection was idle then; if not, waiting is the service's doing, not the generator's.
    pub(crate) line_free: bool,
}

/// First-in first-out queue for a fixed set of workers.
#[derive(Debug)]
pub(crate) struct Queue {
    state: RefCell<State>,
    wake: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    in_flight: usize,
    closed: bool,
}

impl Queue {
    /// Bounds the jobs that wait or run to `capacity`.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            state: RefCell::default(),
            wake: Notify::new(),
            capacity,
        }
    }

    /// Takes an arrival in; `false` when too many are in flight already.
    #[must_use]
    pub(crate) fn offer(&self, due: Due, taken: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if state.in_flight >= self.capacity {
            return false;
        }
        state.in_flight += 1;
        let line_free = state.idle > state.jobs.len();
        state.jobs.push_back(Job {
            due,
            taken,
            line_free,
        });
        // The worker that waited shortest: few connections carry the load while few are enough.
        self.wake.notify_last();
        true
    }

    /// Next job, or nothing once the queue is closed and empty. Each job must be followed by [`Queue::done`].
    pub(crate) async fn take(&self) -> Option<Job> {
        loop {
            {
                let mut state = self.state.borrow_mut();
                if let Some(job) = state.jobs.pop_front() {
                    return Some(job);
                }
                if state.closed {
                    return None;
                }
                state.idle += 1;
            }
            self.wake.notified().await;
            self.state.borrow_mut().idle -= 1;
        }
    }

    /// Ends a job that was taken.
    pub(crate) fn done(&self) {
        self.state.borrow_mut().in_flight -= 1;
    }

    /// Jobs that wait or run.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.borrow().in_flight
    }

    /// Lets the workers end once the queue is empty.
    pub(crate) fn close(&self) {
        self.state.borrow_mut().closed = true;
        self.wake.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::mix::Journey;
    use crate::bench::plan::Arrival;

    fn due(content: u64) -> Due {
        let arrival = Arrival {
            number: 0,
            at: Duration::ZERO,
            journey: Journey::Detail,
            content,
            user: 0,
            form: 0,
            conditional: false,
            following: false,
            trace: None,
        };
        Due {
            arrival,
            intended: Instant::now(),
        }
    }

    #[tokio::test]
    async fn offers_past_the_bound_are_refused_until_a_job_is_done() {
        let queue = Queue::new(2);
        let now = Instant::now();
        assert!(queue.offer(due(1), now));
        assert!(queue.offer(due(2), now));
        assert!(!queue.offer(due(3), now));
        // A job that runs still counts.
        assert_eq!(queue.take().await.unwrap().due.arrival.content, 1);
        assert!(!queue.offer(due(3), now));
        queue.done();
        assert!(queue.offer(due(3), now));
    }

    #[tokio::test]
    async fn idle_workers_are_told_apart_from_busy_ones() {
        let queue = Queue::new(8);
        let (job, ()) = tokio::join!(queue.take(), async {
            assert!(queue.offer(due(1), Instant::now()));
            assert!(queue.offer(due(2), Instant::now()));
        });
        assert!(job.unwrap().line_free);
        assert!(!queue.take().await.unwrap().line_free);
    }

    #[tokio::test]
    async fn closing_wakes_waiting_workers_and_keeps_queued_jobs() {
        let queue = Queue::new(8);
        let (none, ()) = tokio::join!(queue.take(), async { queue.close() });
        assert!(none.is_none());

        let queue = Queue::new(8);
        assert!(queue.offer(due(1), Instant::now()));
        queue.close();
        assert!(queue.take().await.is_some());
        assert!(queue.take().await.is_none());
    }
}
