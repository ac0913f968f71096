//! Counts what waits: contents in processing, pending transactions, age of the oldest content.
//!
//! Metrics: `streamgate_content_processing`, `streamgate_transactions_pending`,
//! `streamgate_content_oldest_age_seconds`. Each number is one statement answered by an index.

use super::{Database, DbError};

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) processing: i64,
    pub(crate) pending: i64,
    /// Microseconds since 1970; `None` without contents.
    pub(crate) oldest: Option<i64>,
}

impl Database {
    /// The backlog now.
    pub(crate) async fn backlog(&self) -> Result<Backlog, DbError> {
        let mut lease = self.reader().await?;

        let statement = &self.statements.content_processing;
        let run = sqlx::query_scalar(statement.sql).fetch_one(lease.conn());
        let processing = self.timed(statement, |_| 1, run).await?;

        let statement = &self.statements.transaction_pending;
        let run = sqlx::query_scalar(statement.sql).fetch_one(lease.conn());
        let pending = self.timed(statement, |_| 1, run).await?;

        let statement = &self.statements.content_oldest;
        let run = sqlx::query_scalar(statement.sql).fetch_one(lease.conn());
        let oldest = self.timed(statement, |_| 1, run).await?;

        Ok(Backlog {
            processing,
            pending,
            oldest,
        })
    }
}
