//! What the archiver reads and writes: leases, manifests, payloads.
//!
//! Guide 7.2. Breaking tests: `a_content_changed_under_the_lease_keeps_its_payload`,
//! `killed_at_every_step_each_id_is_readable_with_its_hash`.

use std::time::Duration;

use futures_util::TryFutureExt as _;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::content_write::json;
use super::lease::run;
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
        run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).fetch_one(on)
        })
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
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_as(sql)
                .bind(owner.to_string())
                .bind(micros(terms.lease))
                .bind(micros(terms.age))
                .bind(i64::from(rows))
                .fetch_all(on)
        })
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
        let done = run!(self, lease.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(owner.to_string())
                .bind(state)
                .bind(micros(terms.lease))
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        Ok(done)
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
        let doomed: i64 = run!(self, transaction.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).bind(object_key).fetch_one(on)
        })?;
        if doomed != 0 {
            return Ok(None);
        }
        let statement = &self.archive.manifest_insert;
        run!(self, transaction.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(json(frames)?)
                .bind(object_key)
                .bind(owner.to_string())
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        let statement = &self.archive.payload_out;
        let moved = run!(self, transaction.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_scalar(sql)
                .bind(owner.to_string())
                .bind(object_key)
                .fetch_all(on)
        })?;
        transaction.commit().await?;
        Ok(Some(moved))
    }

    /// Gives back what the owner still holds.
    pub(crate) async fn archive_release(&self, owner: Uuid) -> Result<u64, DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.release;
        let done = run!(self, lease.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(owner.to_string())
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        Ok(done)
    }

    /// Where the payload of a content lies; `None` while it is in the table.
    pub(crate) async fn archive_place(&self, id: &str) -> Result<Option<Place>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.archive.manifest;
        run!(
            self,
            lease.conn(),
            statement,
            |row: &Option<_>| usize::from(row.is_some()),
            |sql, on| sqlx::query_as(sql).bind(id).fetch_optional(on)
        )
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
        let done = run!(self, transaction.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(id)
                .bind(body)
                .bind(metadata)
                .bind(micros(rest))
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        let statement = &self.archive.manifest_delete;
        run!(self, transaction.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(id)
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        transaction.commit().await?;
        Ok(done > 0)
    }

    /// Marks an object that no manifest refers to, so that none ever will; whether it is so.
    pub(crate) async fn archive_doom(&self, object_key: &str) -> Result<bool, DbError> {
        let mut lease = self.writer().await?;
        let mut transaction = self.begin(&mut lease).await?;
        let statement = &self.archive.object_doom;
        run!(self, transaction.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(object_key)
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        let statement = &self.archive.object_in_use;
        let in_use: bool = run!(self, transaction.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).bind(object_key).fetch_one(on)
        })?;
        if in_use {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Forgets a marked object after it was removed.
    pub(crate) async fn archive_forget(&self, object_key: &str) -> Result<(), DbError> {
        let mut lease = self.writer().await?;
        let statement = &self.archive.object_forget;
        run!(self, lease.conn(), statement, |_| 0, |sql, on| {
            sqlx::query(sql)
                .bind(object_key)
                .execute(on)
                .map_ok(|done| done.rows_affected())
        })?;
        Ok(())
    }

    /// When the oldest content came to be that the archiver may take; microseconds since 1970.
    pub(crate) async fn archive_oldest(&self) -> Result<Option<i64>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.archive.oldest;
        run!(
            self,
            lease.conn(),
            statement,
            |row: &Option<i64>| usize::from(row.is_some()),
            |sql, on| sqlx::query_scalar(sql).fetch_optional(on)
        )
    }
}
