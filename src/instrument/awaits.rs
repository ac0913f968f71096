//! What a request has open while it waits: guards put their names on its list and take them off.
//!
//! The list is shared by the request and its guards, because a guard may end where the request is not
//! running: in a task that it was moved to, or when the request is dropped.

use std::future::Future;
use std::sync::Arc;

use super::scope;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::scopes::Face;

/// An await that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenAwait {
    face: Arc<Face>,
    number: u32,
}

impl OpenAwait {
    fn of(face: &Arc<Face>, frame: Frame) -> Option<Self> {
        let number = face.open(frame)?;
        Some(Self {
            face: Arc::clone(face),
            number,
        })
    }
}

impl Drop for OpenAwait {
    fn drop(&mut self) {
        self.face.close(self.number);
    }
}

/// Opens an await of the running request; `None` outside of one, and in a request that another agent
/// watches.
pub(crate) fn open(store: &Arc<Store>, frame: Frame) -> Option<OpenAwait> {
    scope::with(|scope| {
        let (own, face) = scope.seat()?;
        let same = Arc::ptr_eq(own, store);
        same.then(|| OpenAwait::of(face, frame)).flatten()
    })
    .flatten()
}

/// Names what a request waits for while `future` is not ready: the name shows in
/// `/debug/pprof/block` below the request's route, and in `/debug/pprof/goroutine` while it lasts.
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
        let (store, face) = scope.seat()?;
        OpenAwait::of(face, store.awaits.frame(name))
    });
    future.await
}
