//! Heap samples: which blocks are sampled, where they were allocated, and which of them still live.
//!
//! The host's allocations pass through [`ProfiledAllocator`]. A thread counts down to its next sampled
//! byte (`gaps`); the block that holds it is allocated so that its address says so, enters the table of
//! live blocks (`table`) and, with registers and stack bytes, the ring (`ring`), which one thread of the
//! agent drains. No path of an allocation locks, allocates for itself or unwinds.

mod allocator;
mod counts;
mod gaps;
mod rate;
mod ring;
mod state;
mod table;

use std::time::Duration;

use super::sampling::arena::Head;
use crate::store::heap::{Estimate, Fill};
use crate::store::label::Mark;

pub use allocator::ProfiledAllocator;
pub(crate) use counts::Counts;

/// Whether an allocation has passed through a [`ProfiledAllocator`] of this process.
pub(crate) fn is_installed() -> bool {
    rate::is_installed()
}

/// Mean bytes between two samples that threads take from now on, 0 while sampling is off. It may be a
/// multiple of what was asked for: see [`Counts::doubled`].
pub(crate) fn rate() -> u64 {
    state::ready().map_or_else(rate::effective, |state| {
        if state.is_alive() {
            rate::effective()
        } else {
            0
        }
    })
}

/// Sets the mean bytes between two samples; 0 turns sampling off, 1 samples every block.
///
/// The calling thread follows at once, others after at most `gaps::CHUNK` bytes. Blocks that were sampled
/// before keep the rate that they were sampled at.
pub(crate) fn set_rate(mean_bytes: u64) {
    rate::set(mean_bytes);
    gaps::follow();
}

/// Sets how many samples a second the process may take before the rate is doubled.
pub(crate) fn set_limit(samples_per_second: u64) {
    rate::set_limit(samples_per_second);
}

/// A block when it was allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    /// Bytes asked for.
    pub(crate) size: u64,
    /// Mean bytes between samples on its thread.
    pub(crate) rate: u64,
    pub(crate) mark: Mark,
    /// On the kernel's coarse monotonic clock.
    pub(crate) born_millis: u64,
}

impl Allocated {
    /// What it stands for.
    pub(crate) fn estimate(&self) -> Estimate {
        counts::estimate(self.size, self.rate)
    }
}

/// Hands every sample that waits in the ring to `take`: the block, the thread with its registers, and
/// the stack from its `sp` upwards. The number that `take` returns stays with the block while it lives.
/// Of several threads that drain at once each takes others. Returns how many there were.
pub(crate) fn drain(mut take: impl FnMut(&Allocated, &Head, &[u8]) -> u32) -> u32 {
    let mut drained = 0;
    if let Some(state) = state::ready() {
        state.ring.drain(|sample, stack| {
            let number = take(&sample.allocated(), &sample.head, stack);
            state.table.set_stack(sample.ticket, number);
            drained += 1;
        });
    }
    drained
}

/// A sampled block that lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "profiles tell blocks apart by stack")
    )]
    pub(crate) address: u64,
    /// Bytes asked for.
    pub(crate) size: u64,
    /// Mean bytes between samples on the thread that allocated it, at that time.
    pub(crate) rate: u64,
    /// Its labels; a trace is not kept.
    pub(crate) mark: Mark,
    /// On the kernel's coarse monotonic clock.
    pub(crate) born_millis: u64,
    /// What `drain` was told; `None` if the stack was lost or is still in the ring.
    pub(crate) stack: Option<u32>,
}

impl Live {
    /// What it stands for.
    pub(crate) fn estimate(&self) -> Estimate {
        counts::estimate(self.size, self.rate)
    }
}

/// Hands every sampled block that lives to `visit`, in no order. Blocks that come or go meanwhile may or
/// may not be among them; each that is seen is whole.
pub(crate) fn live(mut visit: impl FnMut(&Live)) {
    if let Some(state) = state::ready() {
        state.table.walk(&mut visit);
    }
}

/// Sampled blocks that live, and how many may.
pub(crate) fn fill() -> Fill {
    let held = state::ready().map_or(0, |state| state.table.held());
    Fill {
        used: held as u64,
        limit: table::ENTRIES as u64,
    }
}

/// Memory of the table of live blocks: 0 before the first, then 256 KiB, twice that and more with each level
/// of blocks that is full.
pub(crate) fn table_bytes() -> u64 {
    state::ready().map_or(0, |state| state.table.bytes() as u64)
}

/// What became of samples since the start of the process.
pub(crate) fn counts() -> Counts {
    counts::now()
}

/// How often there was news: half of the ring was full, or somebody called [`wake`]. To be read before one
/// looks, for [`wait`].
pub(crate) fn news() -> u32 {
    ring::news()
}

/// Waits until there is more news than was `seen`, but not for longer than `at_most`.
pub(crate) fn wait(seen: u32, at_most: Duration) {
    ring::wait(seen, at_most);
}

/// Ends the waiting of every thread that drains.
pub(crate) fn wake() {
    ring::wake();
}

/// The calling thread's allocations are not sampled from now on. What it frees is.
pub(crate) fn leave_out_this_thread() {
    gaps::leave_out();
}

/// Now on the clock of `born_millis`.
pub(crate) fn now_millis() -> u64 {
    rate::now_millis()
}

#[cfg(test)]
pub(in crate::collect) mod tests;
