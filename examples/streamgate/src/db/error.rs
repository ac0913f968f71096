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
            _ => Self::Failed {
                summary,
                source: Arc::new(error),
            },
        }
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
            Self::Exists => "unique_violation",
            Self::Dangling => "foreign_key_violation",
            Self::Cold(_) => "cold_storage",
            Self::Failed { source, .. } => match **source {
                sqlx::Error::Database(_) => "database",
                sqlx::Error::Io(_) => "io",
                _ => "other",
            },
        }
    }
}
