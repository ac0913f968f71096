//! Names the addresses of answers, on threads of their own.
//!
//! Naming a large binary for the first time takes seconds in a debug build; sampling and the other
//! readers must not wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::symbols::{Patience, Symbolised, Symboliser};
use crate::catalog::families;
use crate::collect::cpu::on_own_thread;
use crate::config;
use crate::store::Store;
use crate::store::metrics::Counter;
use crate::store::sync::lock;

/// What answers need beside what was gathered for them.
#[derive(Debug)]
pub(in crate::collect) struct Desk {
    pub(in crate::collect) store: Arc<Store>,
    /// Locked while addresses are named, so that only one module's symbols are in memory.
    symboliser: Mutex<Symboliser>,
    panics: Option<Counter>,
}

/// Answers under way.
#[derive(Debug)]
pub(in crate::collect) struct Answering {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

impl Answering {
    pub(in crate::collect) fn new(store: Arc<Store>) -> Self {
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

    pub(in crate::collect) fn store(&self) -> &Store {
        &self.desk.store
    }

    /// Does work of the desk; waits for it only if there are no threads to be had.
    pub(in crate::collect) fn spawn(&mut self, work: impl Fn(&Desk) + Send + Sync + 'static) {
        self.threads.retain(|thread| !thread.is_finished());
        let work = Arc::new(work);
        if self.threads.len() < config::PROFILE_READERS {
            let (desk, inside) = (Arc::clone(&self.desk), Arc::clone(&work));
            let thread = thread::Builder::new().name("sg-symbols".to_owned());
            let inside = move || on_own_thread(|| inside(&desk));
            if let Ok(thread) = thread.spawn(inside) {
                self.threads.push(thread);
                return;
            }
        }
        work(&self.desk);
    }

    /// Waits for the answers under way; they end soon once their readers were turned away.
    pub(in crate::collect) fn finish(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic has been counted where it was caught.
            drop(thread.join());
        }
    }
}

impl Desk {
    /// What sorted and distinct addresses mean, for somebody who asked for so many seconds of a
    /// profile; without `names` only where they lie.
    pub(in crate::collect) fn symbolise(
        &self,
        addresses: &[u64],
        names: bool,
        asked: Duration,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Symbolised {
        // The go tool gives up 1.5 times the seconds asked for plus 5 s after asking.
        let patience = (asked / 2 + Duration::from_secs(3)).min(config::SYMBOLISE);
        let patience = Patience {
            deadline: Instant::now() + patience,
            wanted,
        };
        // Files may be damaged in ways that their readers did not foresee.
        let symbolised = catch_unwind(AssertUnwindSafe(|| {
            let mut symboliser = lock(&self.symboliser);
            if names {
                symboliser.symbolise(addresses, &self.store.symbols, &patience)
            } else {
                symboliser.locate(addresses, &self.store.symbols)
            }
        }));
        symbolised.unwrap_or_else(|_| {
            self.count_panic();
            let why = "no names: reading the symbols failed unexpectedly";
            Symbolised::raw(addresses, why)
        })
    }

    /// The function of each address, and nothing more.
    pub(in crate::collect) fn names(
        &self,
        addresses: &[u64],
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Vec<Option<Arc<str>>> {
        let patience = Patience {
            deadline: Instant::now() + config::SYMBOLS_WAIT,
            wanted,
        };
        let named = catch_unwind(AssertUnwindSafe(|| {
            lock(&self.symboliser).names(addresses, &self.store.symbols, &patience)
        }));
        named.unwrap_or_else(|_| {
            self.count_panic();
            vec![None; addresses.len()]
        })
    }

    fn count_panic(&self) {
        if let Some(panics) = &self.panics {
            panics.inc();
        }
    }
}
