//! The database: pools, statements, and one file of typed access per table.
//!
//! Owns: every SQL text and every row type, for SQLite and PostgreSQL alike. May use: the handles of `observe`. Absent: HTTP,
//! caching, and text built at run time, so that each statement has one label and one plan.
//!
//! Guide 1.1 (prepared statements, no N+1) and 1.2 (pooling).

pub(crate) mod archive;
mod archive_statements;
pub(crate) mod backlog;
pub(crate) mod content;
pub(crate) mod content_write;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod idempotency;
pub(crate) mod indexes;
pub(crate) mod lease;
pub(crate) mod nft;
pub(crate) mod place;
mod plan;
pub(crate) mod pool;
mod server;
pub(crate) mod slow;
pub(crate) mod statements;
mod texts;
pub(crate) mod transactions;
pub(crate) mod users;

pub(crate) use error::DbError;
pub(crate) use place::{Direct, Place};
pub(crate) use pool::{Database, PoolSize};

/// A page's request below the HTTP layer: rows strictly after this position, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Microseconds since 1970; only statements that order by time look at it.
    pub(crate) micros: i64,
    /// Id of the last row seen.
    pub(crate) id: uuid::Uuid,
}

impl Position {
    /// Before every row.
    pub(crate) const START: Self = Self {
        micros: i64::MAX,
        id: uuid::Uuid::max(),
    };
}
