//! The request that the running task serves, visible to code below it for as long as it is polled.
//!
//! The scope is moved into a thread-local before each poll and taken back after it, so interleaved
//! tasks on one worker never see each other's, and a parked worker has none. The time between a poll
//! that was pending and the next is where the request waited.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use super::method::Method;
use super::routes::Route;
use super::traces::Watch;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::label::{self, Mark, Marked};
use crate::store::scopes::{Face, Seat};

#[derive(Debug, Default)]
pub(crate) struct Scope {
    route: RefCell<Option<Arc<Route>>>,
    queries: Cell<u32>,
    /// Queries of tasks that work for this request; made when the first such task is.
    elsewhere: RefCell<Option<Arc<AtomicU32>>>,
    /// This is such a task: its queries are counted for the request that it works for.
    is_task: bool,
    /// Where it is seen and its waits are written down; without it they are not clocked.
    seat: Option<Seated>,
    /// What CPU samples say of this work; nothing more than the route is ever added to it.
    mark: Cell<Mark>,
    method: Option<Method>,
    /// Where work is written down that joins the request's trace.
    watch: Watch,
}

/// A place among the open scopes of a store, given back when dropped.
#[derive(Debug)]
struct Seated {
    store: Arc<Store>,
    seat: Seat,
}

impl Seated {
    /// Writes down the wait that is over, if there is one. What is open has not changed since it
    /// began, as only polls change it.
    fn resume(&self) {
        let face = &self.seat.face;
        let Some(waited) = face.resume() else {
            return;
        };
        let (mut stack, named) = face.stack();
        if !named {
            stack.push(Frame::OTHER);
        }
        self.store.awaits.add(stack, waited);
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.resume();
        self.store.scopes.leave(&self.seat);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Box<Scope>>> = const { RefCell::new(None) };
}

impl Scope {
    /// The scope of a request that began at a moment and whose waits go to this store.
    pub(crate) fn serving(
        store: Arc<Store>,
        method: Method,
        mark: Mark,
        began: Instant,
        watch: Watch,
    ) -> Self {
        let seat = store.scopes.enter(began, mark, None);
        Self {
            seat: Some(Seated { store, seat }),
            mark: Cell::new(mark),
            method: Some(method),
            watch,
            ..Self::default()
        }
    }

    /// A task that works for the request of this scope.
    fn task(&self) -> Self {
        let mark = label::current();
        let seat = self.seat.as_ref().map(|own| {
            let store = Arc::clone(&own.store);
            let (mut stack, _) = own.seat.face.stack();
            stack.push(Frame::IN_REQUEST);
            let seat = store.scopes.enter(Instant::now(), mark, Some(stack));
            Seated { store, seat }
        });
        Self {
            elsewhere: RefCell::new(Some(self.elsewhere())),
            is_task: true,
            seat,
            mark: Cell::new(mark),
            watch: self.watch.clone(),
            ..Self::default()
        }
    }

    /// Where waits are written down and what else has to be open there.
    pub(crate) fn seat(&self) -> Option<(&Arc<Store>, &Arc<Face>)> {
        let own = self.seat.as_ref()?;
        Some((&own.store, &own.seat.face))
    }

    #[cfg_attr(
        not(feature = "otlp"),
        expect(dead_code, reason = "nothing is written down")
    )]
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The head of the response is out.
    pub(crate) fn send(&self) {
        if let Some((_, face)) = self.seat() {
            face.send();
        }
    }

    /// The wait is over, by the next poll or because nobody polls any more.
    pub(crate) fn resume(&self) {
        self.seat.iter().for_each(Seated::resume);
    }

    pub(crate) fn set_route(&self, route: &Arc<Route>) {
        self.route.replace(Some(Arc::clone(route)));
        let mark = self.mark.get();
        let set = match self.method {
            Some(method) => route.labels(method),
            None => mark.set.with(label::ROUTE, route.template()),
        };
        self.mark.set(Mark { set, ..mark });
        if let Some((_, face)) = self.seat() {
            face.set_route(route.frame(), set);
        }
    }

    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        self.route.borrow().clone()
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
            Some(count) if self.is_task => {
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
    with(|scope| {
        scope.set_route(route);
        label::replace(scope.mark.get());
    });
}

/// Counts a query made for the running request, if there is one.
pub(crate) fn count_query() {
    with(Scope::count_query);
}

/// Does something with the scope of the running request, if there is one.
pub(crate) fn with<T>(act: impl FnOnce(&Scope) -> T) -> Option<T> {
    // Thread-locals may be gone while a thread ends; then there is no request either.
    CURRENT
        .try_with(|current| current.borrow().as_deref().map(act))
        .ok()
        .flatten()
}

/// Polls with the scope in `slot` current, and clocks the wait if the poll is pending.
///
/// # Cost
/// Two clock reads per pending poll, and what [`Awaits::add`](crate::store::awaits::Awaits::add) costs.
pub(crate) fn poll<T>(slot: &mut Option<Box<Scope>>, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    if let Some(scope) = slot.as_deref() {
        scope.resume();
    }
    // A scope that is polled by another one's future waits when that one does: counted once.
    let inside = with(|_| ()).is_some();
    let polled = {
        let _entered = Entered::new(slot);
        poll()
    };
    if polled.is_pending()
        && let Some((_, face)) = slot.as_deref().and_then(Scope::seat)
    {
        face.wait(!inside);
    }
    polled
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
/// Its queries count for that request, its waits stand below what the request had open, and its CPU
/// samples carry that request's labels. A host that spawns part of a request's work, such as a load
/// that must outlive a client that leaves, wraps it in this. Outside a request it changes nothing.
///
/// ```
/// let load = async { 7 };
/// let load = streamgate_agent::in_request(load);
/// # drop(load);
/// ```
pub fn in_request<F: Future>(future: F) -> InRequest<F> {
    InRequest {
        scope: with(|scope| Box::new(scope.task())),
        future: Box::pin(future),
    }
}

/// A future that works for the request in which it was made; see [`in_request`].
#[derive(Debug)]
pub struct InRequest<F> {
    /// Before the future, so that a wait that ends with its drop finds open what it waited for.
    scope: Option<Box<Scope>>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for InRequest<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.scope.is_none() {
            return this.future.as_mut().poll(context);
        }
        let future = &mut this.future;
        self::poll(&mut this.scope, || future.as_mut().poll(context))
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
