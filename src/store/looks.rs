//! Wishes for a look at threads, running or blocked, and what was seen.

use std::sync::Arc;
use std::time::Duration;

use super::Unavailable;
use super::profile::Profile;
use crate::config::SampleRate;

/// What a reader wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// Threads over the seconds to come.
    Over(WallWish),
    /// All threads as they are now; without stacks nothing is asked of them.
    Now { stacks: bool },
}

/// A wish for a wall-clock profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WallWish {
    pub(crate) threads: ThreadChoice,
    pub(crate) rate: SampleRate,
    pub(crate) duration: Duration,
    /// Workers that wait for work are shown too.
    pub(crate) idle: bool,
}

/// Which threads; the agent's own are never among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ThreadChoice {
    /// Those of async runtimes, by the names that tokio or the host gave them.
    Workers,
    All,
    /// Those whose names begin like this.
    Prefix(String),
}

/// What was seen, or why nothing could be.
pub(crate) type LookAnswer = Result<Arc<Seen>, Unavailable>;

/// A profile of threads and, for a look at this moment, the threads themselves.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) profile: Profile,
    /// By name, then by id.
    pub(crate) threads: Vec<ThreadRow>,
}

/// One thread at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThreadRow {
    pub(crate) tid: u32,
    pub(crate) name: Arc<str>,
    /// `running`, `sleeping` and so on.
    pub(crate) state: &'static str,
    /// The system call that it waits in.
    pub(crate) call: Option<Arc<str>>,
    /// CPU time used; `None`: not known.
    pub(crate) cpu: Option<Duration>,
    /// Indices into the profile's locations, leaf first.
    pub(crate) stack: Arc<[u32]>,
}

/// The label that says whether a thread was on the CPU.
pub(crate) const STATE: &str = "state";
/// On the CPU or waiting for one.
pub(crate) const RUNNING: &str = "running";
/// Waiting for anything else.
pub(crate) const BLOCKED: &str = "blocked";
