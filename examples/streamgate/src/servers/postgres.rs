//! PostgreSQL with throw-away data: `initdb`, one server, a role of the service's own.
//!
//! Breaking test: `postgres_starts_takes_connections_and_ends`.
//!
//! The service connects as a plain role, as it should elsewhere. What takes more than that, the right to
//! set the server's own slow log, is tried and its outcome kept, because it is new in PostgreSQL 15.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::process::Command;
use tokio::time::Instant;

use super::child::{self, Child, Program};
use crate::error::Fatal;

/// Where Debian puts the programs, one directory per version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The user of Debian's package. PostgreSQL refuses to run as root.
const USER: &str = "postgres";

/// The role and database of the service.
const ROLE: &str = "streamgate";

/// From the start to the first connection; 1 s is usual, a loaded machine may take its time.
const START: Duration = Duration::from_secs(60);

/// Connections of a server as PostgreSQL ships it.
pub const CONNECTIONS: u32 = 100;

/// Pause between two attempts to start again.
const LOOK: Duration = Duration::from_millis(100);

/// Starts before the error counts: another process may take the free port meanwhile.
const ATTEMPTS: u32 = 3;

/// The directory with `initdb` and `postgres`.
#[derive(Clone, Debug)]
pub struct Installation(PathBuf);

impl Installation {
    /// The newest version that Debian's packages have installed, or what is on the `PATH`.
    #[must_use]
    pub fn find() -> Option<Self> {
        let has_both = |dir: &Path| {
            ["initdb", "postgres"]
                .iter()
                .all(|name| dir.join(name).is_file())
        };
        let versions = std::fs::read_dir(DEBIAN).into_iter().flatten();
        let newest = versions
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
                let bin = path.join("bin");
                has_both(&bin).then_some((version, bin))
            })
            .max();
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|dir| has_both(dir))
        };
        newest.map(|(_, bin)| bin).or_else(on_path).map(Self)
    }
}

/// A running server. It ends when dropped, and its data goes.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    password: String,
    /// Why the role may not set the server's slow log; `None` where it may.
    slow_log_denied: Option<String>,
}

impl Postgres {
    /// Makes an empty cluster and starts it on a free port, for this many connections.
    ///
    /// # Errors
    /// A program is missing, refuses to start or takes over a minute; its last words are in the text.
    pub async fn start(installation: &Installation, connections: u32) -> Result<Self, Fatal> {
        let mut attempt = 1;
        loop {
            match Self::start_once(installation, connections).await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn start_once(Installation(bin): &Installation, connections: u32) -> Result<Self, Fatal> {
        let dir = child::scratch("postgres")?;
        let root = rustix::process::geteuid().is_root();
        let prefix = if root {
            child::as_user(USER)
        } else {
            Vec::new()
        };
        let password = format!("{:032x}", rand::random::<u128>());
        let password_file = dir.path().join("password");
        let write = std::fs::write(&password_file, &password);
        let owned = if root {
            write.and_then(|()| own(&[dir.path(), &password_file]))
        } else {
            write
        };
        owned.map_err(|source| Fatal::File {
            path: dir.path().to_owned(),
            source,
        })?;

        let data = dir.path().join("data");
        let initdb = [
            OsString::from("--pgdata"),
            data.clone().into(),
            "--pwfile".into(),
            password_file.into(),
        ];
        let fixed = [
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ];
        let command = prefix.iter().cloned().chain([bin.join("initdb").into()]);
        run(
            command.chain(initdb).chain(fixed.map(OsString::from)),
            dir.path(),
        )
        .await?;

        let port = child::free_port()?;
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("max_connections={connections}"),
            "unix_socket_directories=".to_owned(),
            // The data does not outlive the server, so nothing has to reach the disk.
            "fsync=off".to_owned(),
            "full_page_writes=off".to_owned(),
            // The default of 128 MiB is a third of what a small machine has.
            "shared_buffers=64MB".to_owned(),
            "log_line_prefix=%m [%p] %u ".to_owned(),
        ];
        let mut arguments = vec!["-D".into(), data.into()];
        arguments.extend(
            settings
                .iter()
                .flat_map(|setting| ["-c".into(), setting.into()]),
        );
        let program = Program {
            name: "PostgreSQL",
            file: bin.join("postgres"),
            arguments,
            prefix,
            // Immediate shutdown: nobody wants the data.
            end: "QUIT",
        };
        let mut server = Self {
            child: Child::start(program, dir)?,
            port,
            password,
            slow_log_denied: None,
        };
        server.wait_until_ready().await?;
        server.slow_log_denied = server.prepare().await.map_err(|source| Fatal::Database {
            step: "prepared",
            source,
        })?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<(), Fatal> {
        let options = self.superuser();
        self.child
            .ready(START, async || {
                PgConnection::connect_with(&options).await.is_ok()
            })
            .await
    }

    /// Makes the role with a database of its own, and says why it may not set the slow log.
    async fn prepare(&self) -> sqlx::Result<Option<String>> {
        let mut conn = PgConnection::connect_with(&self.superuser()).await?;
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{}'", self.password);
        conn.execute(AssertSqlSafe(role)).await?;
        create_database(&mut conn, ROLE).await?;
        let grant = format!("GRANT SET ON PARAMETER log_min_duration_statement TO {ROLE}");
        let granted = conn.execute(AssertSqlSafe(grant)).await;
        Ok(granted.err().map(|error| error.to_string()))
    }

    /// Why the service's role may not set `log_min_duration_statement`; `None` where it may.
    #[must_use]
    pub fn slow_log_denied(&self) -> Option<&str> {
        self.slow_log_denied.as_deref()
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the service connects: `postgres://role:password@127.0.0.1:port/streamgate`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(ROLE)
    }

    /// The same for another database of this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        format!("postgres://{ROLE}:{password}@127.0.0.1:{port}/{database}")
    }

    /// How the server's own administrator connects.
    #[must_use]
    pub fn superuser(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .password(&self.password)
            .database("postgres")
    }

    /// Makes an empty database that the service's role owns.
    ///
    /// # Errors
    /// The name is taken or no plain word, or the server is gone.
    pub async fn create_database(&self, name: &str) -> sqlx::Result<()> {
        let mut conn = PgConnection::connect_with(&self.superuser()).await?;
        create_database(&mut conn, name).await
    }

    /// Ends the server as a crash does; its backends go within moments.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and data.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<(), Fatal> {
        let deadline = Instant::now() + START;
        loop {
            self.child.restart()?;
            match self.wait_until_ready().await {
                // Backends of the killed server hold its memory for a moment, and it refuses to start.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                outcome => return outcome,
            }
        }
    }

    /// Stops the server and all its backends where they are; they hold their connections and say nothing.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// One that has ended meanwhile needs no signal.
    fn signal_all(&self, signal: Signal) {
        let Some(server) = self.child.id() else {
            return;
        };
        // The server first, so that it makes no more of them.
        drop(child::signal(server, signal));
        for backend in child::children(server) {
            drop(child::signal(backend, signal));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A stopped backend outlives its server.
        self.resume();
    }
}

async fn create_database(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let create = format!("CREATE DATABASE {name} OWNER {ROLE}");
    conn.execute(AssertSqlSafe(create)).await.map(drop)
}

/// Gives the files to the server's user.
fn own(paths: &[&Path]) -> std::io::Result<()> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid: u32 = fields.next()?.parse().ok()?;
        (name == USER).then_some((uid, gid))
    });
    let (uid, gid) =
        ids.ok_or_else(|| std::io::Error::other(format!("no user {USER} in /etc/passwd")))?;
    paths
        .iter()
        .try_for_each(|path| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
}

/// Runs a program to its end.
async fn run(words: impl IntoIterator<Item = OsString>, dir: &Path) -> Result<(), Fatal> {
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_default();
    let output = Command::new(&name)
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| Fatal::File {
            path: name.into(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fatal::Failed(format!(
        "initdb failed; it said: {}",
        said.trim()
    )))
}

/// A server for one test; without PostgreSQL the test says that it is skipped.
#[cfg(test)]
pub(crate) async fn for_tests() -> Option<Postgres> {
    use std::io::Write as _;

    let Some(installation) = Installation::find() else {
        // Not by `println!`, which a passing test keeps for itself.
        writeln!(std::io::stderr(), "skipped: PostgreSQL is not installed").unwrap();
        return None;
    };
    Some(Postgres::start(&installation, CONNECTIONS).await.unwrap())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn postgres_starts_takes_connections_and_ends() {
        let Some(server) = for_tests().await else {
            return;
        };
        let mut conn = PgConnection::connect(&server.url()).await.unwrap();
        let superuser: bool =
            sqlx::query_scalar("SELECT usesuper FROM pg_user WHERE usename = current_user")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert!(!superuser);
        let wrong = server.url().replace(&server.password, "guessed");
        assert!(
            PgConnection::connect(&wrong).await.is_err(),
            "no password, no connection"
        );

        let dir = server.child.dir().to_owned();
        let address = ("127.0.0.1", server.port);
        assert!(dir.exists());
        drop(server);
        assert!(!dir.exists());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
