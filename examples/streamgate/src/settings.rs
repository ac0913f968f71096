//! Every value the service can be started with: default, unit, range.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fatal;
use crate::gate::mock::ChainSettings;

pub use crate::db::place::Place;

/// Bytes of a key that signs cursors: as many as the hash gives, RFC 2104 section 3.
pub const CURSOR_KEY_BYTES: usize = 32;

/// What the service starts with. [`Settings::default`] is a throw-away instance with demo data.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the public API; port 0 takes a free one.
    pub public: SocketAddr,
    /// Address of the agent's endpoints; port 0 takes a free one.
    pub agent: SocketAddr,
    /// Certificates and key of the public API; `None` speaks clear text.
    pub tls: Option<TlsFiles>,
    /// SQLite file or PostgreSQL; `None` makes a file in a temporary directory that is removed at the end.
    pub database: Option<Place>,
    /// PostgreSQL connections at most, 1..=1 000; the server's own limit may leave fewer.
    pub pool_max: u32,
    /// Services that share the server and its connections, 1..=100.
    pub instances: u32,
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
    /// Jobs that wait for a worker, 1..=2 048, half of what is remembered; more are answered 503.
    pub job_queue: usize,
    /// Longest time from a complete request head to the response head.
    pub request_deadline: Duration,
    /// Longest time of one statement.
    pub query_deadline: Duration,
    /// Time between "not ready" and the end of accepting, so that balancers look elsewhere first.
    pub stop_notice: Duration,
    /// Redis, `redis://[user:password@]host[:port][/database]`; `None` without L2.
    pub redis: Option<String>,
    /// Longest time for an answer of Redis, connecting included. The default of 50 ms is the guide's 5 to 10 ms
    /// with room, and no more on top of what the database takes.
    pub redis_deadline: Duration,
    /// The secret that edge and service share; whoever proves it is an edge and no client.
    pub edge_token: Option<String>,
    /// Where the edge takes purges by surrogate key; `None` without an edge.
    pub edge_purge: Option<SocketAddr>,
    /// Whether the agent looks: without it no request is measured, nothing is sampled and nothing listens
    /// at `agent`, so that what the agent costs can be measured.
    pub observed: bool,
    /// How the chain behaves that knows who owns which NFT.
    pub chain: ChainSettings,
    /// Directory of archived payloads; `None` lies beside the SQLite file, or for PostgreSQL in the working
    /// directory, by the name of the database.
    pub archive_dir: Option<PathBuf>,
    /// Age from which on a content is archived; [`YEAR`](crate::archive::YEAR) is the guide's.
    pub archive_after: Duration,
    /// How often what is older than a year is archived; `None`: never by itself.
    pub archive_every: Option<Duration>,
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

/// Files that make a server speak TLS, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then those that lead to a root.
    pub certificates: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            public: SocketAddr::from(([127, 0, 0, 1], 8080)),
            agent: SocketAddr::from(([127, 0, 0, 1], 6060)),
            tls: None,
            database: None,
            pool_max: 100,
            instances: 1,
            users: 5_000,
            contents: 100_000,
            seed: 1,
            cache_bytes: None,
            cursor_keys: Vec::new(),
            in_flight: 1_024,
            connections: 4_096,
            job_queue: 1_024,
            request_deadline: Duration::from_secs(5),
            query_deadline: Duration::from_secs(2),
            stop_notice: Duration::ZERO,
            redis: None,
            redis_deadline: Duration::from_millis(50),
            edge_token: None,
            edge_purge: None,
            observed: true,
            chain: ChainSettings {
                latency: Duration::ZERO,
                fail_every: 0,
            },
            archive_dir: None,
            archive_after: crate::archive::YEAR,
            archive_every: None,
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
    /// PEM file with the certificates of the public API, its own first: speaks TLS.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key of the certificate.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// SQLite file or postgres://user:password@host/database; without it a throw-away file.
    #[arg(long, value_name = "FILE|URL")]
    database: Option<Place>,
    /// PostgreSQL connections at most; the server's own limit may leave fewer.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pool_max: u32,
    /// Services that share the PostgreSQL server and its connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    instances: u32,
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
    /// Jobs that wait for a worker; more are answered 503.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=2_048))]
    job_queue: u32,
    /// Seconds between "not ready" and the end of accepting.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60))]
    stop_notice: u64,
    /// Redis as the cache that instances share: redis://[user:password@]host[:port][/database]. Instances
    /// need the same database and --cursor-key-file.
    #[arg(long)]
    redis: Option<String>,
    /// File with the secret that edge and service share.
    #[arg(long)]
    edge_token_file: Option<PathBuf>,
    /// Address where the edge takes purges; needs --edge-token-file.
    #[arg(long, requires = "edge_token_file")]
    edge_purge: Option<SocketAddr>,
    /// Measure no request, sample nothing and show nothing: what the service does without the agent.
    #[arg(long, conflicts_with_all = ["agent", "control"])]
    unobserved: bool,
    /// Milliseconds until the mock chain answers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    chain_latency_ms: u64,
    /// Every n-th question to the mock chain stays unanswered; 0: none.
    #[arg(long, default_value_t = 0)]
    chain_fail_every: u64,
    /// Directory of archived payloads; without it the database's name with ".archive" behind it.
    #[arg(long)]
    archive_dir: Option<PathBuf>,
    /// Days after which a content is archived.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    archive_after_days: u64,
    /// Seconds between two runs of the archiver; 0 turns it off.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    archive_every: u64,
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
            tls: self
                .tls_cert
                .zip(self.tls_key)
                .map(|(certificates, key)| TlsFiles { certificates, key }),
            database: self.database,
            pool_max: self.pool_max,
            instances: self.instances,
            users: self.users,
            contents: self.contents,
            seed: self.seed,
            cache_bytes: self.cache_mib.map(|mib| mib << 20),
            cursor_keys,
            job_queue: usize::try_from(self.job_queue).unwrap_or(usize::MAX),
            stop_notice: Duration::from_secs(self.stop_notice),
            redis: self.redis,
            edge_token: token(self.edge_token_file.as_deref(), "--edge-token-file")?,
            edge_purge: self.edge_purge,
            observed: !self.unobserved,
            chain: ChainSettings {
                latency: Duration::from_millis(self.chain_latency_ms),
                fail_every: self.chain_fail_every,
            },
            archive_dir: self.archive_dir,
            archive_after: Duration::from_secs(self.archive_after_days * 86_400),
            archive_every: (self.archive_every > 0)
                .then(|| Duration::from_secs(self.archive_every)),
            control: self.control,
            admin: Some(self.admin),
            admin_token: token(self.admin_token_file.as_deref(), "--admin-token-file")?,
            profile: self.profile,
            ..Settings::default()
        })
    }
}

/// The secret in a file, 16..=128 visible characters; `None` without a file.
///
/// # Errors
/// The file cannot be read or holds something else; `parameter` is the option that named it.
pub(crate) fn token(file: Option<&Path>, parameter: &'static str) -> Result<Option<String>, Fatal> {
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|source| Fatal::File {
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if (16..=128).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(token.to_owned()));
    }
    Err(Fatal::OutOfRange {
        parameter,
        range: "a file of 16..=128 visible ASCII characters".to_owned(),
        seen: format!("{} bytes in {}", token.len(), path.display()),
    })
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
