//! Answers kept under the client's key, so that a repeated batch is written once.
//!
//! A key lives 24 hours. It is looked up and kept in the transaction of the batch itself: a crash
//! keeps both or neither.

use sqlx::SqliteConnection;

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
        conn: &mut SqliteConnection,
        keep: &Keep,
    ) -> Result<Option<KeyState>, DbError> {
        let statement = &self.statements.idempotency_find;
        let run = sqlx::query_as::<_, (String, u16, String)>(statement.sql)
            .bind(&keep.key)
            .bind(keep.now_micros)
            .fetch_optional(conn);
        let row = self
            .timed(statement, |row| usize::from(row.is_some()), run)
            .await?;
        Ok(row.map(|(request_hash, status, body)| {
            if request_hash == keep.request_hash {
                KeyState::Answered { status, body }
            } else {
                KeyState::OtherRequest
            }
        }))
    }

    /// Keeps the answer and drops expired ones, so that the table holds one day.
    pub(super) async fn keep_answer(
        &self,
        conn: &mut SqliteConnection,
        keep: &Keep,
    ) -> Result<(), DbError> {
        let statement = &self.statements.idempotency_expire;
        let run = sqlx::query(statement.sql)
            .bind(keep.now_micros)
            .execute(&mut *conn);
        self.timed(statement, |_| 0, run).await?;

        let statement = &self.statements.idempotency_keep;
        let run = sqlx::query(statement.sql)
            .bind(&keep.key)
            .bind(&keep.request_hash)
            .bind(keep.status)
            .bind(&keep.body)
            .bind(keep.now_micros.saturating_add(LIFE_MICROS))
            .execute(conn);
        self.timed(statement, |_| 1, run).await.map(|_| ())
    }
}
