//! The records that are kept until they are sent, and memory for new ones.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::open::{OpenTrace, Spans};
use crate::store::scopes::{SHARDS, shard};
use crate::store::sync::lock;

/// Records of one shard that are kept.
pub(crate) const RECORDS: usize = 2_048;
/// Bytes of one shard's records: 32 MiB in all, as much as the queue behind it holds.
pub(crate) const BYTES: usize = 2 << 20;
/// Records of one shard whose memory waits for the next request.
const FREE: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    shards: [Mutex<Shard>; SHARDS],
    /// Whether a shard is half full, or nothing more will come.
    filling: Mutex<bool>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Shard {
    free: Vec<Arc<OpenTrace>>,
    kept: VecDeque<Arc<OpenTrace>>,
    bytes: usize,
}

impl Ring {
    /// Memory of a request that is over, or new one.
    pub(crate) fn free(&self) -> Arc<OpenTrace> {
        let free = self.own().and_then(|shard| lock(shard).free.pop());
        free.unwrap_or_default()
    }

    /// Takes the memory of a request that is over.
    pub(crate) fn give_back(&self, trace: Arc<OpenTrace>) {
        if let Some(shard) = self.own() {
            lock(shard).give_back(trace);
        }
    }

    /// Keeps a record until it is sent.
    ///
    /// # Errors
    /// The spans that are lost, if there is no place.
    pub(crate) fn keep(&self, trace: Arc<OpenTrace>) -> Result<(), u64> {
        let (spans, bytes) = trace.size();
        let mut held = lock(self.own().ok_or(spans)?);
        let after = held.bytes + bytes;
        if held.kept.len() >= RECORDS || after > BYTES {
            held.give_back(trace);
            return Err(spans);
        }
        held.kept.push_back(trace);
        let half = held.kept.len() == RECORDS / 2 || (held.bytes < BYTES / 2 && after >= BYTES / 2);
        held.bytes = after;
        drop(held);
        if half {
            self.wake();
        }
        Ok(())
    }

    pub(crate) fn wake(&self) {
        *lock(&self.filling) = true;
        self.filled.notify_all();
    }

    /// Takes all that is kept, and gives the memory back.
    pub(crate) fn drain(&self, mut each: impl FnMut(&OpenTrace, &Spans)) {
        let mut buffer = Vec::new();
        for shard in &self.shards {
            let mut kept = {
                let mut shard = lock(shard);
                shard.bytes = 0;
                std::mem::take(&mut shard.kept)
            };
            for trace in &kept {
                let Some(spans) = trace.take(buffer) else {
                    buffer = Vec::new();
                    continue;
                };
                each(trace, &spans);
                buffer = spans.children;
                buffer.clear();
            }
            let mut shard = lock(shard);
            for trace in kept.drain(..) {
                shard.give_back(trace);
            }
            // Its memory for what comes, unless something has come already.
            if shard.kept.is_empty() {
                shard.kept = kept;
            }
        }
    }

    /// Waits until a shard is half full.
    pub(crate) fn wait(&self, longest: Duration) {
        let filling = lock(&self.filling);
        let waited = self
            .filled
            .wait_timeout_while(filling, longest, |filling| !*filling);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    fn own(&self) -> Option<&Mutex<Shard>> {
        self.shards.get(shard())
    }
}

impl Shard {
    fn give_back(&mut self, trace: Arc<OpenTrace>) {
        if self.free.len() < FREE {
            self.free.push(trace);
        }
    }
}
