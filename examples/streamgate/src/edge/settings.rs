//! Every value the edge can be started with: default, unit, range.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Fatal;

/// What the edge starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service that it stands before: `http://host[:port]`.
    pub origin: String,
    /// Address for clients; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address for purges, on loopback; unused without a token.
    pub purge: SocketAddr,
    /// Address of the agent's endpoints; port 0 takes a free one.
    pub agent: SocketAddr,
    /// Bytes of kept answers.
    pub cache_bytes: u64,
    /// What proves this edge to the service, and whoever purges to this edge. Without one nobody purges,
    /// and the service takes the edge for a client.
    pub token: Option<String>,
    /// Longest time for an answer of the origin.
    pub origin_deadline: Duration,
    /// Connections held at once; more are closed unanswered.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origin: "http://127.0.0.1:8080".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            purge: SocketAddr::from(([127, 0, 0, 1], 8091)),
            agent: SocketAddr::from(([127, 0, 0, 1], 6061)),
            cache_bytes: 256 << 20,
            token: None,
            // Above the service's own 5 s, so that its answer to an overload arrives.
            origin_deadline: Duration::from_secs(6),
            connections: 4_096,
        }
    }
}

/// The options of `streamgate edge`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The service behind: http://host[:port].
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    origin: String,
    /// Address for clients.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Address for purges by surrogate key, on loopback; needs --token-file.
    #[arg(long, default_value = "127.0.0.1:8091")]
    purge: SocketAddr,
    /// Address of the agent's endpoints.
    #[arg(long, default_value = "127.0.0.1:6061")]
    agent: SocketAddr,
    /// MiB of kept answers.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    cache_mib: u64,
    /// File with the secret that edge and service share, 16..=128 characters.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

impl Args {
    /// Reads the token and gives the settings.
    ///
    /// # Errors
    /// The file cannot be read or holds no token.
    pub fn settings(self) -> Result<Settings, Fatal> {
        Ok(Settings {
            origin: self.origin,
            listen: self.listen,
            purge: self.purge,
            agent: self.agent,
            cache_bytes: self.cache_mib << 20,
            token: crate::settings::token(self.token_file.as_deref(), "--token-file")?,
            ..Settings::default()
        })
    }
}
