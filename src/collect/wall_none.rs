//! Looks at threads where nothing can look: other systems than Linux, and builds without profiling.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Store, Unavailable};

/// Turns every reader away.
#[derive(Debug)]
pub(crate) struct WallCollector {
    store: Arc<Store>,
}

impl WallCollector {
    pub(crate) fn new(store: Arc<Store>, _workers: &[String]) -> Self {
        Self { store }
    }

    pub(crate) fn turn(&mut self) {
        self.stop();
        self.store.looks.wait_for_wish(Duration::from_millis(250));
    }

    pub(crate) fn stop(&mut self) {
        let looks = &self.store.looks;
        for (id, _) in looks.open() {
            let why = "threads can be looked at on Linux only, with feature \"profiling\"";
            looks.answer(id, Err(Unavailable(why.to_owned())));
        }
    }
}
