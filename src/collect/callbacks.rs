//! Runs the host's closures; one that panics is counted and asked again next time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Source;
use crate::catalog::families;
use crate::config;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::Counter;

#[derive(Debug)]
pub(crate) struct CallbackSource {
    store: Arc<Store>,
    panics: Counter,
}

impl CallbackSource {
    pub(crate) fn new(store: Arc<Store>) -> Result<Self, Error> {
        let panics = store
            .metrics
            .counter(&families::AGENT_PANICS, &["callback"])?;
        Ok(Self { store, panics })
    }
}

impl Source for CallbackSource {
    fn component(&self) -> &'static str {
        "callback"
    }

    fn interval(&self) -> Duration {
        config::COLLECT_INTERVAL
    }

    fn collect(&mut self) {
        for callback in self.store.callbacks.all() {
            call(&self.panics, || callback());
        }
    }
}

/// Calls a closure of the host's and counts its panic.
pub(crate) fn call(panics: &Counter, callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        panics.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_panicking_closure_does_not_keep_the_next_from_running() {
        let store = Arc::new(Store::new(100));
        let runs = Arc::new(AtomicU32::new(0));
        store.callbacks.add(|| panic!("host bug"));
        let seen = Arc::clone(&runs);
        store.callbacks.add(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mut source = CallbackSource::new(Arc::clone(&store)).unwrap();
        source.collect();
        source.collect();
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }
}
