//! The collecting and the profiling thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::threads;
use crate::assess::targets;
use crate::assess::window::{Reading, Window};
use crate::catalog::families;
use crate::collect::Source;
use crate::collect::cpu::CpuCollector;
use crate::config;
use crate::error::Error;
use crate::store::metrics::{Counter, unix_nanos_now};

/// A source, when it is next due, and how often it panicked.
struct Scheduled {
    source: Box<dyn Source>,
    due: Instant,
    panics: Counter,
}

/// Starts the thread that reads the sources and judges the targets.
pub(super) fn collect(
    shared: &Shared,
    sources: Vec<Box<dyn Source>>,
    window: Window,
) -> Result<(), Error> {
    let started = Instant::now();
    let metrics = &shared.store.metrics;
    let mut scheduled = Vec::new();
    for source in sources {
        let panics = metrics.counter(&families::AGENT_PANICS, &[source.component()])?;
        scheduled.push(Scheduled {
            source,
            due: started,
            panics,
        });
    }
    let inside = shared.clone();
    // Seven rows from the first moment on, none of them green.
    shared
        .published
        .set_targets(window.table(Duration::ZERO, unix_nanos_now() / 1_000_000));
    let mut judge = Judge {
        window,
        started,
        due: started,
    };
    threads::start("sg-collect", "collect", shared, move || {
        while !inside.stop.is_asked() {
            turn(&inside, &mut scheduled, &mut judge);
        }
    })
}

/// The verdicts, renewed once a second and for whoever waits.
struct Judge {
    window: Window,
    started: Instant,
    due: Instant,
}

impl Judge {
    fn judge(&mut self, shared: &Shared) {
        let metrics = &shared.store.metrics;
        self.window
            .push(Reading::of(&metrics.snapshot(), Instant::now()));
        let uptime = self.started.elapsed();
        let table = self.window.table(uptime, unix_nanos_now() / 1_000_000);
        let levels = self.window.cache_levels(uptime);
        targets::publish(metrics, table.rows.iter().chain(&levels));
        shared.published.set_targets(table);
    }
}

/// Reads what is due or wished for, judges, and waits for the next occasion.
fn turn(shared: &Shared, scheduled: &mut [Scheduled], judge: &mut Judge) {
    let store = &shared.store;
    let wishes = store.refresh.open();
    let now = Instant::now();
    for entry in scheduled.iter_mut() {
        // A scrape wants what is cheap to read fresh; slower sources keep their own pace.
        let wished = !wishes.is_empty() && entry.source.on_scrape();
        if now < entry.due && !wished {
            continue;
        }
        if catch_unwind(AssertUnwindSafe(|| entry.source.collect())).is_err() {
            entry.panics.inc();
        }
        entry.due = now + entry.source.interval();
    }
    if now >= judge.due || !wishes.is_empty() {
        judge.judge(shared);
        judge.due = now + config::COLLECT_INTERVAL;
    }
    for (id, ()) in wishes {
        store.refresh.answer(id, ());
    }
    let due = scheduled
        .iter()
        .map(|entry| entry.due)
        .chain([judge.due])
        .min()
        .unwrap_or(now);
    let wait = due
        .saturating_duration_since(Instant::now())
        .min(config::COLLECT_INTERVAL);
    if store.refresh.open().is_empty() && !shared.stop.is_asked() {
        store.refresh.wait(wait.max(Duration::from_millis(1)));
    }
}

/// Starts the thread that samples, unwinds and symbolises.
pub(super) fn profile(shared: &Shared) -> Result<(), Error> {
    let mut collector = CpuCollector::new(Arc::clone(&shared.store));
    let inside = shared.clone();
    threads::start("sg-profile", "profile", shared, move || {
        while !inside.stop.is_asked() {
            let wait = collector.turn(Instant::now());
            inside.store.cpu.wait(wait);
        }
        collector.stop();
    })
}
