//! Redis with nothing to keep: one server on a free port.
//!
//! Breaking tests: those of `tests/api/redis.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::child::{self, Child, Program};
use crate::error::Fatal;

/// From the start to the first answer; 50 ms is usual, a loaded machine may take its time.
const START: Duration = Duration::from_secs(60);

/// The program.
#[derive(Clone, Debug)]
pub struct Installation(PathBuf);

impl Installation {
    /// `redis-server` on the `PATH`.
    #[must_use]
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let files = std::env::split_paths(&path).map(|dir| dir.join("redis-server"));
        files.into_iter().find(|file| file.is_file()).map(Self)
    }
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts a server on a free port, with 64 MiB and the policy a cache wants.
    ///
    /// # Errors
    /// It is no such program, or takes over a minute; its last words are in the text.
    pub async fn start(installation: &Installation) -> Result<Self, Fatal> {
        child::started(async || Self::start_once(installation).await).await
    }

    async fn start_once(Installation(file): &Installation) -> Result<Self, Fatal> {
        let dir = child::scratch("redis")?;
        let port = child::free_port()?;
        let number = port.to_string();
        let arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            &number,
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory",
            "64mb",
            "--maxmemory-policy",
            "allkeys-lru",
        ];
        let program = Program {
            name: "redis-server",
            file: file.clone(),
            arguments: arguments.map(Into::into).to_vec(),
            prefix: Vec::new(),
            end: "TERM",
        };
        let child = Child::start(program, dir)?;
        let mut redis = Self { child, port };
        redis.ready().await?;
        Ok(redis)
    }

    /// `redis://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its process id; `None` after [`kill`](Self::kill).
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once; all that it held is gone.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<(), Fatal> {
        self.child.restart()?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), Fatal> {
        let url = self.url();
        self.child
            .ready(START, async || answers(&url).await.is_ok())
            .await
    }
}

async fn answers(url: &str) -> redis::RedisResult<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}

/// A server for one test; without Redis the test says that it is skipped.
#[cfg(test)]
pub(crate) async fn for_tests() -> Option<Redis> {
    use std::io::Write as _;

    let Some(installation) = Installation::find() else {
        // Not by `println!`, which a passing test keeps for itself.
        writeln!(std::io::stderr(), "skipped: redis-server is not installed").unwrap();
        return None;
    };
    Some(Redis::start(&installation).await.unwrap())
}
