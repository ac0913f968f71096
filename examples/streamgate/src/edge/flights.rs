//! Request collapsing: those who ask for the same at once wait for one fetch.
//!
//! Guide 3.3. Breaking test: `a_thousand_cold_readers_cause_one_request_to_the_origin`. A fetch runs in a
//! task of its own: a client that leaves must not cancel what others wait for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::key::Key;

/// The outcome of a fetch, for each who waits for it.
pub(super) type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The fetches under way.
pub(super) struct Flights<T>(Arc<Mutex<HashMap<Key, Flight<T>>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// Takes the flight off the list however its task ends.
struct Landing<T> {
    key: Key,
    flights: Arc<Mutex<HashMap<Key, Flight<T>>>>,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The outcome of the fetch under way, or of `fetch`, and whether the caller began it. `None` when the
    /// task of the fetch ended without one.
    pub(super) fn join<F>(&self, key: &Key, fetch: impl FnOnce() -> F) -> (Flight<T>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return (flight.clone(), false);
        }
        let landing = Landing {
            key: key.clone(),
            flights: Arc::clone(&self.0),
        };
        let fetch = fetch();
        // The lock is held until the flight is listed, so the task cannot take it off before.
        let task = tokio::spawn(async move {
            let outcome = fetch.await;
            drop(landing);
            outcome
        });
        let flight = task.map(Result::ok).boxed().shared();
        flights.insert(key.clone(), flight.clone());
        (flight, true)
    }
}
