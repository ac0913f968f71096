//! The request that the running task serves, visible to code below it for as long as it is polled.
//!
//! The scope is moved into a thread-local before each poll and taken back after it, so interleaved
//! tasks on one worker never see each other's, and a parked worker has none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use super::method::Method;
use super::routes::Route;
use crate::store::label::{self, Mark, Marked};

#[derive(Debug, Default)]
pub(crate) struct Scope {
    route: RefCell<Option<Arc<Route>>>,
    queries: Cell<u32>,
    /// Queries of tasks that work for this request; made when the first such task is.
    elsewhere: RefCell<Option<Arc<AtomicU32>>>,
    /// This is such a task: its queries are counted for the request that it works for.
    carried: bool,
    /// What CPU samples say of this work; nothing more than the route is ever added to it.
    mark: Cell<Mark>,
    method: Option<Method>,
}

thread_local! {
    static CURRENT: RefCell<Option<Box<Scope>>> = const { RefCell::new(None) };
}

impl Scope {
    pub(crate) fn new(method: Method, mark: Mark) -> Self {
        Self {
            mark: Cell::new(mark),
            method: Some(method),
            ..Self::default()
        }
    }

    fn set_route(&self, route: &Arc<Route>) {
        self.route.replace(Some(Arc::clone(route)));
        let mark = self.mark.get();
        let set = match self.method {
            Some(method) => route.labels(method),
            None => mark.set.with(label::ROUTE, route.template()),
        };
        let mark = Mark { set, ..mark };
        self.mark.set(mark);
        label::replace(mark);
    }

    pub(crate) fn take_route(&self) -> Option<Arc<Route>> {
        self.route.take()
    }

    pub(crate) fn queries(&self) -> u32 {
        let elsewhere = self.elsewhere.borrow();
        let elsewhere = elsewhere
            .as_ref()
            .map_or(0, |count| count.load(Ordering::Relaxed));
        self.queries.get().saturating_add(elsewhere)
    }

    fn count_query(&self) {
        match &*self.elsewhere.borrow() {
            Some(count) if self.carried => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.queries.set(self.queries.get().saturating_add(1)),
        }
    }

    fn elsewhere(&self) -> Arc<AtomicU32> {
        Arc::clone(self.elsewhere.borrow_mut().get_or_insert_default())
    }
}

/// Says which route the running request took; the last one said is kept.
pub(crate) fn set_route(route: &Arc<Route>) {
    with(|scope| scope.set_route(route));
}

/// Counts a query made for the running request, if there is one.
pub(crate) fn count_query() {
    with(Scope::count_query);
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
    _marked: Marked,
}

impl<'a> Entered<'a> {
    pub(crate) fn new(slot: &'a mut Option<Box<Scope>>) -> Self {
        let inner = slot.take();
        let mark = inner.as_deref().map(|scope| scope.mark.get());
        let outer = CURRENT
            .try_with(|current| current.replace(inner))
            .ok()
            .flatten();
        Self {
            slot,
            outer,
            _marked: Marked::new(mark.unwrap_or(Mark::NONE)),
        }
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

/// Makes a future work for the running request, wherever it is polled.
///
/// Its queries count for that request, and its CPU samples carry that request's labels. A host that spawns part of a request's work, such as a load
/// that must outlive a client that leaves, wraps it in this. Outside a request it changes nothing.
///
/// ```
/// let load = async { 7 };
/// let load = streamgate_agent::in_request(load);
/// # drop(load);
/// ```
pub fn in_request<F: Future>(future: F) -> InRequest<F> {
    let elsewhere = CURRENT
        .try_with(|current| current.borrow().as_deref().map(Scope::elsewhere))
        .ok()
        .flatten();
    let scope = elsewhere.map(|count| {
        let elsewhere = RefCell::new(Some(count));
        Box::new(Scope {
            elsewhere,
            carried: true,
            mark: Cell::new(label::current()),
            ..Scope::default()
        })
    });
    InRequest {
        future: Box::pin(future),
        scope,
    }
}

/// A future that works for the request in which it was made; see [`in_request`].
#[derive(Debug)]
pub struct InRequest<F> {
    future: Pin<Box<F>>,
    scope: Option<Box<Scope>>,
}

impl<F: Future> Future for InRequest<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.scope.is_none() {
            return this.future.as_mut().poll(context);
        }
        let _entered = Entered::new(&mut this.scope);
        this.future.as_mut().poll(context)
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
    fn work_done_elsewhere_counts_for_the_request_it_was_begun_in() {
        let mut scope = Some(Box::<Scope>::default());
        let work = {
            let _entered = Entered::new(&mut scope);
            count_query();
            in_request(async { count_query() })
        };
        std::thread::spawn(|| futures_executor::block_on(work))
            .join()
            .unwrap();
        assert_eq!(scope.unwrap().queries(), 2);
        futures_executor::block_on(in_request(async { count_query() }));
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
