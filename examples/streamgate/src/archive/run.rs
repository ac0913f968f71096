//! One batch through its steps, and batches until nothing is old enough.
//!
//! Guide 7.2. The guide's loop reads an open cursor while it deletes under it, does a statement per row,
//! verifies nothing and ends at the first error. Here a batch is one lease, one object and one transaction.

use bytes::Bytes;
use uuid::Uuid;

use super::frame::{Packed, as_u64};
use super::{Archive, ArchiveError, Step};
use crate::db::Database;

/// Rows of one lease. Their payloads are in memory at once: 40 MiB if all are as large as rows may be,
/// 1 MiB of the demo's.
const ROWS: u32 = 500;

impl Archive {
    /// Archives batch after batch until nothing is old enough, then removes orphans; how many of each.
    /// `moved` hears of the contents of each batch, whose cached rows name the wrong place now.
    ///
    /// # Errors
    /// The first batch or the sweep that failed; what was done before stays done.
    pub(crate) async fn run_all<F: Future<Output = ()> + Send>(
        &self,
        db: &Database,
        moved: impl Fn(Vec<Uuid>) -> F + Send,
    ) -> Result<(u64, u64), ArchiveError> {
        let mut archived = 0;
        loop {
            let batch = self.run_batch(db).await?;
            // One of which nothing moved would be leased again and again.
            if batch.is_empty() {
                break;
            }
            archived += as_u64(batch.len());
            moved(batch).await;
        }
        let removed = self.sweep(db).await?;
        self.show_oldest(db).await?;
        Ok((archived, removed))
    }

    /// Archives one batch; the contents whose payload lies in the object now.
    ///
    /// # Errors
    /// Nothing was moved; the rows are free again at once, or when the lease is over.
    pub(super) async fn run_batch(&self, db: &Database) -> Result<Vec<Uuid>, ArchiveError> {
        let owner = Uuid::now_v7();
        let outcome = self.steps(db, owner).await;
        // Also of what the object had no room for, and of rows that changed meanwhile.
        let released = db.archive_release(owner).await?;
        self.observe.archive.skipped.add(released);
        outcome
    }

    async fn steps(&self, db: &Database, owner: Uuid) -> Result<Vec<Uuid>, ArchiveError> {
        let rows = db.archive_claim(owner, self.terms, ROWS).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let steps = &self.observe.archive;
        steps.leased.add(as_u64(rows.len()));
        self.reached(Step::Leased).await;

        let packed = tokio::task::spawn_blocking(move || Packed::of(&rows)).await??;
        let object = Bytes::from(packed.bytes);
        let key = self.store.put(object.clone()).await?;
        steps
            .stored
            .add(db.archive_advance(owner, "stored", self.terms).await?);
        self.reached(Step::Stored).await;

        self.verify(&key, &object).await?;
        steps
            .verified
            .add(db.archive_advance(owner, "verified", self.terms).await?);
        self.reached(Step::Verified).await;

        let moved = db.archive_commit(owner, &key, &packed.frames).await?;
        let moved = moved.unwrap_or_default();
        steps.archived.add(as_u64(moved.len()));
        steps.bytes_raw.add(packed.raw_bytes);
        steps.bytes_stored.add(as_u64(object.len()));
        self.reached(Step::Archived).await;
        let moved = moved.iter().filter_map(|id| Uuid::try_parse(id).ok());
        Ok(moved.collect())
    }

    /// Reads the object back. One that was there before under this name, and is damaged, is written over:
    /// the right bytes can only help whoever else refers to it.
    async fn verify(&self, key: &str, object: &Bytes) -> Result<(), ArchiveError> {
        if self.store.get(key).await? == object {
            return Ok(());
        }
        self.store.put_over(key, object.clone()).await?;
        if self.store.get(key).await? == object {
            return Ok(());
        }
        Err(ArchiveError::corrupt(key, "other bytes than were put"))
    }

    async fn reached(&self, step: Step) {
        if self.halt_at == Some(step) {
            step.halt().await;
        }
    }
}
