//! Names a window's addresses and answers its reader, on a thread of its own.
//!
//! Naming a large binary for the first time takes seconds in a debug build; sampling and the other
//! readers' windows must not wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::profile::{self, Taken};
use crate::catalog::families;
use crate::collect::code::symbols::{Patience, Symbolised, Symboliser};
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
    /// Readers whose addresses are being named.
    naming: Vec<u64>,
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
            naming: Vec::new(),
        }
    }

    /// Begins to answer.
    pub(super) fn begin(&mut self, due: Due) {
        self.spawn(move |desk| desk.answer(&due));
    }

    /// Begins to name addresses for whoever wishes for it.
    pub(super) fn name(&mut self, now: Instant) {
        self.desk.store.names.expire(now);
        let open = self.desk.store.names.open();
        self.naming
            .retain(|id| open.iter().any(|(open, _)| open == id));
        for (id, addresses) in open {
            if !self.naming.contains(&id) {
                self.naming.push(id);
                self.spawn(move |desk| desk.name(id, &addresses));
            }
        }
    }

    /// Does work of the desk; waits for it only if there are no threads to be had.
    fn spawn(&mut self, work: impl Fn(&Desk) + Send + Sync + 'static) {
        self.threads.retain(|thread| !thread.is_finished());
        let work = Arc::new(work);
        if self.threads.len() < config::PROFILE_READERS {
            let (desk, inside) = (Arc::clone(&self.desk), Arc::clone(&work));
            let thread = thread::Builder::new().name("sg-symbols".to_owned());
            if let Ok(thread) = thread.spawn(move || inside(&desk)) {
                self.threads.push(thread);
                return;
            }
        }
        work(&self.desk);
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
        let open = || self.store.cpu.open();
        let Some((_, wish)) = open().into_iter().find(|(id, _)| *id == due.reader) else {
            return;
        };
        let addresses = profile::addresses(&due.window);
        let patience = Patience {
            deadline: Instant::now() + patience(due.taken.asked),
            wanted: &|| open().iter().any(|(open, _)| *open == due.reader),
        };
        // Files may be damaged in ways that their readers did not foresee.
        let symbolised = catch_unwind(AssertUnwindSafe(|| {
            let mut symboliser = lock(&self.symboliser);
            if wish.names {
                symboliser.symbolise(&addresses, &self.store.symbols, &patience)
            } else {
                symboliser.locate(&addresses, &self.store.symbols)
            }
        }));
        let symbolised = symbolised.unwrap_or_else(|_| {
            self.count_panic();
            Symbolised::raw(
                &addresses,
                "no names: reading the symbols failed unexpectedly",
            )
        });
        let profile = profile::profile(&due.window, symbolised, due.taken);
        self.store.cpu.answer(due.reader, Ok(Arc::new(profile)));
    }

    fn name(&self, reader: u64, addresses: &[u64]) {
        let open = || self.store.names.open();
        let patience = Patience {
            deadline: Instant::now() + config::SYMBOLS_WAIT,
            wanted: &|| open().iter().any(|(open, _)| *open == reader),
        };
        let named = catch_unwind(AssertUnwindSafe(|| {
            lock(&self.symboliser).names(addresses, &self.store.symbols, &patience)
        }));
        let named = named.unwrap_or_else(|_| {
            self.count_panic();
            vec![None; addresses.len()]
        });
        self.store.names.answer(reader, named.into());
    }

    fn count_panic(&self) {
        if let Some(panics) = &self.panics {
            panics.inc();
        }
    }
}

/// Time for naming: the go tool gives up 1.5 times the seconds asked for plus 5 s after asking.
fn patience(asked: Duration) -> Duration {
    (asked / 2 + Duration::from_secs(3)).min(config::SYMBOLISE)
}
