//! Writes contents: a batch as one statement, a change and a removal under a version check.
//!
//! Guide 1.3. Metric: `streamgate_batch_rows`. Breaking test:
//! `a_batch_with_one_bad_row_writes_nothing_and_all_reasons_are_listed`. One bind holds the whole batch as JSON, so no number
//! of rows meets the limit of 32 766 binds.

use serde::Serialize;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::content::Content;
use super::idempotency::{Keep, KeyState};
use super::{Database, DbError};
use crate::faults::Fault;

/// A content about to be written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewContent {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: &'static str,
    pub(crate) kind: String,
    pub(crate) visibility: &'static str,
    pub(crate) body: String,
    pub(crate) metadata: String,
    pub(crate) created_at: i64,
}

/// The columns to change; `None` keeps one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContentPatch {
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) status: Option<&'static str>,
    pub(crate) visibility: Option<&'static str>,
    pub(crate) body: Option<String>,
    pub(crate) metadata: Option<String>,
}

/// Why a row of a batch cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RowFault {
    pub(crate) index: usize,
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

/// How a batch ended.
#[derive(Debug)]
pub(crate) enum Inserted {
    /// All rows are written.
    Done,
    /// Nothing is written.
    Refused(Vec<RowFault>),
    /// The key was used before: its stored answer, or the news that the request was another.
    Known(KeyState),
}

/// How a change or removal under a version check ended.
#[derive(Debug)]
pub(crate) enum Guarded<T> {
    Done {
        value: T,
        user_id: String,
    },
    /// The row is not there.
    Missing,
    /// The row is there in a version the caller did not expect.
    Stale,
}

impl Database {
    /// Writes all rows or none, and keeps the answer under its idempotency key in the same
    /// transaction.
    pub(crate) async fn insert_contents(
        &self,
        rows: &[NewContent],
        keep: Option<&Keep>,
    ) -> Result<Inserted, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        if let Some(keep) = keep
            && let Some(known) = self.key_state(&mut transaction, keep).await?
        {
            return Ok(Inserted::Known(known));
        }
        let mut faults = self.unknown_users(&mut transaction, rows).await?;
        faults.extend(self.taken_ids(&mut transaction, rows).await?);
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.index);
            return Ok(Inserted::Refused(faults));
        }
        let statement = &self.statements.content_insert;
        let at_once = match self.faults.is_on(Fault::SingleWrites) {
            true => 1,
            false => rows.len().max(1),
        };
        for part in rows.chunks(at_once) {
            let run = sqlx::query(statement.sql)
                .bind(json(part)?)
                .execute(&mut *transaction);
            self.timed(statement, |_| part.len(), run).await?;
        }
        if let Some(keep) = keep {
            self.keep_answer(&mut transaction, keep).await?;
        }
        commit(transaction).await?;
        Ok(Inserted::Done)
    }

    /// Changes a content if `expected` accepts its version.
    pub(crate) async fn update_content(
        &self,
        id: Uuid,
        patch: &ContentPatch,
        now_micros: i64,
        expected: impl Fn(i64) -> bool + Send,
    ) -> Result<Guarded<Content>, DbError> {
        let statement = &self.statements.content_update;
        let update = async |conn: &mut SqliteConnection| {
            let run = sqlx::query_as(statement.sql)
                .bind(id.to_string())
                .bind(&patch.title)
                .bind(&patch.description)
                .bind(patch.status)
                .bind(patch.visibility)
                .bind(&patch.body)
                .bind(&patch.metadata)
                .bind(now_micros)
                .fetch_one(conn);
            self.timed(statement, |_| 1, run).await
        };
        self.guarded(id, expected, update).await
    }

    /// Removes a content if `expected` accepts its version; its NFTs stay and point nowhere.
    pub(crate) async fn delete_content(
        &self,
        id: Uuid,
        expected: impl Fn(i64) -> bool + Send,
    ) -> Result<Guarded<()>, DbError> {
        let statement = &self.statements.content_delete;
        let delete = async |conn: &mut SqliteConnection| {
            let run = sqlx::query(statement.sql)
                .bind(id.to_string())
                .execute(conn);
            self.timed(statement, |_| 1, run).await?;
            Ok(())
        };
        self.guarded(id, expected, delete).await
    }

    /// Writes to a content if `expected` accepts its version, in the transaction that has read it.
    async fn guarded<T>(
        &self,
        id: Uuid,
        expected: impl Fn(i64) -> bool + Send,
        write: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, DbError>,
    ) -> Result<Guarded<T>, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let user_id = match self.version_of(&mut transaction, id).await? {
            None => return Ok(Guarded::Missing),
            Some((version, _)) if !expected(version) => return Ok(Guarded::Stale),
            Some((_, user_id)) => user_id,
        };
        let value = write(&mut transaction).await?;
        commit(transaction).await?;
        Ok(Guarded::Done { value, user_id })
    }

    async fn version_of(
        &self,
        conn: &mut SqliteConnection,
        id: Uuid,
    ) -> Result<Option<(i64, String)>, DbError> {
        let statement = &self.statements.content_version;
        let run = sqlx::query_as(statement.sql)
            .bind(id.to_string())
            .fetch_optional(conn);
        self.timed(statement, |row: &Option<_>| usize::from(row.is_some()), run)
            .await
    }

    /// One statement for all rows: which of their users are missing.
    async fn unknown_users(
        &self,
        conn: &mut SqliteConnection,
        rows: &[NewContent],
    ) -> Result<Vec<RowFault>, DbError> {
        let mut users: Vec<Uuid> = rows.iter().map(|row| row.user_id).collect();
        users.sort_unstable();
        users.dedup();
        let statement = &self.statements.users_missing;
        let run = sqlx::query_scalar(statement.sql)
            .bind(json(&users)?)
            .fetch_all(conn);
        let missing: Vec<String> = self.timed(statement, Vec::len, run).await?;
        Ok(faults(rows, "user_id", "names no user", |row| {
            missing.iter().any(|user| *user == row.user_id.to_string())
        }))
    }

    /// One statement for all rows: which of their ids exist already.
    async fn taken_ids(
        &self,
        conn: &mut SqliteConnection,
        rows: &[NewContent],
    ) -> Result<Vec<RowFault>, DbError> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let statement = &self.statements.content_existing;
        let run = sqlx::query_scalar(statement.sql)
            .bind(json(&ids)?)
            .fetch_all(conn);
        let taken: Vec<String> = self.timed(statement, Vec::len, run).await?;
        Ok(faults(rows, "id", "exists already", |row| {
            taken.iter().any(|id| *id == row.id.to_string())
        }))
    }
}

fn faults(
    rows: &[NewContent],
    field: &'static str,
    reason: &str,
    bad: impl Fn(&NewContent) -> bool,
) -> Vec<RowFault> {
    let bad_rows = rows.iter().enumerate().filter(|(_, row)| bad(row));
    bad_rows
        .map(|(index, _)| RowFault {
            index,
            field,
            reason: reason.to_owned(),
        })
        .collect()
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(DbError::encode)
}

/// Without a deadline: an abandoned commit may still succeed, and then nobody invalidates.
async fn commit(transaction: sqlx::Transaction<'_, sqlx::Sqlite>) -> Result<(), DbError> {
    transaction
        .commit()
        .await
        .map_err(|error| DbError::of("COMMIT", error))
}
