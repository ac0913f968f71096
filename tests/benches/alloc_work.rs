//! What allocators are put to, the same for each: shared by the bench and by the program that holds
//! jemalloc with its own profiling.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

/// Kinds of work.
pub const ROWS: [&str; 3] = ["64 B", "16 B to 1 KiB", "ring of 4096 live"];

/// Pairs of allocation and release in a round.
pub const PAIRS: usize = 1 << 18;

/// Blocks that live at once in the last row.
const RING: usize = 4096;

/// As the compiler's own way to the global allocator: calls that are not inlined, sizes that are not
/// known.
#[inline(never)]
pub fn allocate<A: GlobalAlloc>(allocator: &A, size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, 8).unwrap();
    // SAFETY: no size here is zero.
    let block = unsafe { allocator.alloc(layout) };
    // SAFETY: at least one byte.
    unsafe { block.write(1) };
    block
}

#[inline(never)]
fn release<A: GlobalAlloc>(allocator: &A, block: *mut u8, size: usize) {
    let layout = Layout::from_size_align(size, 8).unwrap();
    // SAFETY: every block comes back once, with its size.
    unsafe { allocator.dealloc(block, layout) };
}

/// Sizes with all magnitudes alike, by a fixed generator.
#[derive(Debug)]
pub struct Work {
    sizes: Vec<usize>,
}

/// From 16 B up to this, without end.
pub fn sizes(largest: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let span = largest as f64 / 16.0;
    std::iter::repeat_with(move || (16.0 * span.powf(random())) as usize)
}

impl Default for Work {
    fn default() -> Self {
        Self {
            sizes: sizes(1 << 10).take(RING).collect(),
        }
    }
}

impl Work {
    /// One round of a row.
    pub fn run<A: GlobalAlloc>(&self, row: usize, allocator: &A, pairs: usize) {
        match row {
            0 => {
                for _ in 0..pairs {
                    release(allocator, black_box(allocate(allocator, 64)), 64);
                }
            }
            1 => {
                for size in self.sizes.iter().cycle().take(pairs) {
                    release(allocator, black_box(allocate(allocator, *size)), *size);
                }
            }
            _ => {
                let mut ring = vec![(std::ptr::null_mut::<u8>(), 0_usize); RING];
                // One size further on in each turn, so that a place does not get back what it had.
                for (turn, place) in (0..pairs).map(|pair| (pair / RING, pair % RING)) {
                    let (block, size) = ring[place];
                    if !block.is_null() {
                        release(allocator, block, size);
                    }
                    let size = self.sizes[(place + turn) % RING];
                    ring[place] = (black_box(allocate(allocator, size)), size);
                }
                for (block, size) in ring {
                    release(allocator, block, size);
                }
            }
        }
    }
}
