//! Removes objects that nothing refers to: of archivers that died, of contents restored or removed.
//!
//! Breaking tests: `an_orphan_goes_after_a_day_and_a_used_object_stays`,
//! `an_object_about_to_be_removed_takes_no_manifest`.

use std::time::Duration;

use super::{Archive, ArchiveError};
use crate::db::Database;

/// Age of an object below which an archiver may be about to refer to it. A lease is five minutes.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Archive {
    /// Removes orphans; how many.
    ///
    /// # Errors
    /// The store or the database does not answer; what was marked is removed by the next sweep.
    pub(crate) async fn sweep(&self, db: &Database) -> Result<u64, ArchiveError> {
        let age = i64::try_from(ORPHAN_AGE.as_micros()).unwrap_or(i64::MAX);
        let before = db.archive_clock().await?.saturating_sub(age);
        self.sweep_before(db, before).await
    }

    /// Removes orphans that were written before this time; microseconds since 1970.
    pub(super) async fn sweep_before(
        &self,
        db: &Database,
        before: i64,
    ) -> Result<u64, ArchiveError> {
        let mut removed = 0;
        for object in self.store.list().await? {
            // First the mark, which no commit gets past, then the object: an archiver that has found this
            // very object there already, and is about to refer to it, gives up its batch.
            if object.written_at < before && db.archive_doom(&object.key).await? {
                self.store.remove(&object.key).await?;
                db.archive_forget(&object.key).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
