//! Database queries: one handle per statement, one guard per run.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::awaits::{self, OpenAwait};
use super::scope;
use super::traces::{self, Begun, Site, Took};
use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::metrics::{Counter, Histogram};

/// What a statement is called in every output; all of it static, never the statement's text with
/// values in it.
///
/// Source: OpenTelemetry database semantic conventions, stable since 1.33.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "hosts write it as a literal")]
pub struct QueryLabels {
    /// The database product: `sqlite`, `postgresql`.
    pub system: &'static str,
    /// The database, and schema where there is one.
    pub namespace: &'static str,
    /// The verb: `SELECT`, `INSERT`.
    pub operation: &'static str,
    /// The main table.
    pub collection: &'static str,
    /// A short text that tells this statement from the others: `SELECT content by id`.
    pub summary: &'static str,
}

/// A statement that is run many times. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Query {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    labels: QueryLabels,
    ok: Histogram,
    rows: Histogram,
    slow: Counter,
    slow_at: Duration,
    failed: [OnceLock<(&'static str, Histogram)>; 8],
    frame: Frame,
    site: Site,
}

impl Query {
    pub(crate) fn new(store: &Arc<Store>, labels: QueryLabels, slow_at: Duration) -> Self {
        let metrics = &store.metrics;
        let threshold = format!("{}ms", slow_at.as_millis());
        let slow = [labels.system, labels.summary, &threshold];
        Self {
            inner: Arc::new(Inner {
                ok: duration(store, labels, ""),
                rows: metrics
                    .own_histogram(&rows::DB_CLIENT_RESPONSE_RETURNED_ROWS, &[labels.summary]),
                slow: metrics.own_counter(&rows::DB_CLIENT_SLOW_QUERIES, &slow),
                slow_at,
                frame: store.awaits.frame(&format!("query {}", labels.summary)),
                site: traces::query_site(store, labels),
                labels,
                store: Arc::clone(store),
                failed: [const { OnceLock::new() }; 8],
            }),
        }
    }

    /// Starts the clock of one run.
    #[must_use]
    pub fn start(&self) -> QueryRun {
        scope::count_query();
        QueryRun {
            _open: awaits::open(&self.inner.store, self.inner.frame),
            trace: Begun::now(&self.inner.store),
            query: self.clone(),
            started: Instant::now(),
            done: false,
        }
    }
}

fn duration(store: &Store, labels: QueryLabels, error: &str) -> Histogram {
    let QueryLabels {
        system,
        namespace,
        operation,
        collection,
        summary,
    } = labels;
    let labels = [system, namespace, operation, collection, summary, error];
    store
        .metrics
        .own_histogram(&rows::DB_CLIENT_OPERATION_DURATION, &labels)
}

/// One run of a statement; dropped without an end it counts as cancelled.
#[derive(Debug)]
pub struct QueryRun {
    query: Query,
    started: Instant,
    done: bool,
    trace: Begun,
    _open: Option<OpenAwait>,
}

impl QueryRun {
    /// The run succeeded and returned (or wrote) this many rows.
    pub fn ok(mut self, rows: u64) {
        let inner = Arc::clone(&self.query.inner);
        inner.rows.record_value(rows);
        self.finish(&inner.ok, "", rows);
    }

    /// The run failed; `error_type` is a word from a small set, such as `timeout`.
    pub fn failed(mut self, error_type: &'static str) {
        self.fail(error_type);
    }

    fn fail(&mut self, error_type: &'static str) {
        let inner = Arc::clone(&self.query.inner);
        let find = || duration(&inner.store, inner.labels, error_type);
        for place in &inner.failed {
            // Another thread may be first here, with this word or another.
            let (held, histogram) = place.get_or_init(|| (error_type, find()));
            if *held == error_type {
                return self.finish(histogram, error_type, 0);
            }
        }
        let other = duration(&inner.store, inner.labels, "_OTHER");
        self.finish(&other, error_type, 0);
    }

    fn finish(&mut self, histogram: &Histogram, error: &'static str, rows: u64) {
        self.done = true;
        let elapsed = self.started.elapsed();
        histogram.record(elapsed);
        let inner = &self.query.inner;
        let took = Took {
            store: &inner.store,
            began: self.started,
            elapsed,
        };
        self.trace.query(took, inner.site, error, rows);
        if elapsed >= self.query.inner.slow_at {
            self.query.inner.slow.inc();
        }
    }
}

impl Drop for QueryRun {
    fn drop(&mut self) {
        if !self.done {
            self.fail("cancelled");
        }
    }
}
