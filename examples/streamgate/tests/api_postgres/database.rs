//! One PostgreSQL server for all tests, and a database of its own for each service.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use streamgate::servers::postgres::{Installation, Postgres};
use streamgate::settings::Place;
use tokio::sync::OnceCell;

/// The pool that reads.
pub(crate) const READERS: &str = "postgresql";

/// The pool that writes.
pub(crate) const WRITER: &str = "postgresql";

/// Tests run in parallel, each with ten connections or more.
const CONNECTIONS: u32 = 400;

static SERVER: OnceCell<Option<Postgres>> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Where the next service keeps its rows; `None`, a file of its own, where there is no PostgreSQL.
pub(crate) async fn fresh() -> Option<Place> {
    let server = SERVER.get_or_init(start).await.as_ref()?;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap();
    Some(server.url_of(&name).parse().unwrap())
}

/// A server that a test may stop and kill.
pub(crate) async fn start() -> Option<Postgres> {
    let Some(installation) = Installation::find() else {
        // Not by `println!`, which a passing test keeps for itself.
        let said = std::io::stderr().write_all(b"skipped: PostgreSQL is not installed\n");
        said.unwrap();
        return None;
    };
    Some(Postgres::start(&installation, CONNECTIONS).await.unwrap())
}
