//! Where a database is, and a connection of one's own to it, outside the pools.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::lease::To;
use super::pool::{BUSY, PAGE_CACHE, STATEMENT_CACHE};

/// A SQLite file, or a PostgreSQL database.
#[derive(Clone)]
#[non_exhaustive]
pub enum Place {
    /// Made if it is missing.
    File(PathBuf),
    /// With user and password.
    Postgres(Box<PgConnectOptions>),
}

impl FromStr for Place {
    type Err = String;

    /// Reads `postgres://user:password@host:port/database`, or the path of a file.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a file, or postgres://user@host/database (got \"\")".to_owned());
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Ok(Self::File(text.into()));
        }
        // The text itself may hold a password.
        let options: PgConnectOptions = text
            .parse()
            .map_err(|error| format!("postgres://user:password@host:port/database ({error})"))?;
        Ok(Self::Postgres(Box::new(options)))
    }
}

impl fmt::Debug for Place {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                let (host, port) = (options.get_host(), options.get_port());
                write!(f, "postgres://{host}:{port}/{database}")
            }
        }
    }
}

pub(super) fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .statement_cache_capacity(STATEMENT_CACHE)
        .pragma("cache_size", PAGE_CACHE)
}

/// A connection of one's own: for migrations, demo data and plans. No deadline but the caller's.
#[derive(Debug)]
pub(crate) enum Direct {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Direct {
    /// # Errors
    /// The file or the server cannot be reached.
    pub(crate) async fn open(place: &Place) -> sqlx::Result<Self> {
        Ok(match place {
            Place::File(path) => Self::Sqlite(Box::new(sqlite(path).connect().await?)),
            Place::Postgres(options) => {
                let options = options
                    .as_ref()
                    .clone()
                    .application_name("streamgate-direct");
                Self::Postgres(Box::new(options.connect().await?))
            }
        })
    }

    /// Brings the database to the current schema. Of several processes one does it and the others wait.
    ///
    /// # Errors
    /// A migration failed, or the database is of a newer version than this program.
    pub(crate) async fn migrate(&mut self) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(conn) => sqlx::migrate!("./migrations").run(conn.as_mut()).await,
            Self::Postgres(conn) => {
                sqlx::migrate!("./migrations/postgres")
                    .run(conn.as_mut())
                    .await
            }
        }
    }

    pub(crate) fn to(&mut self) -> To<'_> {
        match self {
            Self::Sqlite(conn) => To::Sqlite(conn),
            Self::Postgres(conn) => To::Postgres(conn),
        }
    }

    /// Says goodbye, so that the server frees the place at once.
    pub(crate) async fn close(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(conn) => conn.close().await,
            Self::Postgres(conn) => conn.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_url_or_a_file_and_never_shows_its_password() {
        let place: Place = "postgres://me:secret@db.example:5433/shop".parse().unwrap();
        assert_eq!(format!("{place:?}"), "postgres://db.example:5433/shop");
        let place: Place = "/var/lib/streamgate.db".parse().unwrap();
        assert!(matches!(place, Place::File(_)));
        let refused = "postgres://me:secret@host:notaport/x"
            .parse::<Place>()
            .unwrap_err();
        assert!(!refused.contains("secret"), "{refused}");
        assert!("".parse::<Place>().is_err());
    }
}
