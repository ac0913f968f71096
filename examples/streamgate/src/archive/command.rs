//! `streamgate archive`: archives what is old enough, removes orphans, says what it did.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use streamgate_agent::Agent;

use super::{Archive, ArchiveError, ColdStore, Step};
use crate::db::{Database, DbError, Place, PoolSize};
use crate::error::Fatal;
use crate::observe::Observe;

/// Longest time of one statement: a batch is larger than what a request does.
const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// One is enough for what happens one after the other; the second is for what a step leaves open.
const CONNECTIONS: PoolSize = PoolSize {
    max: 2,
    instances: 1,
};
/// How long a database that is busy with others is asked again: its connections are waited for as long as a
/// request may, half a second, and no client waits here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of `streamgate archive`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// SQLite file of the service, which may run meanwhile, or its PostgreSQL.
    #[arg(long)]
    database: Place,
    /// Directory of the objects; without it the name of the file, or of PostgreSQL's database, with
    /// ".archive" behind it.
    #[arg(long)]
    archive_dir: Option<PathBuf>,
    /// Days after which a content is archived.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    archive_after_days: u64,
    /// Fault: halt at this step, to be killed there.
    #[arg(long, hide = true)]
    archive_crash_at: Option<Step>,
}

/// The directory that belongs to a database: beside a file, or in the working directory for PostgreSQL.
pub(crate) fn directory_of(database: &Place) -> PathBuf {
    let mut name = match database {
        Place::File(path) => path.as_os_str().to_owned(),
        Place::Postgres(options) => options.get_database().unwrap_or("streamgate").into(),
    };
    name.push(".archive");
    PathBuf::from(name)
}

/// Archives until nothing is old enough.
///
/// # Errors
/// The database or the directory cannot be opened, or does not answer.
pub async fn run(args: Args) -> Result<(), Fatal> {
    let agent = Agent::builder("streamgate-archive")
        .no_listener()
        .start()
        .map_err(Fatal::Agent)?;
    let observe = Observe::new(agent).map_err(Fatal::Agent)?;
    let started = Instant::now();
    let db = loop {
        match Database::open(&args.database, CONNECTIONS, QUERY_DEADLINE, &observe).await {
            Err(fatal) if is_busy(&fatal) && started.elapsed() < PATIENCE => {}
            opened => break opened?,
        }
    };
    let dir = args
        .archive_dir
        .unwrap_or_else(|| directory_of(&args.database));
    let archive = Archive::new(
        ColdStore::local(&dir)?,
        observe,
        Duration::from_secs(args.archive_after_days * 86_400),
        args.archive_crash_at,
    );
    let outcome = loop {
        match archive.run_all(&db, |_| std::future::ready(())).await {
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {}
            outcome => break outcome,
        }
    };
    let (archived, removed) = outcome.map_err(|error| Fatal::Failed(chain(&error)))?;
    db.close().await;
    let said = format!("archived {archived} contents, removed {removed} orphans\n");
    std::io::stdout()
        .lock()
        .write_all(said.as_bytes())
        .map_err(|source| Fatal::System {
            what: "cannot print what was done",
            source,
        })
}

/// Whether all that failed was the wait for a connection.
fn is_busy(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let driver = error.downcast_ref::<sqlx::Error>();
        let ours = error.downcast_ref::<DbError>();
        if matches!(driver, Some(sqlx::Error::PoolTimedOut))
            || matches!(ours, Some(DbError::PoolTimeout))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn chain(error: &ArchiveError) -> String {
    let mut text = format!("the archive stopped: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
