//! The steps of a batch on its way to cold storage.

use std::fmt;
use std::io::Write as _;

/// What has been done to the rows of a batch; each implies those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// They are this archiver's until the lease is over.
    Leased,
    /// Their frames lie in an object under its SHA-256.
    Stored,
    /// The object was read back and is what was written.
    Verified,
    /// The manifests are in and the payloads out.
    Archived,
}

impl Step {
    /// The word in the table and in the metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Stored => "stored",
            Self::Verified => "verified",
            Self::Archived => "archived",
        }
    }

    /// The fault `archive_crash_at`: says on standard output that the step is reached and goes no
    /// further, so that whoever started the process can kill it exactly there.
    pub(super) async fn halt(self) {
        let mut out = std::io::stdout();
        // Nobody listens: then nobody kills, and the halt is all there is.
        drop(writeln!(out, "halted at {self}").and_then(|()| out.flush()));
        std::future::pending().await
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
