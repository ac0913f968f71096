//! Pools of buffers that the host uses again: how often that works, and what they keep.

use std::sync::Arc;

use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::metrics::{Counter, UpDown};

/// A pool of buffers of the host. Cloning is cheap.
///
/// ```
/// # use streamgate_agent::Agent;
/// # let agent = Agent::builder("shop").no_listener().start()?;
/// let buffers = agent.buffer_pool("bodies");
/// buffers.allocated(); // none was free
/// buffers.kept(4_096); // given back, for the next
/// buffers.reused(4_096);
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BufferPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reused: Counter,
    allocated: Counter,
    kept: Counter,
    discarded: Counter,
    buffers: UpDown,
    bytes: UpDown,
}

impl BufferPool {
    pub(crate) fn new(store: &Store, name: &str) -> Self {
        let metrics = &store.metrics;
        let gets = |result| metrics.own_counter(&rows::BUFFER_POOL_GETS, &[name, result]);
        let returns = |result| metrics.own_counter(&rows::BUFFER_POOL_RETURNS, &[name, result]);
        Self {
            inner: Arc::new(Inner {
                reused: gets("reused"),
                allocated: gets("allocated"),
                kept: returns("kept"),
                discarded: returns("discarded"),
                buffers: metrics.own_up_down(&rows::BUFFER_POOL_BUFFERS, &[name]),
                bytes: metrics.own_up_down(&rows::BUFFER_POOL_BYTES, &[name]),
            }),
        }
    }

    /// A kept buffer of this capacity was lent.
    pub fn reused(&self, bytes: usize) {
        self.inner.reused.inc();
        self.holds(-1, bytes);
    }

    /// A new buffer was made, as none was kept.
    pub fn allocated(&self) {
        self.inner.allocated.inc();
    }

    /// A buffer of this capacity came back and is kept.
    pub fn kept(&self, bytes: usize) {
        self.inner.kept.inc();
        self.holds(1, bytes);
    }

    /// A buffer came back and is dropped: too large, or enough are kept.
    pub fn discarded(&self) {
        self.inner.discarded.inc();
    }

    fn holds(&self, buffers: i64, bytes: usize) {
        self.inner.buffers.add(buffers);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.inner.bytes.add(bytes.saturating_mul(buffers));
    }
}
