//! The agent's threads: started by name, restarted after a panic, stopped with a deadline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::catalog::families;
use crate::collect::heap::leave_out_this_thread;
use crate::error::Error;
use crate::export::Published;
use crate::store::metrics::{Counter, Gauge};
use crate::store::sync::lock;

/// First pause after a panic; doubled each time up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A part that panics this often within [`PATIENCE`] stays off: it would only burn CPU.
const PANICS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(300);

/// Says when to stop, and knows who still runs.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// Until when threads may work on; `None`: nobody set an end.
    until: Mutex<Option<Instant>>,
    running: Mutex<Vec<&'static str>>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Asks all threads to end within so long. Asked again, the earlier end holds.
    pub(crate) fn ask(&self, within: Duration) {
        let end = Instant::now().checked_add(within);
        let mut until = lock(&self.until);
        *until = [*until, end].into_iter().flatten().min();
        drop(until);
        self.asked.store(true, Ordering::Release);
        // Taken so that a thread between its check and its wait cannot miss the news.
        drop(lock(&self.running));
        self.changed.notify_all();
    }

    /// For how long a thread may work on; without end while nobody asks it to stop.
    pub(crate) fn left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        lock(&self.until).map_or(Duration::MAX, left)
    }

    /// Waits until every thread has ended, and returns those that have not by the deadline.
    pub(crate) fn wait(&self, deadline: Duration) -> Vec<&'static str> {
        let started = Instant::now();
        let mut running = lock(&self.running);
        while !running.is_empty() {
            let left = deadline.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(running, left);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        running.clone()
    }

    /// Waits, but not after it was asked to stop.
    pub(crate) fn pause(&self, pause: Duration) {
        let running = lock(&self.running);
        if !self.is_asked() {
            drop(
                self.changed
                    .wait_timeout(running, pause)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }
}

/// Starts a thread that runs `body` until it returns; after a panic it is run again.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(crate) fn start(
    name: &'static str,
    component: &'static str,
    shared: &Shared,
    mut body: impl FnMut() + Send + 'static,
) -> Result<(), Error> {
    let metrics = &shared.store.metrics;
    let part = Part {
        component,
        up: metrics.gauge(&families::AGENT_UP, &[component])?,
        panics: metrics.counter(&families::AGENT_PANICS, &[component])?,
        published: Arc::clone(&shared.published),
    };
    let (stop, threads) = (Arc::clone(&shared.stop), Arc::clone(&shared.threads));
    lock(&stop.running).push(name);
    let running = Running {
        stop: Arc::clone(&stop),
        name,
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _running = running;
        // What the agent allocates is no part of the host's heap profile.
        leave_out_this_thread();
        threads.register(component);
        supervise(&stop, &part, &mut body);
    });
    spawned
        .map(drop)
        .map_err(|source| Error::thread(name, source))
}

/// What is said of one thread.
struct Part {
    component: &'static str,
    up: Gauge,
    panics: Counter,
    published: Arc<Published>,
}

impl Part {
    fn say_up(&self, up: bool) {
        self.up.set(f64::from(u8::from(up)));
        self.published.set_up(self.component, up);
    }
}

fn supervise(stop: &Stop, part: &Part, body: &mut dyn FnMut()) {
    let mut recent: Vec<Instant> = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        part.say_up(true);
        let outcome = catch_unwind(AssertUnwindSafe(&mut *body));
        part.say_up(false);
        if outcome.is_ok() || stop.is_asked() {
            return;
        }
        part.panics.inc();
        let now = Instant::now();
        recent.retain(|panic| now.duration_since(*panic) < PATIENCE);
        recent.push(now);
        if recent.len() >= PANICS {
            return;
        }
        stop.pause(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Takes the thread off the list however it ends.
struct Running {
    stop: Arc<Stop>,
    name: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.stop.running);
        if let Some(place) = running.iter().position(|name| *name == self.name) {
            running.swap_remove(place);
        }
        drop(running);
        self.stop.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::shared_tests::shared;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_part_that_panics_once_is_run_again_and_counted() {
        let shared = shared();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&runs);
        start("sg-test", "test", &shared, move || {
            assert!(seen.fetch_add(1, Ordering::Relaxed) > 0, "first run fails");
        })
        .unwrap();
        assert!(shared.stop.wait(Duration::from_secs(30)).is_empty());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        let panics = shared.store.metrics.snapshot();
        let family = panics.family(&families::AGENT_PANICS).unwrap();
        let total = panics.values(family).next().unwrap().1;
        assert_eq!(total, crate::store::metrics::Value::Total(1));
    }

    #[test]
    fn a_thread_that_does_not_end_is_named() {
        let shared = shared();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        start("sg-stuck", "stuck", &shared, move || {
            assert!(blocked.recv().is_err());
        })
        .unwrap();
        shared.stop.ask(Duration::ZERO);
        assert_eq!(shared.stop.wait(Duration::from_millis(1)), ["sg-stuck"]);
        drop(release);
        assert!(shared.stop.wait(Duration::from_secs(30)).is_empty());
    }
}
