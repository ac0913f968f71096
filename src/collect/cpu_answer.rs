//! Names a window's addresses and answers its reader, on a thread of its own.
//!
//! Naming a large binary for the first time takes seconds in a debug build; sampling and the other
//! readers' windows must not wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cpu_profile::{self, Taken};
use super::symbols::{Patience, Symbolised, Symboliser};
use crate::catalog::families;
use crate::config;
use crate::store::Store;
use crate::store::metrics::Counter;
use crate::store::sync::lock;
use crate::store::windows::Window;

/// What answers need beside their windows.
#[derive(Debug)]
struct Desk {
    store: Arc<Store>,
    /// Locked while a window is named, so that only one module's symbols are in memory.
    symboliser: Mutex<Symboliser>,
    panics: Option<Counter>,
}

/// Answers under way.
#[derive(Debug)]
pub(super) struct Answers {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// A window that is over, and who asked for it.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) reader: u64,
    pub(super) window: Window,
    pub(super) taken: Taken,
}

impl Answers {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let panics = store.metrics.counter(&families::AGENT_PANICS, &["symbols"]);
        let desk = Desk {
            store,
            symboliser: Mutex::default(),
            panics: panics.ok(),
        };
        Self {
            desk: Arc::new(desk),
            threads: Vec::new(),
        }
    }

    /// Begins to answer; waits for the answer only if there are no threads to be had.
    pub(super) fn begin(&mut self, due: Due) {
        self.threads.retain(|thread| !thread.is_finished());
        let due = Arc::new(due);
        if self.threads.len() < config::PROFILE_READERS {
            let (desk, inside) = (Arc::clone(&self.desk), Arc::clone(&due));
            let thread = thread::Builder::new().name("sg-symbols".to_owned());
            if let Ok(thread) = thread.spawn(move || desk.answer(&inside)) {
                self.threads.push(thread);
                return;
            }
        }
        self.desk.answer(&due);
    }

    /// Waits for the answers under way; they end soon once their readers were turned away.
    pub(super) fn finish(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic has been counted where it was caught.
            drop(thread.join());
        }
    }
}

impl Desk {
    fn answer(&self, due: &Due) {
        let addresses = cpu_profile::addresses(&due.window);
        let open = || self.store.cpu.open();
        let patience = Patience {
            deadline: Instant::now() + patience(due.taken.asked),
            wanted: &|| open().iter().any(|(open, _)| *open == due.reader),
        };
        // Files may be damaged in ways that their readers did not foresee.
        let symbolised = catch_unwind(AssertUnwindSafe(|| {
            let mut symboliser = lock(&self.symboliser);
            symboliser.symbolise(&addresses, &self.store.symbols, &patience)
        }));
        let symbolised = symbolised.unwrap_or_else(|_| {
            if let Some(panics) = &self.panics {
                panics.inc();
            }
            Symbolised::raw(
                &addresses,
                "no names: reading the symbols failed unexpectedly",
            )
        });
        let profile = cpu_profile::profile(&due.window, symbolised, due.taken);
        self.store.cpu.answer(due.reader, Ok(Arc::new(profile)));
    }
}

/// Time for naming: the go tool gives up 1.5 times the seconds asked for plus 5 s after asking.
fn patience(asked: Duration) -> Duration {
    (asked / 2 + Duration::from_secs(3)).min(config::SYMBOLISE)
}
