//! Why the process could not start or go on; answers to clients are in `problem.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A cause that ends the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A value of the command line lies outside its range.
    #[error("{parameter} must be {range} (got {seen:?})")]
    OutOfRange {
        /// The option, as the user types it.
        parameter: &'static str,
        /// What is allowed.
        range: String,
        /// What was given.
        seen: String,
    },
    /// The public address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// The observability agent refused to start.
    #[error("the agent did not start")]
    Agent(#[source] streamgate_agent::Error),
    /// A file or directory cannot be read or made.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// The database cannot be opened, brought to the current schema or seeded.
    #[error("the database cannot be {step}")]
    Database {
        /// What was tried, as a participle: "opened".
        step: &'static str,
        /// The driver's error.
        source: sqlx::Error,
    },
    /// The operating system refused something else the command needs.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// A child process, a peer or a check of the command failed; the text says which.
    #[error("{0}")]
    Failed(String),
}

impl Fatal {
    /// The error and its causes on one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
