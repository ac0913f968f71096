//! The real servers beside the demo's service, with throw-away data.
//!
//! Breaking tests: `postgres_and_redis_come_and_go_with_the_demo`.

use std::path::PathBuf;

use super::screen::Screen;
use crate::db::place::Place;
use crate::error::Fatal;
use crate::servers::postgres::{CONNECTIONS, Installation, Postgres};
use crate::servers::redis::{self, Redis};

/// A server that the demo can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum With {
    /// Instead of SQLite.
    Postgres,
    /// As level L2 of the caches.
    Redis,
}

/// What was started; it ends when dropped.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// With the directory of archived payloads, which would lie beside a file.
    postgres: Option<(Postgres, tempfile::TempDir)>,
    redis: Option<Redis>,
}

impl Beside {
    /// Starts what is wanted.
    ///
    /// # Errors
    /// A server is not installed or does not start.
    pub(super) async fn start(with: &[With], screen: &mut Screen) -> Result<Self, Fatal> {
        let mut beside = Self::default();
        if with.contains(&With::Postgres) {
            let archive = tempfile::tempdir().map_err(|source| Fatal::File {
                path: std::env::temp_dir(),
                source,
            })?;
            beside.postgres = Some((start_postgres(screen).await?, archive));
        }
        if with.contains(&With::Redis) {
            let installation = redis::Installation::find().ok_or_else(|| {
                Fatal::Failed("--with redis needs Redis: apt-get install redis-server".to_owned())
            })?;
            let server = Redis::start(&installation).await?;
            screen.line(&format!("Redis listens on {}.", server.address()));
            beside.redis = Some(server);
        }
        Ok(beside)
    }

    /// Where the service keeps its data; `None` for a file of its own.
    ///
    /// # Errors
    /// The server's own address is not understood.
    pub(super) fn database(&self) -> Result<Option<Place>, Fatal> {
        let server = self.postgres.as_ref();
        let place = server.map(|(server, _)| server.url().parse().map_err(Fatal::Failed));
        place.transpose()
    }

    /// Where archived payloads go; `None` beside the service's own file.
    pub(super) fn archive_dir(&self) -> Option<PathBuf> {
        let (_, dir) = self.postgres.as_ref()?;
        Some(dir.path().to_owned())
    }

    /// Redis, if there is one.
    pub(super) fn redis(&self) -> Option<String> {
        self.redis.as_ref().map(Redis::url)
    }
}

async fn start_postgres(screen: &mut Screen) -> Result<Postgres, Fatal> {
    let installation = Installation::find().ok_or_else(|| {
        Fatal::Failed("--with postgres needs PostgreSQL: apt-get install postgresql".to_owned())
    })?;
    screen.line("Starting PostgreSQL ...");
    let server = Postgres::start(&installation, CONNECTIONS).await?;
    let slow_log = match server.slow_log_denied() {
        None => "it logs slow statements itself".to_owned(),
        Some(why) => format!("its own log of slow statements is not ours to set: {why}"),
    };
    screen.line(&format!(
        "PostgreSQL listens on port {}; {slow_log}.",
        server.port()
    ));
    Ok(server)
}
