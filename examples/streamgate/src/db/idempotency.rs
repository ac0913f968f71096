//! Answers kept under the client's key, so that a repeated batch is written once.
//!
//! A key lives 24 hours. It is looked up and kept in the transaction of the batch itself: a crash
//! keeps both or neither.

use futures_util::TryFutureExt as _;

use super::lease::{Conn, run};
use super::{Database, DbError};

/// How long an answer is replayed.
const LIFE_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// A key, the request it stands for and the answer to keep when the batch succeeds.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    pub(crate) key: String,
    pub(crate) request_hash: String,
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) now_micros: i64,
}

/// What is known of a used key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// The same request was answered with this.
    Answered { status: u16, body: String },
    /// Another request used the key.
    OtherRequest,
}

impl Database {
    pub(super) async fn key_state(
        &self,
        conn: Conn<'_>,
        keep: &Keep,
    ) -> Result<Option<KeyState>, DbError> {
        let statement = &self.statements.idempotency_find;
        let rows = |row: &Option<_>| usize::from(row.is_some());
        let row: Option<(String, i64, String)> = run!(self, conn, statement, rows, |sql, on| {
            sqlx::query_as(sql)
                .bind(&keep.key)
                .bind(keep.now_micros)
                .fetch_optional(on)
        })?;
        Ok(row.map(|(request_hash, status, body)| {
            if request_hash == keep.request_hash {
                let status = u16::try_from(status).unwrap_or(0);
                KeyState::Answered { status, body }
            } else {
                KeyState::OtherRequest
            }
        }))
    }

    /// Drops expired answers, so that the table holds one day.
    pub(super) async fn expire_answers(&self, conn: Conn<'_>, keep: &Keep) -> Result<(), DbError> {
        let statement = &self.statements.idempotency_expire;
        run!(self, conn, statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(keep.now_micros)
                .execute(on)
                .map_ok(drop)
        })
    }

    /// Keeps the answer; false if another transaction has kept one meanwhile, as only PostgreSQL lets it.
    pub(super) async fn keep_answer(&self, conn: Conn<'_>, keep: &Keep) -> Result<bool, DbError> {
        let statement = &self.statements.idempotency_keep;
        let written = run!(self, conn, statement, |_| 1, |sql, on| {
            sqlx::query(sql)
                .bind(&keep.key)
                .bind(&keep.request_hash)
                .bind(i64::from(keep.status))
                .bind(&keep.body)
                .bind(keep.now_micros.saturating_add(LIFE_MICROS))
                .bind(keep.now_micros)
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        Ok(written > 0)
    }
}
