//! The request that the running task serves, visible to code below it for as long as it is polled.
//!
//! The scope is moved into a thread-local before each poll and taken back after it, so interleaved
//! tasks on one worker never see each other's, and a parked worker has none.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::routes::Route;

#[derive(Debug, Default)]
pub(crate) struct Scope {
    route: RefCell<Option<Arc<Route>>>,
    queries: Cell<u32>,
}

thread_local! {
    static CURRENT: RefCell<Option<Box<Scope>>> = const { RefCell::new(None) };
}

impl Scope {
    pub(crate) fn set_route(&self, route: Arc<Route>) {
        self.route.replace(Some(route));
    }

    pub(crate) fn take_route(&self) -> Option<Arc<Route>> {
        self.route.take()
    }

    pub(crate) fn queries(&self) -> u32 {
        self.queries.get()
    }
}

/// Says which route the running request took; the last one said is kept.
pub(crate) fn set_route(route: &Arc<Route>) {
    with(|scope| scope.set_route(Arc::clone(route)));
}

/// Counts a query made for the running request, if there is one.
pub(crate) fn count_query() {
    with(|scope| scope.queries.set(scope.queries.get().saturating_add(1)));
}

fn with(act: impl FnOnce(&Scope)) {
    // Thread-locals may be gone while a thread ends; then there is no request either.
    if CURRENT
        .try_with(|current| current.borrow().as_deref().map(act))
        .is_err()
    {}
}

/// Makes the scope in `slot` current until dropped, then puts it back.
pub(crate) struct Entered<'a> {
    slot: &'a mut Option<Box<Scope>>,
    outer: Option<Box<Scope>>,
}

impl<'a> Entered<'a> {
    pub(crate) fn new(slot: &'a mut Option<Box<Scope>>) -> Self {
        let inner = slot.take();
        let outer = CURRENT
            .try_with(|current| current.replace(inner))
            .ok()
            .flatten();
        Self { slot, outer }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let outer = self.outer.take();
        *self.slot = CURRENT
            .try_with(|current| current.replace(outer))
            .ok()
            .flatten();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_current_only_while_it_is_entered_and_nests() {
        let mut outer = Some(Box::<Scope>::default());
        let mut inner = Some(Box::<Scope>::default());
        count_query();
        {
            let _outer = Entered::new(&mut outer);
            count_query();
            {
                let _inner = Entered::new(&mut inner);
                count_query();
                count_query();
            }
            count_query();
        }
        assert_eq!(outer.unwrap().queries(), 2);
        assert_eq!(inner.unwrap().queries(), 2);
    }

    #[test]
    fn a_panic_inside_leaves_no_scope_behind() {
        let mut slot = Some(Box::<Scope>::default());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _entered = Entered::new(&mut slot);
            panic!("handler bug");
        }));
        assert!(caught.is_err() && slot.is_some());
        assert!(CURRENT.with(|current| current.borrow().is_none()));
    }
}
