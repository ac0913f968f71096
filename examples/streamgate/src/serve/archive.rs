//! Runs the archiver from time to time.
//!
//! Guide 7.2. Metrics: `streamgate_archive_rows_total`, `streamgate_archive_oldest_age_seconds`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::api::App;

/// Runs until aborted; ends at once without a period.
pub(super) async fn watch(app: Arc<App>, every: Option<Duration>) {
    let Some(every) = every else { return };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let moved = |ids: Vec<_>| {
            let app = Arc::clone(&app);
            async move { app.payloads_moved(&ids).await }
        };
        match app.archive.run_all(&app.db, moved).await {
            Ok((0, 0)) => {}
            Ok((archived, removed)) => tracing::info!(archived, removed, "archived"),
            // The next run tries again; the age of the oldest content says how long that lasts.
            Err(error) => tracing::warn!(%error, "the archiver stopped"),
        }
    }
}
