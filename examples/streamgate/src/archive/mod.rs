//! Cold storage: contents older than a year lie in objects, and are read from there as before.
//!
//! Owns: the steps of a batch (`run`), frames (`frame`), the object store (`cold`), the way back
//! (`restore`) and the removal of objects that nothing refers to (`sweep`). May use: `db`, the handles
//! of `observe`. Absent: HTTP, caches, SQL.
//!
//! Guide 7.2. Metrics: `streamgate_archive_rows_total{step}`, `streamgate_archive_bytes_total{stage}`,
//! `streamgate_archive_oldest_age_seconds`. Breaking test:
//! `killed_at_every_step_each_id_is_readable_with_its_hash`.
//!
//! ```text
//! active -> leased -> stored -> verified -> archived -> (restore) active
//! ```
//!
//! A payload counts where `archive_state` says: in the object for `archived`, in the row for all else. One
//! transaction changes that word, writes the manifest and empties the row, so a process that dies anywhere
//! leaves exactly one copy that counts. What lies in the store beside it is an orphan, and swept.

mod cold;
pub mod command;
mod frame;
mod restore;
mod run;
mod step;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::db::archive::Terms;
use crate::db::{Database, DbError};
use crate::observe::Observe;

pub(crate) use cold::ColdStore;
pub use step::Step;

/// The guide's year.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a batch is nobody else's; every step renews it. A thousand times what a step takes.
const LEASE: Duration = Duration::from_secs(5 * 60);

/// An archiver of one database and one store.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    store: ColdStore,
    observe: Observe,
    terms: Terms,
    halt_at: Option<Step>,
}

/// Why the archive could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("the database failed")]
    Database(#[from] DbError),
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    #[error("a frame cannot be packed or unpacked")]
    Codec(#[source] std::io::Error),
    /// The object or the frame is not what its name or its manifest says.
    #[error("{what} in the archived payload of {id}")]
    Corrupt { id: String, what: &'static str },
    /// The archiver's own thread panicked.
    #[error("a batch was not packed")]
    Panicked(#[from] tokio::task::JoinError),
}

impl ArchiveError {
    fn corrupt(id: &str, what: &'static str) -> Self {
        Self::Corrupt {
            id: id.to_owned(),
            what,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }
}

impl From<ArchiveError> for DbError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Database(error) => error,
            other => Self::Cold(Arc::new(other)),
        }
    }
}

impl Archive {
    /// `after`: the age from which on a content is taken.
    pub(crate) fn new(
        store: ColdStore,
        observe: Observe,
        after: Duration,
        halt_at: Option<Step>,
    ) -> Self {
        let terms = Terms {
            lease: LEASE,
            age: after,
        };
        Self {
            store,
            observe,
            terms,
            halt_at,
        }
    }

    /// Shows the age of the oldest content that the archiver may take; absent when there is none.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn show_oldest(&self, db: &Database) -> Result<(), ArchiveError> {
        let oldest = db.archive_oldest().await?;
        let now = db.archive_clock().await?;
        match oldest.and_then(|oldest| u64::try_from(now.saturating_sub(oldest)).ok()) {
            Some(age) => {
                let age = Duration::from_micros(age);
                self.observe.archive.oldest.set(age.as_secs_f64());
            }
            None => self.observe.archive.oldest.clear(),
        }
        Ok(())
    }
}
