//! What a request has open while it waits: guards put their names on its list and take them off.
//!
//! The list is shared by the request and its guards, because a guard may end where the request is not
//! running: in a task that it was moved to, or when the request is dropped.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::scope;
use crate::store::Store;
use crate::store::awaits::{Frame, LogicalStack};
use crate::store::sync::lock;

/// Names at one time beyond which further ones are not noted: joined futures may open thousands.
const MOST: usize = 64;

/// The awaits that are open, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct OpenAwaits {
    open: Mutex<Vec<(u32, Frame)>>,
    next: AtomicU32,
}

impl OpenAwaits {
    pub(crate) fn open(self: &Arc<Self>, frame: Frame) -> Option<OpenAwait> {
        let mut open = lock(&self.open);
        if open.len() >= MOST {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.push((number, frame));
        Some(OpenAwait {
            list: Arc::clone(self),
            number,
        })
    }

    /// Puts the open awaits onto a stack; says whether there are any.
    pub(crate) fn push_onto(&self, stack: &mut LogicalStack) -> bool {
        let open = lock(&self.open);
        open.iter().for_each(|(_, frame)| stack.push(*frame));
        !open.is_empty()
    }
}

/// An await that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenAwait {
    list: Arc<OpenAwaits>,
    number: u32,
}

impl Drop for OpenAwait {
    fn drop(&mut self) {
        let mut open = lock(&self.list.open);
        // The last is the likeliest; others stay in their order.
        if let Some(place) = open.iter().rposition(|(held, _)| *held == self.number) {
            open.remove(place);
        }
    }
}

/// Opens an await of the running request; `None` outside of one, and in a request that another agent
/// watches.
pub(crate) fn open(store: &Arc<Store>, frame: Frame) -> Option<OpenAwait> {
    scope::with(|scope| {
        let same = scope.store().is_some_and(|own| Arc::ptr_eq(own, store));
        same.then(|| scope.awaits().open(frame)).flatten()
    })
    .flatten()
}

/// Names what a request waits for while `future` is not ready: the name shows in
/// `/debug/pprof/block` below the request's route.
///
/// Queries, cache lookups and waits for a pool are named by their guards; this is for everything
/// else. Outside a request it changes nothing. The name should be one of few; the first 4,096 names
/// of a process are kept apart.
///
/// # Cost
/// One lookup of the name under a lock and two short locks of the request's own, at the first poll
/// and at the end.
///
/// ```
/// # async fn render(page: u32) -> String { String::new() }
/// # async fn handler() -> String {
/// streamgate_agent::awaiting("render page", render(7)).await
/// # }
/// ```
pub async fn awaiting<F: Future>(name: &'static str, future: F) -> F::Output {
    let _open = scope::with(|scope| {
        let frame = scope.store()?.awaits.frame(name);
        scope.awaits().open(frame)
    });
    future.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awaits_may_overlap_and_leave_by_identity() {
        let store = Store::new(10);
        let frame = |name| store.awaits.frame(name);
        let list = Arc::new(OpenAwaits::default());
        let of = |names: &[&'static str]| {
            let mut stack = LogicalStack::of(Frame::UNMATCHED);
            names.iter().for_each(|name| stack.push(frame(name)));
            stack
        };
        let now = || {
            let mut stack = LogicalStack::of(Frame::UNMATCHED);
            let any = list.push_onto(&mut stack);
            (stack, any)
        };
        let first = list.open(frame("a"));
        let second = list.open(frame("b"));
        let again = list.open(frame("a"));
        assert_eq!(now(), (of(&["a", "b", "a"]), true));
        drop(first);
        assert_eq!(now(), (of(&["b", "a"]), true));
        std::thread::spawn(move || drop(again)).join().unwrap();
        assert_eq!(now(), (of(&["b"]), true));
        drop(second);
        assert_eq!(now(), (of(&[]), false));
        let many: Vec<_> = (0..2 * MOST).map(|_| list.open(frame("c"))).collect();
        assert_eq!(many.iter().flatten().count(), MOST);
    }
}
