//! What became of a signal's items: at any moment created = delivered + queued + dropped.

use std::sync::Arc;

use super::PushSignal;
use crate::catalog::families;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, unix_nanos_now};

/// Why an item never arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Newer ones needed the room.
    QueueFull,
    /// The collector was away for too long.
    Expired,
    /// The collector took the message and could not use the item.
    Rejected,
    /// The collector will never take the message.
    Refused,
    /// Its file could not be read back.
    Unreadable,
    /// The agent stopped before.
    Shutdown,
}

impl Reason {
    pub(super) const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Expired,
        Self::Rejected,
        Self::Refused,
        Self::Unreadable,
        Self::Shutdown,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Items by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) delivered: u64,
    pub(super) queued: u64,
    /// In the order of [`Reason::ALL`].
    pub(super) dropped: [u64; Reason::ALL.len()],
}

impl Counts {
    pub(super) fn lost(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// The counts of one signal, and the same on the page.
pub(super) struct Books {
    store: Arc<Store>,
    signal: PushSignal,
    counts: Counts,
    created: Counter,
    delivered: Counter,
    queued: Gauge,
    bytes: Gauge,
    last_success: Gauge,
}

impl Books {
    pub(super) fn new(store: &Arc<Store>, signal: PushSignal) -> Self {
        let metrics = &store.metrics;
        let word = [signal.word()];
        let exported = [signal.exporter(), ""];
        Self {
            created: metrics.own_counter(signal.processed(), &[signal.processor()]),
            delivered: metrics.own_counter(signal.exported(), &exported),
            queued: metrics.own_gauge(&families::AGENT_QUEUE_ITEMS, &word),
            bytes: metrics.own_gauge(&families::AGENT_QUEUE_BYTES, &word),
            last_success: metrics.own_gauge(&families::AGENT_LAST_SUCCESS, &word),
            store: Arc::clone(store),
            signal,
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Items that are handed over, and wait.
    pub(super) fn created(&mut self, items: u64) {
        self.counts.created += items;
        self.counts.queued += items;
        self.created.add(items);
    }

    /// A message that the collector took, with items that it could not use.
    pub(super) fn delivered(&mut self, items: u64, rejected: u64) {
        let rejected = rejected.min(items);
        let delivered = items - rejected;
        self.counts.queued -= delivered;
        self.counts.delivered += delivered;
        self.delivered.add(delivered);
        self.last_success.set(unix_nanos_now() as f64 / 1e9);
        if rejected > 0 {
            self.dropped(rejected, Reason::Rejected);
        }
    }

    pub(super) fn dropped(&mut self, items: u64, reason: Reason) {
        self.dropped_as(items, reason, reason.word());
    }

    /// Items that will not arrive; `error_type` is what OpenTelemetry's own counter says of them.
    pub(super) fn dropped_as(&mut self, items: u64, reason: Reason, error_type: &str) {
        self.counts.queued -= items;
        if let Some(count) = self.counts.dropped.get_mut(reason as usize) {
            *count += items;
        }
        let (metrics, signal) = (&self.store.metrics, self.signal);
        let labels = [signal.word(), reason.word()];
        metrics
            .own_counter(&families::AGENT_DROPPED, &labels)
            .add(items);
        let labels = [signal.exporter(), error_type];
        metrics.own_counter(signal.exported(), &labels).add(items);
    }

    /// Shows what waits now.
    pub(super) fn show(&self, bytes: usize) {
        self.queued.set(self.counts.queued as f64);
        self.bytes.set(bytes as f64);
    }
}
