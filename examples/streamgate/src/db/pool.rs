//! The connection pools: one writer, four readers, each with a timed wait.
//!
//! Guide 1.2. Metrics: `db_client_connection_{count,max,pending_requests}`,
//! `db_client_connection_{wait,use}_time_seconds`, `db_client_connection_timeouts_total`. Breaking
//! test: `a_busy_writer_answers_503_and_no_connection_is_lost`.
//!
//! SQLite takes one writer at a time, so the second would only wait inside the driver, unseen; a
//! reader costs a thread of its own, and four keep two cores busy while one waits for the disk.

use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, Transaction};
use streamgate_agent as agent;
use tokio::sync::OwnedSemaphorePermit;

use super::DbError;
use super::statements::{Statement, Statements};
use crate::error::Fatal;
use crate::faults::Faults;
use crate::observe::Observe;

/// Connections that only read.
const READERS: u32 = 4;

/// Longest wait for a connection: a tenth of the request deadline, so that a queue sheds early.
const ACQUIRE: Duration = Duration::from_millis(500);

/// Longest wait for SQLite's own write lock, held by another process.
const BUSY: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection; the service has a third of that.
const STATEMENT_CACHE: usize = 100;

/// Page cache per connection, in KiB as SQLite's negative sign means: 16 MiB.
const PAGE_CACHE: &str = "-16384";

/// Both pools and all statements.
#[derive(Debug)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    observe_writer: agent::Pool,
    observe_readers: agent::Pool,
    pub(super) faults: Faults,
    query_deadline: Duration,
    pub(super) statements: Statements,
}

/// A connection on loan; the time it is held counts until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    conn: PoolConnection<Sqlite>,
    _in_use: agent::PoolUse,
    /// One of the few that the fault `pool_max` leaves.
    _place: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }
}

impl Database {
    /// Opens the file, creating it if it is missing, and brings it to the current schema.
    ///
    /// # Errors
    /// The file cannot be opened, or a migration failed.
    pub(crate) async fn open(
        path: &Path,
        query_deadline: Duration,
        observe: &Observe,
    ) -> Result<Self, Fatal> {
        let failed = |source| Fatal::Database {
            step: "opened",
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .statement_cache_capacity(STATEMENT_CACHE)
            .pragma("cache_size", PAGE_CACHE);
        let pool = |size: u32| {
            SqlitePoolOptions::new()
                .min_connections(size)
                .max_connections(size)
                .acquire_timeout(ACQUIRE)
                // A local file needs no question whether the other side is still there.
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1)
            .connect_with(options.clone().thread_name(|_| "sg-db-write".to_owned()))
            .await
            .map_err(failed)?;
        let migrated = sqlx::migrate!("./migrations").run(&writer).await;
        migrated.map_err(|error| Fatal::Database {
            step: "migrated",
            source: error.into(),
        })?;
        let readers = pool(READERS)
            .connect_with(
                options
                    .read_only(true)
                    .thread_name(|_| "sg-db-read".to_owned()),
            )
            .await
            .map_err(failed)?;
        observe
            .watch_pool(&observe.writer, writer.clone(), 1)
            .map_err(Fatal::Agent)?;
        observe
            .watch_pool(&observe.readers, readers.clone(), READERS)
            .map_err(Fatal::Agent)?;
        Ok(Self {
            writer,
            readers,
            observe_writer: observe.writer.clone(),
            observe_readers: observe.readers.clone(),
            faults: observe.faults.clone(),
            query_deadline,
            statements: Statements::new(|labels| observe.query(labels)),
        })
    }

    pub(super) async fn reader(&self) -> Result<Lease, DbError> {
        self.lease(&self.readers, &self.observe_readers).await
    }

    pub(super) async fn writer(&self) -> Result<Lease, DbError> {
        self.lease(&self.writer, &self.observe_writer).await
    }

    /// Starts a transaction that holds the write lock from the start, so that it cannot fail halfway
    /// because another process took the lock meanwhile.
    pub(super) async fn begin<'a>(
        &self,
        lease: &'a mut Lease,
    ) -> Result<Transaction<'a, Sqlite>, DbError> {
        let begin = lease.conn.begin_with("BEGIN IMMEDIATE");
        match tokio::time::timeout(self.query_deadline, begin).await {
            Ok(begun) => begun.map_err(|error| DbError::of("BEGIN", error)),
            Err(_) => Err(DbError::QueryTimeout { summary: "BEGIN" }),
        }
    }

    /// Runs one statement under its deadline and records time, rows and outcome under its label.
    pub(super) async fn timed<T>(
        &self,
        statement: &Statement,
        rows: impl FnOnce(&T) -> usize,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, DbError> {
        let query = statement.query.start();
        let outcome = match tokio::time::timeout(self.query_deadline, run).await {
            Ok(outcome) => outcome.map_err(|error| DbError::of(statement.summary, error)),
            Err(_) => Err(DbError::QueryTimeout {
                summary: statement.summary,
            }),
        };
        match &outcome {
            Ok(value) => query.ok(u64::try_from(rows(value)).unwrap_or(u64::MAX)),
            Err(error) => query.failed(error.kind()),
        }
        outcome
    }

    /// A direct connection for work outside the API's statements: seeding, plans in tests.
    ///
    /// # Errors
    /// No connection became free in time.
    pub(crate) async fn direct(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        self.writer.acquire().await
    }

    /// Closes both pools; statements under way end first.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn lease(&self, pool: &SqlitePool, observe: &agent::Pool) -> Result<Lease, DbError> {
        let wait = observe.wait();
        let acquire = async {
            let place = tokio::time::timeout(ACQUIRE, self.faults.pool_place()).await;
            let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?;
            Ok((pool.acquire().await?, place))
        };
        match acquire.await {
            Ok((conn, place)) => {
                let lease = Lease {
                    conn,
                    _in_use: wait.acquired(),
                    _place: place,
                };
                self.faults.hold().await;
                Ok(lease)
            }
            Err(sqlx::Error::PoolTimedOut) => {
                wait.timed_out();
                Err(DbError::PoolTimeout)
            }
            Err(error) => Err(DbError::of("acquire", error)),
        }
    }
}
