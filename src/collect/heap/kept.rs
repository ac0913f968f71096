//! Heaps that are kept because nobody could have asked for them in time: the largest ones, and those
//! from shortly before the process's memory ran out.

use std::collections::VecDeque;
use std::sync::Arc;

use super::tally::Snapshot;
use crate::config::heap as limits;
use crate::store::heap::{HeapMoment, KeptFor, KeptRow};

/// A heap that was kept.
#[derive(Debug, Clone)]
pub(super) struct KeptHeap {
    pub(super) kept_for: KeptFor,
    pub(super) snapshot: Arc<Snapshot>,
}

/// Newest first.
#[derive(Debug, Default)]
pub(super) struct KeptHeaps {
    heaps: VecDeque<KeptHeap>,
    /// Live bytes of the last peak.
    peak_bytes: f64,
    /// The process is near its limit, and its heap was kept for it.
    near_limit: bool,
}

impl KeptHeaps {
    /// Why the heap of this moment is to be kept, if it is: by its live bytes, and by the share of its
    /// memory limit that the process uses.
    pub(super) fn reason(&mut self, live_bytes: f64, used_ratio: Option<f64>) -> Option<KeptFor> {
        if used_ratio.is_some_and(|ratio| ratio < limits::LIMIT_LEFT_RATIO) {
            self.near_limit = false;
        }
        if !self.near_limit && used_ratio.is_some_and(|ratio| ratio >= limits::LIMIT_RATIO) {
            self.near_limit = true;
            return Some(KeptFor::Limit);
        }
        let grown = live_bytes >= self.peak_bytes * limits::PEAK_GROWTH
            && live_bytes >= self.peak_bytes + limits::PEAK_BYTES;
        grown.then(|| {
            self.peak_bytes = live_bytes;
            KeptFor::Peak
        })
    }

    /// Keeps a heap, in place of the oldest that was kept for the same reason.
    pub(super) fn keep(&mut self, kept_for: KeptFor, mut snapshot: Snapshot) {
        snapshot.fold_to(limits::KEPT_ENTRIES);
        let of_kind = |heap: &KeptHeap| heap.kept_for == kept_for;
        if self.heaps.iter().filter(|heap| of_kind(heap)).count() >= limits::KEPT
            && let Some(oldest) = self.heaps.iter().rposition(of_kind)
        {
            self.heaps.remove(oldest);
        }
        self.heaps.push_front(KeptHeap {
            kept_for,
            snapshot: Arc::new(snapshot),
        });
    }

    /// The heap of a moment that was kept.
    pub(super) fn get(&self, moment: HeapMoment) -> Option<&KeptHeap> {
        match moment {
            HeapMoment::Now => None,
            HeapMoment::Kept(kept_for) => {
                let mut heaps = self.heaps.iter();
                heaps.find(|heap| heap.kept_for == kept_for)
            }
            HeapMoment::Number(place) => self.heaps.get(place),
        }
    }

    pub(super) fn rows(&self) -> Vec<KeptRow> {
        let heaps = self.heaps.iter();
        let rows = heaps.map(|heap| KeptRow {
            kept_for: heap.kept_for,
            unix_nanos: heap.snapshot.unix_nanos,
            live: heap.snapshot.live.estimate(),
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = (1_u64 << 20) as f64;

    #[test]
    fn a_peak_is_kept_when_it_is_larger_by_a_tenth_and_64_mib() {
        let mut kept = KeptHeaps::default();
        let mut peak = |mib: f64| kept.reason(mib * MIB, None).is_some();
        assert!(!peak(63.0));
        assert!(peak(64.0));
        assert!(!peak(127.0));
        assert!(peak(1000.0));
        assert!(!peak(1090.0), "64 MiB more, but not a tenth");
        assert!(!peak(500.0));
        assert!(peak(1101.0));
    }

    #[test]
    fn near_the_limit_a_heap_is_kept_once_until_there_is_room_again() {
        let mut kept = KeptHeaps::default();
        let mut seen = |ratio| kept.reason(0.0, Some(ratio));
        let limit = Some(KeptFor::Limit);
        let wanted = [
            (0.89, None),
            (0.9, limit),
            (0.95, None),
            (0.85, None),
            (0.95, None),
            (0.79, None),
            (0.95, limit),
        ];
        for (ratio, reason) in wanted {
            assert_eq!(seen(ratio), reason, "{ratio}");
        }
    }

    #[test]
    fn two_of_each_kind_are_kept_and_the_newest_is_found_first() {
        let mut kept = KeptHeaps::default();
        let snapshot = |unix_nanos| Snapshot {
            unix_nanos,
            ..Snapshot::default()
        };
        for (at, kept_for) in [(1, KeptFor::Peak), (2, KeptFor::Limit), (3, KeptFor::Peak)] {
            kept.keep(kept_for, snapshot(at));
        }
        kept.keep(KeptFor::Peak, snapshot(4));
        let times: Vec<u64> = kept.rows().iter().map(|row| row.unix_nanos).collect();
        assert_eq!(times, [4, 3, 2]);
        let at = |moment| kept.get(moment).map(|heap| heap.snapshot.unix_nanos);
        assert_eq!(at(HeapMoment::Kept(KeptFor::Limit)), Some(2));
        assert_eq!(at(HeapMoment::Kept(KeptFor::Peak)), Some(4));
        assert_eq!(at(HeapMoment::Number(1)), Some(3));
        assert_eq!(at(HeapMoment::Number(3)), None);
    }
}
