//! The verdicts on the targets, renewed once a second and for whoever asks.

use std::sync::Mutex;
use std::time::Instant;

use crate::assess::leaks::CacheReading;
use crate::assess::target_file::Thresholds;
use crate::assess::targets::{self, TargetTable};
use crate::assess::window::{Reading, Window};
use crate::export::Published;
use crate::store::Store;
use crate::store::metrics::{Metrics, unix_nanos_now};
use crate::store::sync::lock;

#[derive(Debug)]
pub(crate) struct Judge {
    state: Mutex<State>,
    thresholds: Thresholds,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// When the service last became ready, or the agent started.
    since: Instant,
    ready: bool,
}

impl Judge {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        let window = Window::new(thresholds.clone());
        let state = State {
            window,
            since: Instant::now(),
            ready: true,
        };
        Self {
            state: Mutex::new(state),
            thresholds,
        }
    }

    /// As long as a request may take by the targets.
    #[cfg(feature = "otlp")]
    pub(super) fn latency_target(&self) -> Option<std::time::Duration> {
        std::time::Duration::try_from_secs_f64(self.thresholds.latency_p95.must).ok()
    }

    /// Takes a reading and judges the window that ends with it.
    ///
    /// The window begins anew when the service becomes ready: while it filled its caches or its
    /// database nobody was meant to be served, and no throughput was missed.
    pub(crate) fn judge(&self, metrics: &Metrics, published: &Published) -> TargetTable {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let ready = published.is_ready();
        if ready && !state.ready {
            state.window = Window::new(self.thresholds.clone());
            state.since = now;
        }
        state.ready = ready;
        state.window.push(Reading::of(&metrics.snapshot(), now));
        let uptime = now.saturating_duration_since(state.since);
        let table = state.window.table(uptime, unix_nanos_now() / 1_000_000);
        let levels = state.window.cache_levels(uptime);
        targets::publish(metrics, table.rows.iter().chain(&levels));
        table
    }
}

/// Hands what the sites of live memory hold, with what the caches say of themselves, to whoever
/// looks for leaks.
pub(crate) fn follow_sites(store: &Store, published: &Published) {
    if let Some((at, sites)) = store.sites.take() {
        let caches = CacheReading::all(&store.metrics.snapshot());
        lock(&published.leaks).observe(at, sites, caches);
    }
}
