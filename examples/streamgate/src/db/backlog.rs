//! Counts what waits: contents in processing, pending transactions, age of the oldest content.
//!
//! Metrics: `streamgate_content_processing`, `streamgate_transactions_pending`,
//! `streamgate_content_oldest_age_seconds`. Each number is one statement answered by an index.

use super::lease::run;
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
    /// Scans of each named index since the server's statistics began; empty on SQLite, which counts none.
    pub(crate) async fn index_scans(&self) -> Result<Vec<(String, i64)>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.index_scans;
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_as(sql).fetch_all(on)
        })
    }

    /// The backlog now.
    pub(crate) async fn backlog(&self) -> Result<Backlog, DbError> {
        let mut lease = self.reader().await?;

        let statement = &self.statements.content_processing;
        let processing = run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).fetch_one(on)
        })?;

        let statement = &self.statements.transaction_pending;
        let pending = run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).fetch_one(on)
        })?;

        let statement = &self.statements.content_oldest;
        let oldest = run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).fetch_one(on)
        })?;

        Ok(Backlog {
            processing,
            pending,
            oldest,
        })
    }
}
