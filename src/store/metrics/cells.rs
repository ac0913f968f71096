//! The numbers themselves: one 64-bit cell per counter, per gauge and per histogram bucket, one
//! copy of it for each recording thread.
//!
//! Only its owner writes a cell, by a relaxed load and store; readers add the copies up. A thread
//! gets its copy of a chunk of cells on its first write there. Past the byte cap, and for threads
//! without a place of their own, one shared copy takes atomic adds, so nothing is lost.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::thread_index::{self, SHARDS, SHARED};

/// Cells in a chunk: 8 KiB. A full request row is 244 cells, so a thread that serves one route
/// pays for four; half would split more rows over two chunks, double would waste more on threads
/// that write to few series.
pub(crate) const CHUNK_CELLS: usize = 1024;

/// Chunks that a shard can hold: 4 Mi cells, 32 MiB.
const CHUNKS: usize = 4096;

type Chunk = [AtomicU64; CHUNK_CELLS];

struct Shard {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
}

impl Shard {
    fn new() -> Self {
        Self {
            chunks: std::iter::repeat_with(OnceLock::new).take(CHUNKS).collect(),
        }
    }
}

pub(crate) struct Cells {
    shards: [OnceLock<Shard>; SHARDS],
    /// First cell that no series owns. Changed only by `reserve`, under the registry's lock.
    next: AtomicUsize,
    bytes: AtomicUsize,
    byte_cap: usize,
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells")
            .field("cells", &self.next.load(Ordering::Relaxed))
            .field("bytes", &self.bytes.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

fn chunk_of(slot: usize) -> (usize, usize) {
    (slot / CHUNK_CELLS, slot % CHUNK_CELLS)
}

/// What every overrun of an index falls back to; never read back.
static SINK: AtomicU64 = AtomicU64::new(0);

impl Cells {
    pub(crate) fn new(byte_cap: usize) -> Self {
        Self {
            shards: [const { OnceLock::new() }; SHARDS],
            next: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            byte_cap,
        }
    }

    /// Reserves `len` neighbouring cells inside one chunk and returns the first, or `None` when the
    /// space is used up. The caller holds the registry's lock.
    pub(crate) fn reserve(&self, len: usize) -> Option<u32> {
        if len == 0 || len > CHUNK_CELLS {
            return None;
        }
        let mut slot = self.next.load(Ordering::Relaxed);
        let (_, offset) = chunk_of(slot);
        if offset + len > CHUNK_CELLS {
            slot += CHUNK_CELLS - offset;
        }
        if slot + len > CHUNKS * CHUNK_CELLS {
            return None;
        }
        let first = u32::try_from(slot).ok()?;
        self.next.store(slot + len, Ordering::Release);
        Some(first)
    }

    /// Bytes held in all copies.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn add(&self, slot: u32, value: u64) {
        let slot = slot as usize;
        match self.owned(slot) {
            Some(row) => bump(row.first().unwrap_or(&SINK), value),
            None => {
                self.shared(slot).fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// Adds one event to the bucket `cell` and `sum` to the sum of the row that starts at `slot`.
    #[inline]
    pub(crate) fn record(&self, slot: u32, cell: usize, sum_cell: usize, sum: u64) {
        let slot = slot as usize;
        match self.owned(slot) {
            Some(row) => {
                bump(row.get(cell).unwrap_or(&SINK), 1);
                bump(row.get(sum_cell).unwrap_or(&SINK), sum);
            }
            None => {
                self.shared(slot + cell).fetch_add(1, Ordering::Relaxed);
                self.shared(slot + sum_cell)
                    .fetch_add(sum, Ordering::Relaxed);
            }
        }
    }

    /// Sets a cell that is not summed over threads.
    pub(crate) fn set(&self, slot: u32, bits: u64) {
        self.shared(slot as usize).store(bits, Ordering::Relaxed);
    }

    /// Reads a cell that is not summed over threads.
    pub(crate) fn get(&self, slot: u32) -> u64 {
        self.shared(slot as usize).load(Ordering::Relaxed)
    }

    /// Adds the copies up; the result is indexed by slot.
    pub(crate) fn sum(&self) -> Vec<u64> {
        let cells = self.next.load(Ordering::Acquire);
        let mut sums = vec![0_u64; cells];
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (sums, chunk) in sums.chunks_mut(CHUNK_CELLS).zip(&shard.chunks) {
                let Some(chunk) = chunk.get() else { continue };
                for (sum, cell) in sums.iter_mut().zip(chunk.iter()) {
                    *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
                }
            }
        }
        sums
    }

    /// The running thread's own copy from `slot` to the end of its chunk.
    #[inline]
    fn owned(&self, slot: usize) -> Option<&[AtomicU64]> {
        let index = thread_index::current();
        if index == SHARED {
            return None;
        }
        let (chunk, offset) = chunk_of(slot);
        let found = self
            .shards
            .get(index)?
            .get()
            .and_then(|shard| shard.chunks.get(chunk)?.get());
        match found {
            Some(chunk) => chunk.get(offset..),
            None => self.grow(index, chunk)?.get(offset..),
        }
    }

    #[cold]
    fn grow(&self, index: usize, chunk: usize) -> Option<&Chunk> {
        let shard = self.shards.get(index)?;
        let fresh_shard = shard.get().is_none();
        let cost = size_of::<Chunk>()
            + if fresh_shard {
                CHUNKS * size_of::<OnceLock<Box<Chunk>>>()
            } else {
                0
            };
        if index != SHARED && self.bytes.load(Ordering::Relaxed) + cost > self.byte_cap {
            return None;
        }
        let place = shard.get_or_init(Shard::new).chunks.get(chunk)?;
        let mut fresh = false;
        let chunk = place.get_or_init(|| {
            fresh = true;
            Box::new([const { AtomicU64::new(0) }; CHUNK_CELLS])
        });
        if fresh {
            self.bytes.fetch_add(cost, Ordering::Relaxed);
        }
        Some(chunk)
    }

    fn shared(&self, slot: usize) -> &AtomicU64 {
        let (chunk, offset) = chunk_of(slot);
        self.grow(SHARED, chunk)
            .and_then(|chunk| chunk.get(offset))
            .unwrap_or(&SINK)
    }
}

#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    // Only this thread writes the cell, so a plain load and store lose nothing.
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn sums_over_threads_equal_the_events() {
        let cells = Arc::new(Cells::new(usize::MAX));
        let slot = cells.reserve(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..80 {
                scope.spawn(|| (0..1000).for_each(|_| cells.record(slot, 1, 2, 7)));
            }
        });
        assert_eq!(cells.sum(), [0, 80_000, 560_000]);
    }

    #[test]
    fn past_the_byte_cap_the_shared_copy_counts_on() {
        let cells = Cells::new(0);
        let slot = cells.reserve(1).unwrap();
        cells.add(slot, 5);
        assert_eq!(cells.sum(), [5]);
        assert!(
            cells
                .shards
                .iter()
                .skip(1)
                .all(|shard| shard.get().is_none())
        );
    }

    #[test]
    fn a_row_never_crosses_a_chunk() {
        let cells = Cells::new(usize::MAX);
        cells.reserve(1000).unwrap();
        assert_eq!(cells.reserve(100), Some(1024));
        assert_eq!(cells.reserve(CHUNK_CELLS + 1), None);
    }
}
