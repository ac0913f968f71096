//! The collecting thread and those that profile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::{judge, threads};
use crate::catalog::families;
use crate::collect::Source;
use crate::collect::cpu::CpuCollector;
use crate::collect::heap::{self, HeapCollector};
use crate::collect::wall::WallCollector;
use crate::config;
use crate::error::Error;
use crate::store::demand::Board;
use crate::store::heap::Recording;
use crate::store::metrics::Counter;

/// A source, when it is next due, and how often it panicked.
struct Scheduled {
    source: Box<dyn Source>,
    due: Instant,
    panics: Counter,
}

/// Starts the thread that reads the sources and judges the targets.
pub(super) fn collect(shared: &Shared, sources: Vec<Box<dyn Source>>) -> Result<(), Error> {
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
    let mut judge_due = started;
    threads::start("sg-collect", "collect", shared, move || {
        while !inside.stop.is_asked() {
            turn(&inside, &mut scheduled, &mut judge_due);
        }
    })
}

/// Reads what is due or wished for, judges, and waits for the next occasion.
fn turn(shared: &Shared, scheduled: &mut [Scheduled], judge_due: &mut Instant) {
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
    judge::follow_sites(store, &shared.published);
    if now >= *judge_due || !wishes.is_empty() {
        let table = shared.judge.judge(&store.metrics, &shared.published);
        shared.published.set_targets(table);
        *judge_due = now + config::COLLECT_INTERVAL;
    }
    for (id, ()) in wishes {
        store.refresh.answer(id, ());
    }
    let due = scheduled.iter().map(|entry| entry.due).chain([*judge_due]);
    let due = due.min().unwrap_or(now);
    let wait = due
        .saturating_duration_since(Instant::now())
        .min(config::COLLECT_INTERVAL);
    if store.refresh.open().is_empty() && !shared.stop.is_asked() {
        store.refresh.wait(wait.max(Duration::from_millis(1)));
    }
}

/// Starts the thread that samples, unwinds and symbolises.
pub(super) fn profile(shared: &Shared) -> Result<(), Error> {
    let mut collector = CpuCollector::new(Arc::clone(&shared.store), &shared.config);
    let inside = shared.clone();
    threads::start("sg-profile", "profile", shared, move || {
        while goes_on(&inside, &inside.store.cpu) {
            if inside.stop.is_asked() {
                collector.turn_away();
            }
            let wait = collector.turn(Instant::now());
            inside.store.cpu.wait(wait.min(inside.stop.left()));
        }
        collector.stop();
    })
}

/// Starts the thread that looks at other threads when somebody asks.
pub(super) fn look(shared: &Shared) -> Result<(), Error> {
    if !shared.config.profiling {
        // Nobody can ask.
        return Ok(());
    }
    let mut collector = WallCollector::new(Arc::clone(&shared.store), &shared.config.workers);
    let inside = shared.clone();
    threads::start("sg-wall", "wall", shared, move || {
        while !inside.stop.is_asked() {
            collector.turn();
        }
        collector.stop();
    })
}

/// Starts the thread that reads the allocator's samples, if there are any.
pub(super) fn heap(shared: &Shared) -> Result<(), Error> {
    if heap::begin(&shared.store, &shared.config) != Recording::On {
        return Ok(());
    }
    let mut collector = HeapCollector::new(Arc::clone(&shared.store), &shared.config)?;
    let inside = shared.clone();
    threads::start("sg-heap", "heap", shared, move || {
        while goes_on(&inside, &inside.store.heap.wishes) {
            collector.turn();
        }
        collector.stop();
    })
}

/// Until the agent is asked to stop, and then while somebody pushes the last profiles, to its deadline.
fn goes_on<W, A>(shared: &Shared, board: &Board<W, A>) -> bool {
    !shared.stop.is_asked() || (board.is_held() && !shared.stop.left().is_zero())
}
