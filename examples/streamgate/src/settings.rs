//! Every value the service can be started with: default, unit, range.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fatal;

/// Bytes of a key that signs cursors: as many as the hash gives, RFC 2104 section 3.
pub const CURSOR_KEY_BYTES: usize = 32;

/// What the service starts with. [`Settings::default`] is a throw-away instance with demo data.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the public API; port 0 takes a free one.
    pub public: SocketAddr,
    /// Address of the agent's endpoints; port 0 takes a free one.
    pub agent: SocketAddr,
    /// SQLite file; `None` makes one in a temporary directory that is removed at the end.
    pub database: Option<PathBuf>,
    /// Users of the demo data, 1..=1 000 000. An already seeded database is left as it is.
    pub users: u32,
    /// Rows each of content, NFT and transaction, 0..=10 000 000.
    pub contents: u32,
    /// Seed of the demo data; the same seed gives the same rows.
    pub seed: u64,
    /// Bytes of the in-process cache; `None` takes min(1 GiB, a quarter of the memory limit).
    pub cache_bytes: Option<u64>,
    /// Keys that sign cursors: the first signs, all verify. Empty: one at random, so that cursors
    /// end with the process.
    pub cursor_keys: Vec<[u8; CURSOR_KEY_BYTES]>,
    /// Requests handled at once; more are answered 503.
    pub in_flight: usize,
    /// Connections held at once; more are closed unanswered.
    pub connections: usize,
    /// Longest time from a complete request head to the response head.
    pub request_deadline: Duration,
    /// Longest time of one statement.
    pub query_deadline: Duration,
    /// Time between "not ready" and the end of accepting, so that balancers look elsewhere first.
    pub stop_notice: Duration,
    /// Whether the agent's endpoints may change the process, such as the allocator's tuning.
    pub control: bool,
    /// Address of the admin plane, on loopback; port 0 takes a free one, `None` has none.
    pub admin: Option<SocketAddr>,
    /// What a POST to the admin plane must know; `None` makes one at random.
    pub admin_token: Option<String>,
    /// Whether the service may be broken on command.
    pub profile: Profile,
}

/// What the service is run for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Profile {
    /// To be looked at: faults can be switched on.
    #[default]
    Demo,
    /// To serve: faults are refused.
    Production,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            public: SocketAddr::from(([127, 0, 0, 1], 8080)),
            agent: SocketAddr::from(([127, 0, 0, 1], 6060)),
            database: None,
            users: 5_000,
            contents: 100_000,
            seed: 1,
            cache_bytes: None,
            cursor_keys: Vec::new(),
            in_flight: 1_024,
            connections: 4_096,
            request_deadline: Duration::from_secs(5),
            query_deadline: Duration::from_secs(2),
            stop_notice: Duration::ZERO,
            control: false,
            admin: None,
            admin_token: None,
            profile: Profile::default(),
        }
    }
}

/// The options of `streamgate serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address of the public API.
    #[arg(long, default_value = "127.0.0.1:8080")]
    public: SocketAddr,
    /// Address of the agent's endpoints.
    #[arg(long, default_value = "127.0.0.1:6060")]
    agent: SocketAddr,
    /// SQLite file; without it a throw-away one.
    #[arg(long)]
    database: Option<PathBuf>,
    /// Users of the demo data.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Rows each of content, NFT and transaction.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    contents: u32,
    /// Seed of the demo data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// MiB of the in-process cache; without it min(1 GiB, a quarter of the memory limit).
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    cache_mib: Option<u64>,
    /// File with the 32 bytes that sign cursors; a second one still verifies old cursors.
    #[arg(long)]
    cursor_key_file: Vec<PathBuf>,
    /// Seconds between "not ready" and the end of accepting.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60))]
    stop_notice: u64,
    /// Let the agent's endpoints change the allocator's tuning and purge it.
    #[arg(long)]
    control: bool,
    /// Address of the admin plane on this machine.
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = loopback)]
    admin: SocketAddr,
    /// File with the token that a POST to the admin plane must know; without it one is made and logged.
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
    /// What the service is run for; in production the faults are refused.
    #[arg(long, value_enum, default_value_t = Profile::Demo)]
    profile: Profile,
}

impl Args {
    /// Reads the key files and gives the settings.
    ///
    /// # Errors
    /// A key file cannot be read, holds another number of bytes than 32, or is the third.
    pub fn settings(self) -> Result<Settings, Fatal> {
        if self.cursor_key_file.len() > 2 {
            return Err(Fatal::OutOfRange {
                parameter: "--cursor-key-file",
                range: "given at most twice".to_owned(),
                seen: format!("{} times", self.cursor_key_file.len()),
            });
        }
        let cursor_keys = self
            .cursor_key_file
            .iter()
            .map(|path| cursor_key(path))
            .collect::<Result<_, _>>()?;
        Ok(Settings {
            public: self.public,
            agent: self.agent,
            database: self.database,
            users: self.users,
            contents: self.contents,
            seed: self.seed,
            cache_bytes: self.cache_mib.map(|mib| mib << 20),
            cursor_keys,
            stop_notice: Duration::from_secs(self.stop_notice),
            control: self.control,
            admin: Some(self.admin),
            admin_token: self.admin_token_file.as_deref().map(token).transpose()?,
            profile: self.profile,
            ..Settings::default()
        })
    }
}

/// An address that only this machine reaches.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let refused = || format!("an address of this machine such as 127.0.0.1:0 (got {text:?})");
    let address: SocketAddr = text.parse().map_err(|_| refused())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(refused())
    }
}

fn token(path: &Path) -> Result<String, Fatal> {
    let text = std::fs::read_to_string(path).map_err(|source| Fatal::File {
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if (16..=128).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token.to_owned());
    }
    Err(Fatal::OutOfRange {
        parameter: "--admin-token-file",
        range: "a file of 16..=128 visible ASCII characters".to_owned(),
        seen: format!("{} bytes in {}", token.len(), path.display()),
    })
}

fn cursor_key(path: &Path) -> Result<[u8; CURSOR_KEY_BYTES], Fatal> {
    let bytes = std::fs::read(path).map_err(|source| Fatal::File {
        path: path.to_owned(),
        source,
    })?;
    <[u8; CURSOR_KEY_BYTES]>::try_from(bytes).map_err(|bytes| Fatal::OutOfRange {
        parameter: "--cursor-key-file",
        range: format!("a file of {CURSOR_KEY_BYTES} bytes"),
        seen: format!("{} bytes in {}", bytes.len(), path.display()),
    })
}
