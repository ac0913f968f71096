//! The agent's threads: started by name, restarted after a panic, stopped with a deadline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalog::families;
use crate::collect::agent_cost::AgentThreads;
use crate::error::Error;
use crate::store::Store;
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
    running: Mutex<Vec<&'static str>>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // Taken so that a thread between its check and its wait cannot miss the news.
        drop(lock(&self.running));
        self.changed.notify_all();
    }

    /// Waits until every thread has ended, and returns those that have not by the deadline.
    pub(crate) fn wait(&self, deadline: Duration) -> Vec<&'static str> {
        let until = Instant::now() + deadline;
        let mut running = lock(&self.running);
        while !running.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(running, left);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        running.clone()
    }

    fn pause(&self, pause: Duration) {
        let running = lock(&self.running);
        if !self.is_asked() {
            drop(self.changed.wait_timeout(running, pause).unwrap_or_else(PoisonError::into_inner));
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
    store: &Arc<Store>,
    stop: &Arc<Stop>,
    threads: &Arc<AgentThreads>,
    mut body: impl FnMut() + Send + 'static,
) -> Result<(), Error> {
    let up = store.metrics.gauge(&families::AGENT_UP, &[component])?;
    let panics = store.metrics.counter(&families::AGENT_PANICS, &[component])?;
    let (stop, threads) = (Arc::clone(stop), Arc::clone(threads));
    lock(&stop.running).push(name);
    let running = Running { stop: Arc::clone(&stop), name };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _running = running;
        threads.register(component);
        supervise(&stop, &up, &panics, &mut body);
    });
    spawned.map(drop).map_err(|source| Error::thread(name, source))
}

fn supervise(stop: &Stop, up: &Gauge, panics: &Counter, body: &mut dyn FnMut()) {
    let mut recent: Vec<Instant> = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        up.set(1.0);
        let outcome = catch_unwind(AssertUnwindSafe(&mut *body));
        up.set(0.0);
        if outcome.is_ok() || stop.is_asked() {
            return;
        }
        panics.inc();
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
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_part_that_panics_once_is_run_again_and_counted() {
        let store = Arc::new(Store::new(100));
        let stop = Arc::new(Stop::default());
        let threads = Arc::new(AgentThreads::default());
        let runs = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&runs);
        start("sg-test", "test", &store, &stop, &threads, move || {
            assert!(seen.fetch_add(1, Ordering::Relaxed) > 0, "first run fails");
        })
        .unwrap();
        assert!(stop.wait(Duration::from_secs(30)).is_empty());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_thread_that_does_not_end_is_named() {
        let store = Arc::new(Store::new(100));
        let stop = Arc::new(Stop::default());
        let threads = Arc::new(AgentThreads::default());
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        start("sg-stuck", "stuck", &store, &stop, &threads, move || {
            drop(blocked.recv());
        })
        .unwrap();
        stop.ask();
        assert_eq!(stop.wait(Duration::from_millis(1)), ["sg-stuck"]);
        drop(release);
        assert!(stop.wait(Duration::from_secs(30)).is_empty());
    }
}
