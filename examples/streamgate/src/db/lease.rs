//! A connection on loan, whichever database it leads to, and the way every statement runs on one.
//!
//! Breaking tests: `a_thousand_aborted_requests_leak_no_connection`, `a_stopped_server_is_503_until_it_goes_on`.
//!
//! The body of a statement's function is written once; [`run!`] expands it for each database. A statement
//! that is given up halfway leaves an answer on the wire that the next one would take for its own: such a
//! connection to a server is closed and never lent again.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Postgres, Sqlite, Transaction};
use streamgate_agent::PoolUse;
use tokio::sync::OwnedSemaphorePermit;

use super::DbError;

/// Longest time that a connection given back may take to say that it is well.
const RETURN: Duration = Duration::from_secs(2);

/// Given back when dropped; the time it is held counts until then.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) pooled: Pooled,
    pub(super) unfinished: bool,
    pub(super) _in_use: PoolUse,
    /// One of the few that the fault `pool_max` leaves.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum Pooled {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// A connection borrowed for one statement.
#[derive(Debug)]
pub(super) struct Conn<'a> {
    pub(super) to: To<'a>,
    /// Set while the driver has not heard the end of a statement.
    pub(super) unfinished: &'a mut bool,
}

/// The drivers' own connections.
#[derive(Debug)]
pub(crate) enum To<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// A transaction; dropped, it is rolled back.
#[derive(Debug)]
pub(super) struct Tx<'a> {
    inner: Begun<'a>,
    unfinished: &'a mut bool,
}

#[derive(Debug)]
enum Begun<'a> {
    Sqlite(Transaction<'a, Sqlite>),
    Postgres(Transaction<'a, Postgres>),
}

/// Expands a body for the driver's connection that stands behind a [`To`].
macro_rules! on {
    ($to:expr, |$on:ident| $body:expr) => {
        match $to {
            $crate::db::lease::To::Sqlite($on) => $body,
            $crate::db::lease::To::Postgres($on) => $body,
        }
    };
}
pub(crate) use on;

/// Runs one statement on a [`Conn`] under its deadline and its label.
///
/// The body is expanded once per database: `sql` is the text, `on` the driver's connection, and the value
/// must be of one type for both.
macro_rules! run {
    ($db:expr, $conn:expr, $statement:expr, $rows:expr, |$sql:ident, $on:ident| $run:expr) => {{
        let conn: $crate::db::lease::Conn<'_> = $conn;
        let statement: &$crate::db::statements::Statement = $statement;
        let $sql = statement.sql;
        $crate::db::lease::on!(conn.to, |$on| {
            $db.timed(statement, conn.unfinished, $rows, $run).await
        })
    }};
}
pub(super) use run;

impl Lease {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        let to = match &mut self.pooled {
            Pooled::Sqlite(conn) => To::Sqlite(conn),
            Pooled::Postgres(conn) => To::Postgres(conn),
        };
        Conn {
            to,
            unfinished: &mut self.unfinished,
        }
    }

    /// Starts a transaction. SQLite's holds the write lock from the start, so that it cannot fail halfway
    /// because another process took the lock meanwhile.
    pub(super) async fn begin(&mut self, within: Duration) -> Result<Tx<'_>, DbError> {
        self.unfinished = true;
        let pooled = &mut self.pooled;
        let begin = async {
            Ok(match pooled {
                Pooled::Sqlite(conn) => Begun::Sqlite(conn.begin_with("BEGIN IMMEDIATE").await?),
                Pooled::Postgres(conn) => Begun::Postgres(conn.begin().await?),
            })
        };
        let inner = match tokio::time::timeout(within, begin).await {
            Ok(begun) => begun.map_err(|error| DbError::of("BEGIN", error))?,
            Err(_) => return Err(DbError::QueryTimeout { summary: "BEGIN" }),
        };
        self.unfinished = false;
        Ok(Tx {
            inner,
            unfinished: &mut self.unfinished,
        })
    }
}

impl Tx<'_> {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        let to = match &mut self.inner {
            Begun::Sqlite(transaction) => To::Sqlite(transaction),
            Begun::Postgres(transaction) => To::Postgres(transaction),
        };
        Conn {
            to,
            unfinished: self.unfinished,
        }
    }

    /// Without a deadline: an abandoned commit may still succeed, and then nobody invalidates.
    pub(super) async fn commit(self) -> Result<(), DbError> {
        *self.unfinished = true;
        let committed = match self.inner {
            Begun::Sqlite(transaction) => transaction.commit().await,
            Begun::Postgres(transaction) => transaction.commit().await,
        };
        committed.map_err(|error| DbError::of("COMMIT", error))?;
        *self.unfinished = false;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // SQLite's driver finishes what was given up by itself, in the connection's thread.
        let Pooled::Postgres(conn) = &mut self.pooled else {
            return;
        };
        if self.unfinished {
            conn.close_on_drop();
            return;
        }
        // The driver asks whether the other side is still there, without a deadline: a server that is cut
        // off would keep the place in the pool for a quarter of an hour.
        let back = conn.return_to_pool();
        tokio::spawn(async move { drop(tokio::time::timeout(RETURN, back).await) });
    }
}
