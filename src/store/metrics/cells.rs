//! The numbers themselves: one 64-bit cell per counter, per gauge and per histogram bucket, one
//! copy of it for each recording thread.
//!
//! Only its owner writes a cell, by a relaxed load and store; readers add the copies up. A thread
//! gets its copy of a column of cells on its first write there. Past the byte cap, and for threads
//! without a place of their own, one shared copy takes atomic adds, so nothing is lost.
//!
//! A handle holds its column, so that an event follows two pointers: to the thread's copy and to
//! the cell.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use super::thread_index::{self, PLACES};
use crate::store::sync::{read, write};

/// Cells in a column: 8 KiB a copy. A full request row is 244 cells, so a thread that serves one
/// route pays for four; half would split more rows over two columns, double would waste more on
/// threads that write to few series.
pub(crate) const COLUMN_CELLS: usize = 1024;

/// Columns in all: 4 Mi cells, 32 MiB a copy.
const COLUMNS: usize = 4096;

/// One thread's copy. Aligned so that no two threads write to one cache line.
#[repr(align(64))]
struct Counts([AtomicU64; COLUMN_CELLS]);

struct Column {
    own: [OnceLock<Box<Counts>>; PLACES],
    shared: OnceLock<Box<Counts>>,
    budget: Arc<Budget>,
}

struct Budget {
    held: AtomicUsize,
    cap: usize,
}

/// All cells of the core.
pub(crate) struct Cells {
    columns: RwLock<Columns>,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Columns {
    list: Vec<Arc<Column>>,
    /// First cell that no series owns.
    next: usize,
}

/// Where a series' cells are: what a handle holds.
#[derive(Clone)]
pub(crate) struct Place {
    column: Arc<Column>,
    offset: usize,
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Cells {
    pub(crate) fn new(byte_cap: usize) -> Self {
        let budget = Budget {
            held: AtomicUsize::new(0),
            cap: byte_cap,
        };
        Self {
            columns: RwLock::default(),
            budget: Arc::new(budget),
        }
    }

    /// Reserves `len` neighbouring cells inside one column: the slot of the first in the sums, and
    /// their place. `None` when the space is used up.
    pub(crate) fn reserve(&self, len: usize) -> Option<(u32, Place)> {
        if len == 0 || len > COLUMN_CELLS {
            return None;
        }
        let mut columns = write(&self.columns);
        let mut slot = columns.next;
        let left = COLUMN_CELLS - slot % COLUMN_CELLS;
        if len > left {
            slot += left;
        }
        if slot + len > COLUMNS * COLUMN_CELLS {
            return None;
        }
        let first = u32::try_from(slot).ok()?;
        if slot / COLUMN_CELLS == columns.list.len() {
            columns.list.push(Arc::new(Column::new(&self.budget)));
            self.budget.add(size_of::<Column>());
        }
        columns.next = slot + len;
        let column = Arc::clone(columns.list.last()?);
        let offset = slot % COLUMN_CELLS;
        Some((first, Place { column, offset }))
    }

    /// A place for any row that no sum ever shows.
    pub(crate) fn sink(&self) -> Place {
        Place {
            column: Arc::new(Column::new(&self.budget)),
            offset: 0,
        }
    }

    /// Bytes held in all copies.
    pub(crate) fn bytes(&self) -> usize {
        self.budget.held.load(Ordering::Relaxed)
    }

    /// Adds the copies up; the result is indexed by slot.
    pub(crate) fn sum(&self) -> Vec<u64> {
        let (columns, cells) = {
            let columns = read(&self.columns);
            (columns.list.clone(), columns.next)
        };
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let used = thread_index::used();
        let mut sums = Vec::with_capacity(cells);
        for column in &columns {
            let start = sums.len();
            let len = (cells - start).min(COLUMN_CELLS);
            let copies = column.own.iter().take(used).chain([&column.shared]);
            let mut copies = copies
                .filter_map(OnceLock::get)
                .map(|copy| copy.0.iter().take(len));
            // The first two in one pass: most services have few threads that record, and memory
            // is what this loop waits for.
            match (copies.next(), copies.next()) {
                (Some(one), Some(two)) => {
                    let both = one.zip(two);
                    sums.extend(both.map(|(one, two)| load(one).wrapping_add(load(two))));
                }
                (Some(one), None) => sums.extend(one.map(load)),
                (None, _) => sums.resize(start + len, 0),
            }
            for copy in copies {
                for (sum, cell) in sums.iter_mut().skip(start).zip(copy) {
                    *sum = sum.wrapping_add(load(cell));
                }
            }
        }
        sums
    }
}

impl Place {
    #[inline]
    pub(crate) fn add(&self, value: u64) {
        match self.column.own() {
            Some(copy) => bump(copy, self.offset, value),
            None => self.column.add_shared(self.offset, value),
        }
    }

    /// Adds one event to the bucket `cell` and `sum` to the sum of the row.
    #[inline]
    pub(crate) fn record(&self, cell: usize, sum_cell: usize, sum: u64) {
        match self.column.own() {
            Some(copy) => {
                bump(copy, self.offset + cell, 1);
                bump(copy, self.offset + sum_cell, sum);
            }
            None => {
                self.column.add_shared(self.offset + cell, 1);
                self.column.add_shared(self.offset + sum_cell, sum);
            }
        }
    }

    /// Sets a cell that is not summed over threads.
    pub(crate) fn set(&self, bits: u64) {
        if let Some(cell) = self.column.shared().0.get(self.offset) {
            cell.store(bits, Ordering::Relaxed);
        }
    }

    /// Changes a cell that is not summed over threads; what others do meanwhile is not lost.
    pub(crate) fn update(&self, change: impl Fn(u64) -> u64) {
        if let Some(cell) = self.column.shared().0.get(self.offset) {
            cell.update(Ordering::Relaxed, Ordering::Relaxed, change);
        }
    }

    /// Reads a cell that is not summed over threads.
    pub(crate) fn get(&self) -> u64 {
        let cell = self.column.shared().0.get(self.offset);
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl Column {
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            own: [const { OnceLock::new() }; PLACES],
            shared: OnceLock::new(),
            budget: Arc::clone(budget),
        }
    }

    /// The running thread's own copy, if it has or gets one.
    #[inline]
    fn own(&self) -> Option<&Counts> {
        let held = self.own.get(thread_index::peek()).and_then(OnceLock::get);
        match held {
            Some(copy) => Some(copy),
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&self) -> Option<&Counts> {
        let place = self.own.get(thread_index::assigned())?;
        let room =
            self.budget.held.load(Ordering::Relaxed) + size_of::<Counts>() <= self.budget.cap;
        if place.get().is_none() && !room {
            return None;
        }
        Some(self.filled(place))
    }

    fn shared(&self) -> &Counts {
        self.filled(&self.shared)
    }

    #[cold]
    fn add_shared(&self, offset: usize, value: u64) {
        if let Some(cell) = self.shared().0.get(offset) {
            cell.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn filled<'a>(&self, place: &'a OnceLock<Box<Counts>>) -> &'a Counts {
        place.get_or_init(|| {
            self.budget.add(size_of::<Counts>());
            Box::new(Counts([const { AtomicU64::new(0) }; COLUMN_CELLS]))
        })
    }
}

impl Budget {
    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[inline]
fn bump(copy: &Counts, offset: usize, by: u64) {
    // Only this thread writes its copy, so a plain load and store lose nothing.
    if let Some(cell) = copy.0.get(offset) {
        let sum = cell.load(Ordering::Relaxed).wrapping_add(by);
        cell.store(sum, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_threads_equal_the_events() {
        let cells = Cells::new(usize::MAX);
        let (_, place) = cells.reserve(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..80 {
                scope.spawn(|| (0..1000).for_each(|_| place.record(1, 2, 7)));
            }
        });
        assert_eq!(cells.sum(), [0, 80_000, 560_000]);
    }

    #[test]
    fn past_the_byte_cap_the_shared_copy_counts_on() {
        let cells = Cells::new(0);
        let (_, place) = cells.reserve(1).unwrap();
        place.add(5);
        assert_eq!(cells.sum(), [5]);
        assert!(place.column.own.iter().all(|copy| copy.get().is_none()));
        assert_eq!(cells.bytes(), size_of::<Column>() + size_of::<Counts>());
    }

    #[test]
    fn a_row_never_crosses_a_column() {
        let cells = Cells::new(usize::MAX);
        cells.reserve(1000).unwrap();
        let (slot, place) = cells.reserve(100).unwrap();
        assert_eq!((slot, place.offset), (1024, 0));
        assert!(cells.reserve(COLUMN_CELLS + 1).is_none());
        place.add(3);
        assert_eq!(cells.sum()[1024], 3);
        assert_eq!(cells.sum().len(), 1124);
    }

    #[test]
    fn what_goes_to_the_sink_is_in_no_sum() {
        let cells = Cells::new(usize::MAX);
        let (_, place) = cells.reserve(1).unwrap();
        cells.sink().add(5);
        place.add(1);
        assert_eq!(cells.sum(), [1]);
    }
}
