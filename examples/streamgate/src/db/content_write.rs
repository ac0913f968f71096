//! Writes contents: a batch as one statement, a change and a removal under a version check.
//!
//! Guide 1.3. Metric: `streamgate_batch_rows`. Breaking test:
//! `a_batch_with_one_bad_row_writes_nothing_and_all_reasons_are_listed`. The binds are one JSON text on SQLite and one array
//! per column on PostgreSQL, whatever the number of rows, so none meets the limit of 32 766 or 65 535 binds.

use futures_util::TryFutureExt as _;
use serde::Serialize;
use uuid::Uuid;

use super::content::Content;
use super::idempotency::{Keep, KeyState};
use super::lease::{Conn, To, run};
use super::texts::Texts;
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
    /// The payload lies in cold storage, so that there is nothing here to change.
    Cold,
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
            && let Some(known) = self.key_state(transaction.conn(), keep).await?
        {
            return Ok(Inserted::Known(known));
        }
        let mut faults = self.unknown_users(transaction.conn(), rows).await?;
        faults.extend(self.taken_ids(transaction.conn(), rows).await?);
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.index);
            return Ok(Inserted::Refused(faults));
        }
        let at_once = match self.faults.is_on(Fault::SingleWrites) {
            true => 1,
            false => rows.len().max(1),
        };
        for part in rows.chunks(at_once) {
            self.insert_rows(transaction.conn(), part).await?;
        }
        if let Some(keep) = keep {
            self.expire_answers(transaction.conn(), keep).await?;
            if !self.keep_answer(transaction.conn(), keep).await? {
                // The first of two that began at once has committed; its answer is the answer.
                drop(transaction);
                let known = self.key_state(lease.conn(), keep).await?;
                return known.map(Inserted::Known).ok_or(DbError::Exists);
            }
        }
        transaction.commit().await?;
        Ok(Inserted::Done)
    }

    async fn insert_rows(&self, conn: Conn<'_>, rows: &[NewContent]) -> Result<(), DbError> {
        let statement = &self.statements.content_insert;
        let written = |_: &()| rows.len();
        match conn.to {
            To::Sqlite(on) => {
                let run = sqlx::query(statement.sql)
                    .bind(json(rows)?)
                    .execute(on)
                    .map_ok(drop);
                self.timed(statement, conn.unfinished, written, run).await
            }
            To::Postgres(on) => {
                let column = |value: fn(&NewContent) -> &str| -> Vec<&str> {
                    rows.iter().map(value).collect()
                };
                let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
                let users: Vec<String> = rows.iter().map(|row| row.user_id.to_string()).collect();
                let created: Vec<i64> = rows.iter().map(|row| row.created_at).collect();
                let run = sqlx::query(statement.sql)
                    .bind(ids)
                    .bind(users)
                    .bind(column(|row| &row.title))
                    .bind(column(|row| &row.description))
                    .bind(column(|row| row.status))
                    .bind(column(|row| &row.kind))
                    .bind(column(|row| row.visibility))
                    .bind(column(|row| &row.body))
                    .bind(column(|row| &row.metadata))
                    .bind(created)
                    .execute(on)
                    .map_ok(drop);
                self.timed(statement, conn.unfinished, written, run).await
            }
        }
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
        let update = async |conn: Conn<'_>| {
            run!(self, conn, statement, |_| 1, |sql, on| {
                sqlx::query_as(sql)
                    .bind(id.to_string())
                    .bind(&patch.title)
                    .bind(&patch.description)
                    .bind(patch.status)
                    .bind(patch.visibility)
                    .bind(&patch.body)
                    .bind(&patch.metadata)
                    .bind(now_micros)
                    .fetch_one(on)
            })
        };
        self.guarded(id, expected, true, update).await
    }

    /// Removes a content if `expected` accepts its version; its NFTs stay and point nowhere.
    pub(crate) async fn delete_content(
        &self,
        id: Uuid,
        expected: impl Fn(i64) -> bool + Send,
    ) -> Result<Guarded<()>, DbError> {
        let statement = &self.statements.content_delete;
        let delete = async |conn: Conn<'_>| {
            run!(self, conn, statement, |_| 1, |sql, on| {
                sqlx::query(sql)
                    .bind(id.to_string())
                    .execute(on)
                    .map_ok(drop)
            })
        };
        self.guarded(id, expected, false, delete).await
    }

    /// Writes to a content if `expected` accepts its version, in the transaction that has read it.
    async fn guarded<T>(
        &self,
        id: Uuid,
        expected: impl Fn(i64) -> bool + Send,
        needs_payload: bool,
        write: impl AsyncFnOnce(Conn<'_>) -> Result<T, DbError>,
    ) -> Result<Guarded<T>, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let user_id = match self.version_of(transaction.conn(), id).await? {
            None => return Ok(Guarded::Missing),
            Some((version, _, _)) if !expected(version) => return Ok(Guarded::Stale),
            Some((_, _, true)) if needs_payload => return Ok(Guarded::Cold),
            Some((_, user_id, _)) => user_id,
        };
        let value = write(transaction.conn()).await?;
        transaction.commit().await?;
        Ok(Guarded::Done { value, user_id })
    }

    async fn version_of(
        &self,
        conn: Conn<'_>,
        id: Uuid,
    ) -> Result<Option<(i64, String, bool)>, DbError> {
        let statement = &self.statements.content_version;
        let rows = |row: &Option<_>| usize::from(row.is_some());
        run!(self, conn, statement, rows, |sql, on| {
            sqlx::query_as(sql).bind(id.to_string()).fetch_optional(on)
        })
    }

    /// One statement for all rows: which of their users are missing.
    async fn unknown_users(
        &self,
        conn: Conn<'_>,
        rows: &[NewContent],
    ) -> Result<Vec<RowFault>, DbError> {
        let mut users: Vec<Uuid> = rows.iter().map(|row| row.user_id).collect();
        users.sort_unstable();
        users.dedup();
        let users = Texts::of(&users);
        let statement = &self.statements.users_missing;
        let missing: Vec<String> = run!(self, conn, statement, Vec::len, |sql, on| {
            sqlx::query_scalar(sql).bind(&users).fetch_all(on)
        })?;
        Ok(faults(rows, "user_id", "names no user", |row| {
            missing.iter().any(|user| *user == row.user_id.to_string())
        }))
    }

    /// One statement for all rows: which of their ids exist already.
    async fn taken_ids(
        &self,
        conn: Conn<'_>,
        rows: &[NewContent],
    ) -> Result<Vec<RowFault>, DbError> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let ids = Texts::of(&ids);
        let statement = &self.statements.content_existing;
        let taken: Vec<String> = run!(self, conn, statement, Vec::len, |sql, on| {
            sqlx::query_scalar(sql).bind(&ids).fetch_all(on)
        })?;
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

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(DbError::encode)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use streamgate_agent::Agent;

    use super::*;
    use crate::db::{Direct, Place, PoolSize};
    use crate::observe::Observe;
    use crate::seed::{ids, insert::seed};

    /// Two services on one PostgreSQL, as far as their databases go.
    async fn two_instances(place: &Place) -> [Database; 2] {
        let mut direct = Direct::open(place).await.unwrap();
        direct.migrate().await.unwrap();
        seed(&mut direct, 1, 2, 2).await.unwrap();
        let open = async || {
            let agent = Agent::builder("test").no_listener().start().unwrap();
            let observe = Observe::new(agent).unwrap();
            let size = PoolSize {
                max: 4,
                instances: 1,
            };
            let deadline = Duration::from_secs(60);
            Database::open(place, size, deadline, &observe)
                .await
                .unwrap()
        };
        [open().await, open().await]
    }

    fn row(title: &str) -> NewContent {
        NewContent {
            id: Uuid::now_v7(),
            user_id: ids::user_id(1, 0),
            title: title.to_owned(),
            description: String::new(),
            status: "draft",
            kind: "video".to_owned(),
            visibility: "public",
            body: String::new(),
            metadata: "{}".to_owned(),
            created_at: 1,
        }
    }

    #[tokio::test]
    async fn of_two_batches_with_one_key_one_writes_and_the_other_replays() {
        let Some(server) = crate::servers::postgres::for_tests().await else {
            return;
        };
        let [one, other] = two_instances(&server.url().parse().unwrap()).await;
        for round in 0..20 {
            let keep = Keep {
                key: format!("key {round}"),
                request_hash: "hash".to_owned(),
                status: 201,
                body: "answer".to_owned(),
                now_micros: 1,
            };
            let rows = [[row("one")], [row("other")]];
            let (first, second) = tokio::join!(
                one.insert_contents(&rows[0], Some(&keep)),
                other.insert_contents(&rows[1], Some(&keep))
            );
            let outcomes = [first.unwrap(), second.unwrap()];
            let written = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Inserted::Done))
                .count();
            let replayed = outcomes.iter().any(|outcome| {
                matches!(outcome, Inserted::Known(KeyState::Answered { status: 201, body }) if body == "answer")
            });
            assert!(written == 1 && replayed, "{outcomes:?}");
            let mut kept = 0;
            for [row] in &rows {
                kept += u32::from(one.content(row.id).await.unwrap().is_some());
            }
            assert_eq!(kept, 1, "the rows of the other are gone");
        }
    }

    #[tokio::test]
    async fn of_two_changes_of_one_version_one_is_stale() {
        let Some(server) = crate::servers::postgres::for_tests().await else {
            return;
        };
        let [one, other] = two_instances(&server.url().parse().unwrap()).await;
        let id = ids::content_id(1, 0);
        for version in 1..20 {
            let patch = ContentPatch {
                title: Some(format!("version {version}")),
                ..ContentPatch::default()
            };
            let expected = |seen| seen == version;
            let (first, second) = tokio::join!(
                one.update_content(id, &patch, 1, expected),
                other.update_content(id, &patch, 1, expected)
            );
            let outcomes = [first.unwrap(), second.unwrap()];
            let done = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Guarded::Done { .. }))
                .count();
            let stale = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Guarded::Stale))
                .count();
            assert_eq!((done, stale), (1, 1), "{outcomes:?}");
        }
    }
}
