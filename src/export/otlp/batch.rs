//! Records on their way into messages, and the clock that dates them.

use std::time::Instant;

use crate::store::metrics::{unix_nanos_now, whole_nanos};

/// Bytes of records in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// A message to a collector, and how many records are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) items: u64,
}

/// The records of the next message.
#[derive(Debug)]
pub(super) struct Batch<T> {
    records: Vec<T>,
    bytes: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
        }
    }
}

impl<T: prost::Message> Batch<T> {
    pub(super) fn push(&mut self, record: T) {
        self.bytes += record.encoded_len();
        self.records.push(record);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BYTES
    }

    /// The message of all records, which `wrap` puts together; `None` if there are none.
    pub(super) fn message<M: prost::Message>(
        &mut self,
        wrap: impl FnOnce(Vec<T>) -> M,
    ) -> Option<Message> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        let items = records.len() as u64;
        (items > 0).then(|| Message {
            body: wrap(records).encode_to_vec(),
            items,
        })
    }
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    now: Instant,
    unix_nanos: u64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self {
            now: Instant::now(),
            unix_nanos: unix_nanos_now(),
        }
    }

    /// The wall time of a moment before or after.
    pub(super) fn unix_nanos(self, at: Instant) -> u64 {
        let ago = whole_nanos(self.now.saturating_duration_since(at));
        let ahead = whole_nanos(at.saturating_duration_since(self.now));
        self.unix_nanos.saturating_sub(ago).saturating_add(ahead)
    }
}
