//! How it is shown: faces of one snapshot, faces of one profile, and the answers to requests.
//!
//! May use the store, assess, the catalogue, the limits and the error. Absent on purpose: sockets,
//! files and tokio (only `serve` and `push` have them), and calls into collect or instrument: a reader's wish
//! is data in the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::assess::leaks::Leaks;
use crate::assess::targets::TargetTable;
use crate::store::sync::lock;

mod bounded;
#[cfg(feature = "otlp")]
pub(crate) mod delivery;
pub(crate) mod difference;
pub(crate) mod firefox;
mod firefox_format;
pub(crate) mod flushed;
pub(crate) mod folded;
pub(crate) mod guard;
mod heap_text;
pub(crate) mod index;
pub(crate) mod labels;
mod leak_text;
pub(crate) mod negotiate;
pub(crate) mod number;
pub(crate) mod openmetrics;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
pub(crate) mod pprof;
#[cfg(feature = "otlp")]
pub(crate) mod push;
pub(crate) mod pyroscope;
mod rate;
pub(crate) mod respond;
pub(crate) mod runtime_frames;
mod samples;
pub(crate) mod speedscope;
mod summary;
pub(crate) mod text;
pub(crate) mod wire;

#[cfg(feature = "prometheus")]
pub(crate) mod collector;
#[cfg_attr(not(feature = "flamegraph"), path = "flamegraph_off.rs")]
pub(crate) mod flamegraph;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod profile_tests;
#[cfg(feature = "http")]
pub(crate) mod serve;

/// What `assess` and the host have said, for every output to show.
#[derive(Debug, Default)]
pub(crate) struct Published {
    targets: Mutex<Arc<TargetTable>>,
    /// Judged when somebody asks, which costs more than to keep what it takes.
    pub(crate) leaks: Mutex<Leaks>,
    unready: AtomicBool,
    down: Mutex<BTreeSet<&'static str>>,
}

impl Published {
    pub(crate) fn set_targets(&self, table: TargetTable) {
        *lock(&self.targets) = Arc::new(table);
    }

    pub(crate) fn targets(&self) -> Arc<TargetTable> {
        Arc::clone(&lock(&self.targets))
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.unready.store(!ready, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.unready.load(Ordering::Acquire)
    }

    /// Says whether a thread of the agent runs, as `agent_up` does.
    pub(crate) fn set_up(&self, component: &'static str, up: bool) {
        let mut down = lock(&self.down);
        if up {
            down.remove(component);
        } else {
            down.insert(component);
        }
    }

    /// The threads that do not run.
    pub(crate) fn down(&self) -> Vec<&'static str> {
        lock(&self.down).iter().copied().collect()
    }
}
