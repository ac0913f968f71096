//! Reading from cold storage, and the way back.

use std::time::Duration;

use super::frame::{Payload, unpack};
use super::{Archive, ArchiveError};
use crate::db::Database;
use crate::db::content::Content;

/// How long a restored content stays where it is, however old it is: whoever changes a content once will
/// change it again.
const REST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Archive {
    /// Completes a row whose payload lies in an object; `false` when it was restored or removed since the
    /// row was read, so that the row has to be read again.
    ///
    /// # Errors
    /// The store or the database does not answer, or the frame is not the one that was archived.
    pub(crate) async fn fill(
        &self,
        db: &Database,
        content: &mut Content,
    ) -> Result<bool, ArchiveError> {
        let Some(payload) = self.payload(db, &content.id).await? else {
            return Ok(false);
        };
        content.body = payload.body;
        content.metadata = payload.metadata;
        Ok(true)
    }

    /// Puts a payload back into its row; `false` when it is not archived.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub(crate) async fn restore(&self, db: &Database, id: &str) -> Result<bool, ArchiveError> {
        let Some(payload) = self.payload(db, id).await? else {
            return Ok(false);
        };
        let metadata = payload.metadata.get();
        let restored = db
            .archive_restore(id, &payload.body, metadata, REST)
            .await?;
        self.observe.archive.restored.add(u64::from(restored));
        Ok(restored)
    }

    async fn payload(&self, db: &Database, id: &str) -> Result<Option<Payload>, ArchiveError> {
        let Some(place) = db.archive_place(id).await? else {
            return Ok(None);
        };
        let read = async { unpack(id, &self.store.frame(&place).await?, &place.sha256) };
        match read.await {
            // Restored since, and its object swept: a day lies between, so this is no race but rare.
            Err(error) if error.is_gone() && db.archive_place(id).await?.is_none() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}
