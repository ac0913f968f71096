//! Reads the backlog every 15 seconds and shows it as gauges.
//!
//! Metrics: `streamgate_content_processing`, `streamgate_transactions_pending`,
//! `streamgate_content_oldest_age_seconds`, on PostgreSQL `streamgate_index_scans_total{index}`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use crate::api::App;
use crate::db::backlog::Backlog;
use crate::observe::Observe;

/// As often as Prometheus usually scrapes: fresher numbers would be read by nobody.
const EVERY: Duration = Duration::from_secs(15);

/// Runs until aborted.
pub(super) async fn watch(app: Arc<App>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        show_index_scans(&app).await;
        match app.db.backlog().await {
            Ok(backlog) => show(&app.observe, backlog),
            // The statement's own metrics have counted it; old numbers would look like new ones.
            Err(error) => {
                tracing::warn!(%error, "the backlog is not known");
                app.observe.processing.clear();
                app.observe.pending.clear();
                app.observe.oldest.clear();
            }
        }
    }
}

fn show(observe: &Observe, backlog: Backlog) {
    observe.processing.set(as_gauge(backlog.processing));
    observe.pending.set(as_gauge(backlog.pending));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    match backlog.oldest.and_then(|micros| u64::try_from(micros).ok()) {
        Some(micros) => {
            let age = now.saturating_sub(Duration::from_micros(micros));
            observe.oldest.set(age.as_secs_f64());
        }
        None => observe.oldest.clear(),
    }
}

/// PostgreSQL counts them; an index that nothing scans costs every write and gains nothing.
async fn show_index_scans(app: &App) {
    match app.db.index_scans().await {
        Ok(indexes) => {
            for (index, scans) in indexes {
                app.observe.index_scans(&index, as_gauge(scans));
            }
        }
        Err(error) => tracing::warn!(%error, "the scans of indexes are not known"),
    }
}

/// Exact up to 2^53 rows.
fn as_gauge(rows: i64) -> f64 {
    rows as f64
}
