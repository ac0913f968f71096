//! `streamgate archive`: archives what is old enough, removes orphans, says what it did.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use streamgate_agent::Agent;

use super::{Archive, ArchiveError, ColdStore, Step};
use crate::db::Database;
use crate::error::Fatal;
use crate::observe::Observe;

/// Longest time of one statement: a batch is larger than what a request does.
const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// The options of `streamgate archive`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// SQLite file of the service, which may run meanwhile.
    #[arg(long)]
    database: PathBuf,
    /// Directory of the objects; without it the database's name with ".archive" behind it.
    #[arg(long)]
    archive_dir: Option<PathBuf>,
    /// Days after which a content is archived.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    archive_after_days: u64,
    /// Fault: halt at this step, to be killed there.
    #[arg(long, hide = true)]
    archive_crash_at: Option<Step>,
}

/// The directory that belongs to a database.
pub(crate) fn directory_beside(database: &std::path::Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
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
    let db = Database::open(&args.database, QUERY_DEADLINE, &observe).await?;
    let dir = args
        .archive_dir
        .unwrap_or_else(|| directory_beside(&args.database));
    let archive = Archive::new(
        ColdStore::local(&dir)?,
        observe,
        Duration::from_secs(args.archive_after_days * 86_400),
        args.archive_crash_at,
    );
    let (archived, removed) = archive
        .run_all(&db, |_| std::future::ready(()))
        .await
        .map_err(|error| Fatal::Failed(chain(&error)))?;
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

fn chain(error: &ArchiveError) -> String {
    let mut text = format!("the archive stopped: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
