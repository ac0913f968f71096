//! Client connections: how many are open, and how many requests each carried.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::metrics::{Counter, Held, Histogram, UpDown};

/// The handles for connections of one protocol version.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    open: UpDown,
    total: Counter,
    requests: Histogram,
}

impl Connections {
    pub(crate) fn new(store: &Store, version: &str) -> Self {
        let metrics = &store.metrics;
        Self {
            open: metrics.own_up_down(&rows::HTTP_SERVER_OPEN_CONNECTIONS, &[version]),
            total: metrics.own_counter(&rows::HTTP_SERVER_CONNECTIONS, &[version]),
            requests: metrics.own_histogram(&rows::HTTP_SERVER_REQUESTS_PER_CONNECTION, &[version]),
        }
    }

    pub(crate) fn accept(&self) -> Connection {
        self.total.inc();
        Connection {
            inner: Arc::new(Inner {
                _open: self.open.hold(),
                histogram: self.requests.clone(),
                requests: AtomicU64::new(0),
            }),
        }
    }
}

/// An open client connection; clones speak of the same one, and the last drop closes it.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    _open: Held,
    histogram: Histogram,
    requests: AtomicU64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.inner.requests.load(Ordering::Relaxed);
        f.debug_struct("Connection")
            .field("requests", &requests)
            .finish()
    }
}

impl Connection {
    /// Counts a request that came over this connection.
    pub fn request(&self) {
        self.inner.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.histogram
            .record_value(self.requests.load(Ordering::Relaxed));
    }
}
