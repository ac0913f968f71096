//! What can go wrong below the API, sorted by what a client may be told.

use std::sync::Arc;

/// Cloneable, because all requests that waited for one load get its error.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DbError {
    /// No connection became free in time.
    #[error("no database connection became free in time")]
    PoolTimeout,
    /// The statement ran out of its time.
    #[error("the statement {summary:?} ran out of time")]
    QueryTimeout { summary: &'static str },
    /// The database is away, ends connections, takes no writes or asks to try again.
    #[error("the statement {summary:?} found the database unavailable")]
    Unavailable {
        summary: &'static str,
        /// What it is away for, a word for the metrics.
        kind: &'static str,
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// A row that must be unique exists already.
    #[error("the row exists already")]
    Exists,
    /// A row names another that does not exist.
    #[error("the row names another that does not exist")]
    Dangling,
    /// The payload of an archived row was not read.
    #[error("cold storage failed")]
    Cold(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Everything else; the text is for the log only.
    #[error("the statement {summary:?} failed")]
    Failed {
        summary: &'static str,
        #[source]
        source: Arc<sqlx::Error>,
    },
}

impl DbError {
    pub(super) fn of(summary: &'static str, error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::PoolTimeout,
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::Exists,
            sqlx::Error::Database(inner) if inner.is_foreign_key_violation() => Self::Dangling,
            sqlx::Error::Database(inner) if inner.code().as_deref() == Some("57014") => {
                Self::QueryTimeout { summary }
            }
            _ => match unavailable(&error) {
                Some(kind) => Self::Unavailable {
                    summary,
                    kind,
                    source: Arc::new(error),
                },
                None => Self::Failed {
                    summary,
                    source: Arc::new(error),
                },
            },
        }
    }

    /// Whether the connection that said so is of no more use.
    ///
    /// One that only reads is none either: a new one may find the server that took over the writes.
    pub(super) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Unavailable { kind, .. } if *kind != "retry")
    }

    /// A value that cannot be written as JSON; no value of the service is one.
    pub(crate) fn encode(error: serde_json::Error) -> Self {
        Self::of("encode", sqlx::Error::Encode(Box::new(error)))
    }

    /// The value of the metrics' label `error_type`: few, fixed.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::PoolTimeout => "pool_timeout",
            Self::QueryTimeout { .. } => "timeout",
            Self::Unavailable { kind, .. } => kind,
            Self::Exists => "unique_violation",
            Self::Dangling => "foreign_key_violation",
            Self::Cold(_) => "cold_storage",
            Self::Failed { source, .. } => match **source {
                sqlx::Error::Database(_) => "database",
                _ => "other",
            },
        }
    }
}

/// What makes a database unavailable for now, as a word for the metrics.
///
/// PostgreSQL's codes: appendix A of its manual. SQLite's: the extended codes of its result codes page.
fn unavailable(error: &sqlx::Error) -> Option<&'static str> {
    let database = match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => return Some("io"),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => return Some("closed"),
        sqlx::Error::Database(database) => database,
        _ => return None,
    };
    let code = database.code()?;
    if database
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .is_none()
    {
        // The low byte is the kind: busy, locked, read-only, input or output failed, full.
        let kind = code.parse::<u32>().ok()? & 0xff;
        return [5, 6, 8, 10, 13].contains(&kind).then_some("io");
    }
    match &*code {
        "25006" => Some("read_only"),
        "40001" | "40P01" | "55P03" => Some("retry"),
        "25P03" | "57P05" => Some("closed"),
        // Connection exceptions, insufficient resources, operator intervention, system errors.
        code => match code.get(..2)? {
            "08" => Some("io"),
            "53" => Some("resources"),
            "57" => Some("shutdown"),
            "58" => Some("io"),
            _ => None,
        },
    }
}
