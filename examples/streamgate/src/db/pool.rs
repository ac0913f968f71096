//! The connection pools, with a timed wait: SQLite's writer and four readers, or PostgreSQL's one.
//!
//! Guide 1.2. Metrics: `db_client_connection_{count,max,idle_min,pending_requests}`,
//! `db_client_connection_{wait,use}_time_seconds`, `db_client_connection_timeouts_total`. Breaking
//! tests: `a_busy_writer_answers_503_and_no_connection_is_lost`, `a_pool_in_use_answers_503_and_recovers`.
//!
//! SQLite takes one writer at a time, so the second would only wait inside the driver, unseen; a
//! reader costs a thread of its own, and four keep two cores busy while one waits for the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{AssertSqlSafe, Executor as _, Pool};
use streamgate_agent as agent;

use super::archive_statements;
use super::dialect::Dialect;
use super::lease::{Lease, Pooled, To, Tx};
use super::place::{self, Direct, Place};
use super::slow::{SlowLog, SlowStatement};
use super::statements::{Statement, Statements};
use super::{DbError, server};
use crate::error::Fatal;
use crate::faults::Faults;
use crate::observe::Observe;

/// SQLite connections that only read.
const READERS: u32 = 4;

/// Longest wait for a connection: a tenth of the request deadline, so that a queue sheds early.
const ACQUIRE: Duration = Duration::from_millis(500);

/// Longest wait for SQLite's own write lock, held by another process.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection; the service has a third of that.
pub(super) const STATEMENT_CACHE: usize = 100;

/// Page cache per connection, in KiB as SQLite's negative sign means: 16 MiB.
pub(super) const PAGE_CACHE: &str = "-16384";

/// PostgreSQL connections kept open and idle, the guide's 10.
const MIN: u32 = 10;

/// How long an idle connection above [`MIN`] stays, the guide's 5 minutes.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// How old a connection becomes, the guide's 30 minutes.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Longest wait for the first connections at start.
const WARM: Duration = Duration::from_secs(30);

/// The server ends a statement itself after the deadline, and its connection stays usable; we wait this much
/// longer before we give up both.
const GRACE: Duration = Duration::from_millis(250);

/// How large the PostgreSQL pool may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolSize {
    /// Connections at most, whatever the server allows.
    pub(crate) max: u32,
    /// Services that share the server.
    pub(crate) instances: u32,
}

/// Both pools and all statements.
#[derive(Debug)]
pub(crate) struct Database {
    pools: Pools,
    pub(super) place: Place,
    pub(super) faults: Faults,
    query_deadline: Duration,
    pub(super) slow: Arc<SlowLog>,
    pub(super) statements: Statements,
    pub(super) archive: archive_statements::Statements,
}

#[derive(Debug)]
enum Pools {
    Sqlite {
        writer: Observed<sqlx::Sqlite>,
        readers: Observed<sqlx::Sqlite>,
    },
    Postgres(Observed<sqlx::Postgres>),
}

/// A pool that the agent looks at.
#[derive(Debug)]
struct Observed<D: sqlx::Database> {
    pool: Pool<D>,
    handle: agent::Pool,
}

impl<D: sqlx::Database> Observed<D> {
    fn new(observe: &Observe, name: &str, pool: Pool<D>) -> Result<Self, Fatal> {
        let handle = observe
            .watch_pool(name, pool.clone())
            .map_err(Fatal::Agent)?;
        Ok(Self { pool, handle })
    }

    async fn lease(
        &self,
        faults: &Faults,
        pooled: fn(PoolConnection<D>) -> Pooled,
    ) -> Result<Lease, DbError> {
        let wait = self.handle.wait();
        let acquire = async {
            let place = tokio::time::timeout(ACQUIRE, faults.pool_place()).await;
            let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?;
            Ok((self.pool.acquire().await?, place))
        };
        match acquire.await {
            Ok((conn, place)) => {
                let lease = Lease {
                    pooled: pooled(conn),
                    unfinished: false,
                    _in_use: wait.acquired(),
                    _place: place,
                };
                faults.hold().await;
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

impl Database {
    /// Opens pools to a database of the current schema.
    ///
    /// # Errors
    /// The file or the server cannot be reached.
    pub(crate) async fn open(
        place: &Place,
        size: PoolSize,
        query_deadline: Duration,
        observe: &Observe,
    ) -> Result<Self, Fatal> {
        let (pools, dialect, deadline) = match place {
            Place::File(path) => (
                sqlite(path, observe).await?,
                Dialect::Sqlite,
                query_deadline,
            ),
            Place::Postgres(options) => {
                let pool = postgres(options, size, query_deadline).await?;
                let pools = Pools::Postgres(Observed::new(observe, "postgresql", pool)?);
                (pools, Dialect::Postgres, query_deadline + GRACE)
            }
        };
        Ok(Self {
            pools,
            place: place.clone(),
            faults: observe.faults.clone(),
            query_deadline: deadline,
            slow: Arc::new(SlowLog::new(place.clone())),
            statements: Statements::new(dialect, |labels| observe.query(labels)),
            archive: archive_statements::Statements::new(dialect, |labels| observe.query(labels)),
        })
    }

    pub(super) async fn reader(&self) -> Result<Lease, DbError> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => readers.lease(&self.faults, Pooled::Sqlite).await,
            Pools::Postgres(pool) => pool.lease(&self.faults, Pooled::Postgres).await,
        }
    }

    pub(super) async fn writer(&self) -> Result<Lease, DbError> {
        match &self.pools {
            Pools::Sqlite { writer, .. } => writer.lease(&self.faults, Pooled::Sqlite).await,
            Pools::Postgres(pool) => pool.lease(&self.faults, Pooled::Postgres).await,
        }
    }

    pub(super) async fn begin<'a>(&self, lease: &'a mut Lease) -> Result<Tx<'a>, DbError> {
        lease.begin(self.query_deadline).await
    }

    /// Longest time until a writer is answered: what one lost statement and a full pool take.
    pub(crate) fn write_deadline(&self) -> Duration {
        ACQUIRE + self.query_deadline
    }

    /// Runs one statement under its deadline and records time, rows and outcome under its label.
    pub(super) async fn timed<T>(
        &self,
        statement: &Statement,
        unfinished: &mut bool,
        rows: impl FnOnce(&T) -> usize,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, DbError> {
        let begun = std::time::Instant::now();
        let query = statement.query.start();
        *unfinished = true;
        let outcome = match tokio::time::timeout(self.query_deadline, run).await {
            Ok(outcome) => {
                let outcome = outcome.map_err(|error| DbError::of(statement.summary, error));
                *unfinished = outcome.as_ref().is_err_and(DbError::breaks_connection);
                outcome
            }
            Err(_) => Err(DbError::QueryTimeout {
                summary: statement.summary,
            }),
        };
        match &outcome {
            Ok(value) => query.ok(u64::try_from(rows(value)).unwrap_or(u64::MAX)),
            Err(error) => query.failed(error.kind()),
        }
        self.slow.saw(statement, begun.elapsed());
        outcome
    }

    /// Statements that took over a second, the worst first.
    pub(crate) fn slow_statements(&self) -> Vec<SlowStatement> {
        self.slow.statements()
    }

    /// Closes the pools; statements under way end first.
    pub(crate) async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.pool.close().await;
                writer.pool.close().await;
            }
            Pools::Postgres(postgres) => postgres.pool.close().await,
        }
    }
}

async fn sqlite(path: &Path, observe: &Observe) -> Result<Pools, Fatal> {
    let options = place::sqlite(path);
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
    // The other way connects within the deadline of a request, which a busy machine exceeds.
    let writer =
        pool(1).connect_lazy_with(options.clone().thread_name(|_| "sg-db-write".to_owned()));
    warm(&writer, 1).await?;
    let readers = options
        .read_only(true)
        .thread_name(|_| "sg-db-read".to_owned());
    let readers = pool(READERS).connect_lazy_with(readers);
    warm(&readers, READERS).await?;
    Ok(Pools::Sqlite {
        writer: Observed::new(observe, "writer", writer)?,
        readers: Observed::new(observe, "readers", readers)?,
    })
}

async fn postgres(
    options: &PgConnectOptions,
    size: PoolSize,
    query_deadline: Duration,
) -> Result<Pool<sqlx::Postgres>, Fatal> {
    let mut direct = Direct::open(&Place::Postgres(Box::new(options.clone())))
        .await
        .map_err(unopened)?;
    let To::Postgres(conn) = direct.to() else {
        return Err(Fatal::Failed(
            "the database is none of PostgreSQL".to_owned(),
        ));
    };
    let found = server::ask(conn).await.map_err(unopened)?;
    drop(direct.close().await);
    let max = found.pool_max(size);
    tracing::info!(
        "a pool of at most {max} connections: the server allows {}, keeps {} for itself, {} instances",
        found.limit,
        found.reserved,
        size.instances
    );
    let slow_log = match found.slow_log_denied {
        None => Some(format!(
            "SET {} = {}",
            server::SLOW_LOG,
            server::SLOW_LOG_MS
        )),
        Some(why) => {
            tracing::warn!("the server logs no slow statements of ours: {why}");
            None
        }
    };
    let options = options
        .clone()
        .statement_cache_capacity(STATEMENT_CACHE)
        .application_name("streamgate")
        .options([("statement_timeout", query_deadline.as_millis().to_string())]);
    let min = MIN.min(max);
    let pool = PgPoolOptions::new()
        .min_connections(min)
        .max_connections(max)
        .idle_timeout(IDLE)
        .max_lifetime(LIFETIME)
        .acquire_timeout(ACQUIRE)
        .after_connect(move |conn, _| {
            let slow_log = slow_log.clone();
            Box::pin(async move {
                if let Some(set) = slow_log {
                    conn.execute(AssertSqlSafe(set)).await?;
                }
                Ok(())
            })
        })
        // The other way connects within the deadline of a request, which ten of them may exceed.
        .connect_lazy_with(options);
    warm(&pool, min).await?;
    Ok(pool)
}

/// Opens the connections that the pool keeps, so that the first requests need not.
async fn warm<D: sqlx::Database>(pool: &Pool<D>, min: u32) -> Result<(), Fatal> {
    let deadline = tokio::time::Instant::now() + WARM;
    let mut held = Vec::new();
    for _ in 0..min {
        // Held until all are there: the pool gives an idle one rather than open another.
        held.push(loop {
            match pool.acquire().await {
                Ok(conn) => break conn,
                Err(sqlx::Error::PoolTimedOut) if tokio::time::Instant::now() < deadline => {}
                Err(error) => return Err(unopened(error)),
            }
        });
    }
    Ok(())
}

fn unopened(source: sqlx::Error) -> Fatal {
    Fatal::Database {
        step: "opened",
        source,
    }
}
