//! Log records on their way: those of kept requests go with their spans, the rest through a ring of its own.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use super::open::fields_bytes;
use crate::catalog::families;
use crate::store::metrics::{Counter, Metrics, TraceContext};
use crate::store::sync::lock;

/// Records that wait, and their bytes.
const RECORDS: usize = 16_384;
const BYTES: usize = 8 << 20;

/// How bad it is, by OpenTelemetry's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Trace = 1,
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
}

impl Severity {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Something that the host said.
#[derive(Debug, Clone)]
pub(crate) struct LogRecord {
    pub(crate) at: Instant,
    pub(crate) severity: Severity,
    pub(crate) target: &'static str,
    pub(crate) body: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Where it was said; `None` outside of requests that are traced.
    pub(crate) context: Option<TraceContext>,
}

impl LogRecord {
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.body.capacity() + fields_bytes(&self.fields)
    }
}

#[derive(Debug)]
pub(crate) struct Logs {
    ring: Mutex<Ring>,
    ring_full: Counter,
    beyond: Counter,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<LogRecord>,
    bytes: usize,
}

impl Logs {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let dropped = |reason| metrics.own_counter(&families::AGENT_DROPPED, &["logs", reason]);
        Self {
            ring: Mutex::default(),
            ring_full: dropped("ring_full"),
            beyond: dropped("children"),
        }
    }

    /// Keeps a record until it is sent, or counts it where there is no place.
    pub(crate) fn keep(&self, record: LogRecord) {
        let bytes = record.bytes();
        let mut ring = lock(&self.ring);
        if ring.records.len() < RECORDS && ring.bytes + bytes <= BYTES {
            ring.bytes += bytes;
            ring.records.push_back(record);
        } else {
            drop(ring);
            self.ring_full.inc();
        }
    }

    /// Counts records that a kept request had no place for.
    pub(super) fn count_beyond(&self, records: u32) {
        self.beyond.add(u64::from(records));
    }

    /// Takes all that is kept.
    pub(crate) fn drain(&self) -> VecDeque<LogRecord> {
        std::mem::take(&mut *lock(&self.ring)).records
    }
}
