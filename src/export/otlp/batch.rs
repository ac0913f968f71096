//! Records on their way into messages, and the clock that dates them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::metrics::{unix_nanos_now, whole_nanos};

/// Bytes of records in one message.
const MESSAGE_BYTES: usize = 1 << 20;

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

impl<T> Batch<T> {
    /// Adds a record that makes a message longer by at most so many bytes.
    pub(super) fn push(&mut self, record: T, bytes: usize) {
        self.bytes += bytes;
        self.records.push(record);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BYTES
    }

    pub(super) fn take(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
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
    pub(super) fn system_time(self, at: Instant) -> SystemTime {
        let ago = whole_nanos(self.now.saturating_duration_since(at));
        let ahead = whole_nanos(at.saturating_duration_since(self.now));
        let unix_nanos = self.unix_nanos.saturating_sub(ago).saturating_add(ahead);
        UNIX_EPOCH + Duration::from_nanos(unix_nanos)
    }
}
