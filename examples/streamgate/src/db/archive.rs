//! What the archiver reads and writes: leases, manifests, payloads.
//!
//! Guide 7.2. Breaking tests: `a_content_changed_under_the_lease_keeps_its_payload`,
//! `killed_at_every_step_each_id_is_readable_with_its_hash`.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::content_write::{commit, json};
use super::{Database, DbError};

/// A row under a lease, with the payload that is about to move.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Leased {
    pub(crate) id: String,
    pub(crate) version: i64,
    pub(crate) body: String,
    pub(crate) metadata: String,
}

/// One frame of an object and the row version that it holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Frame {
    pub(crate) id: String,
    pub(crate) version: i64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) sha256: String,
}

/// Where an archived payload lies.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Place {
    pub(crate) object_key: String,
    pub(crate) offset: i64,
    pub(crate) length: i64,
    /// Of the payload before compression, hexadecimal.
    pub(crate) sha256: String,
}

/// How long leases last, and from which age on a content is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    pub(crate) age: Duration,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Database {
    /// Microseconds since 1970 by the database's clock, to the second.
    pub(crate) async fn archive_clock(&self) -> Result<i64, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.archive.clock;
        let run = sqlx::query_scalar(statement.sql).fetch_one(lease.conn());
        self.timed(statement, |_| 1, run).await
    }

    /// Leases up to `rows` of the oldest contents to `owner`.
    pub(crate) async fn archive_claim(
        &self,
        owner: Uuid,
        terms: Terms,
        rows: u32,
    ) -> Result<Vec<Leased>, DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.claim;
        let run = sqlx::query_as(statement.sql)
            .bind(owner.to_string())
            .bind(micros(terms.lease))
            .bind(micros(terms.age))
            .bind(rows)
            .fetch_all(lease.conn());
        self.timed(statement, Vec::len, run).await
    }

    /// Writes the step that the owner's rows have come to, and renews their lease; how many they are.
    pub(crate) async fn archive_advance(
        &self,
        owner: Uuid,
        state: &'static str,
        terms: Terms,
    ) -> Result<u64, DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.advance;
        let run = sqlx::query(statement.sql)
            .bind(owner.to_string())
            .bind(state)
            .bind(micros(terms.lease))
            .execute(lease.conn());
        let done = self.timed(statement, |_| 0, run).await?;
        Ok(done.rows_affected())
    }

    /// Moves the rows that are still the owner's and still in their version from the table to the
    /// object, in one transaction; their ids. `None`: the object is about to be removed, nothing moved.
    pub(crate) async fn archive_commit(
        &self,
        owner: Uuid,
        object_key: &str,
        frames: &[Frame],
    ) -> Result<Option<Vec<String>>, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let statement = &self.archive.object_keep;
        let run = sqlx::query_scalar(statement.sql)
            .bind(object_key)
            .fetch_one(&mut *transaction);
        let doomed: i64 = self.timed(statement, |_| 1, run).await?;
        if doomed != 0 {
            return Ok(None);
        }
        let statement = &self.archive.manifest_insert;
        let run = sqlx::query(statement.sql)
            .bind(json(frames)?)
            .bind(object_key)
            .bind(owner.to_string())
            .execute(&mut *transaction);
        self.timed(statement, |_| 0, run).await?;
        let statement = &self.archive.payload_out;
        let run = sqlx::query_scalar(statement.sql)
            .bind(owner.to_string())
            .bind(object_key)
            .fetch_all(&mut *transaction);
        let moved = self.timed(statement, Vec::len, run).await?;
        commit(transaction).await?;
        Ok(Some(moved))
    }

    /// Gives back what the owner still holds.
    pub(crate) async fn archive_release(&self, owner: Uuid) -> Result<u64, DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.release;
        let run = sqlx::query(statement.sql)
            .bind(owner.to_string())
            .execute(lease.conn());
        let done = self.timed(statement, |_| 0, run).await?;
        Ok(done.rows_affected())
    }

    /// Where the payload of a content lies; `None` while it is in the table.
    pub(crate) async fn archive_place(&self, id: &str) -> Result<Option<Place>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.archive.manifest;
        let run = sqlx::query_as(statement.sql)
            .bind(id)
            .fetch_optional(lease.conn());
        self.timed(statement, |row: &Option<_>| usize::from(row.is_some()), run)
            .await
    }

    /// Puts a payload back into the table and keeps the archiver away from it for `rest`; whether it
    /// was archived.
    pub(crate) async fn archive_restore(
        &self,
        id: &str,
        body: &str,
        metadata: &str,
        rest: Duration,
    ) -> Result<bool, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let statement = &self.archive.payload_in;
        let run = sqlx::query(statement.sql)
            .bind(id)
            .bind(body)
            .bind(metadata)
            .bind(micros(rest))
            .execute(&mut *transaction);
        let done = self.timed(statement, |_| 0, run).await?;
        let statement = &self.archive.manifest_delete;
        let run = sqlx::query(statement.sql)
            .bind(id)
            .execute(&mut *transaction);
        self.timed(statement, |_| 0, run).await?;
        commit(transaction).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Marks an object that no manifest refers to, so that none ever will; whether it is so.
    pub(crate) async fn archive_doom(&self, object_key: &str) -> Result<bool, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let statement = &self.archive.object_doom;
        let run = sqlx::query(statement.sql)
            .bind(object_key)
            .execute(&mut *transaction);
        self.timed(statement, |_| 0, run).await?;
        let statement = &self.archive.object_in_use;
        let run = sqlx::query_scalar(statement.sql)
            .bind(object_key)
            .fetch_one(&mut *transaction);
        let in_use: bool = self.timed(statement, |_| 1, run).await?;
        if in_use {
            return Ok(false);
        }
        commit(transaction).await?;
        Ok(true)
    }

    /// Forgets a marked object after it was removed.
    pub(crate) async fn archive_forget(&self, object_key: &str) -> Result<(), DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.object_forget;
        let run = sqlx::query(statement.sql)
            .bind(object_key)
            .execute(lease.conn());
        self.timed(statement, |_| 0, run).await?;
        Ok(())
    }

    /// When the oldest content came to be that the archiver may take; microseconds since 1970.
    pub(crate) async fn archive_oldest(&self) -> Result<Option<i64>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.archive.oldest;
        let run = sqlx::query_scalar(statement.sql).fetch_optional(lease.conn());
        self.timed(
            statement,
            |row: &Option<i64>| usize::from(row.is_some()),
            run,
        )
        .await
    }
}
