//! Heap samples one by one, without the profiles made of them.

use crate::collect::heap_steps::{self, Sampled, Stacks};

/// A sampled block.
#[derive(Debug, Clone, Copy)]
pub struct HeapBlock {
    /// Bytes asked for.
    pub size: u64,
    /// Equal for equal stacks; absent if it was lost.
    pub stack: Option<u32>,
    /// Blocks that it stands for.
    pub objects: f64,
    /// Bytes that it stands for.
    pub bytes: f64,
    /// Since its allocation, exact to a few.
    pub age_millis: u64,
    /// Labels that its thread had.
    pub labels: usize,
}

impl HeapBlock {
    fn new(sampled: Sampled) -> Self {
        Self {
            size: sampled.size,
            stack: sampled.stack,
            objects: sampled.stands_for.objects,
            bytes: sampled.stands_for.bytes,
            age_millis: sampled.age_millis,
            labels: sampled.labels,
        }
    }
}

/// What became of samples.
#[derive(Debug, Clone, Copy)]
pub struct HeapCounts {
    /// Blocks in the table, and those that left it.
    pub sampled: u64,
    /// See above.
    pub freed: u64,
    /// Among the sampled: without a stack. What they stand for.
    pub stacks_lost: u64,
    /// See above.
    pub stack_lost_objects: f64,
    /// See above.
    pub stack_lost_bytes: f64,
    /// Chosen, but not in the table.
    pub blocks_lost: u64,
    /// The rate was doubled so many times.
    pub doubled: u32,
}

/// Whether the program's allocations are seen.
pub fn heap_is_installed() -> bool {
    heap_steps::is_installed()
}

/// Counts since the start of the process.
pub fn heap_counts() -> HeapCounts {
    let counts = heap_steps::counts();
    HeapCounts {
        sampled: counts.sampled,
        freed: counts.freed,
        stacks_lost: counts.stacks_lost,
        stack_lost_objects: counts.stack_lost.objects,
        stack_lost_bytes: counts.stack_lost.bytes,
        blocks_lost: counts.blocks_lost,
        doubled: counts.doubled,
    }
}

/// Mean bytes between samples, and samples in a second above which they are doubled.
pub fn set_heap_rate(mean_bytes: u64, samples_per_second: u64) {
    heap_steps::set_rate(mean_bytes, samples_per_second);
}

/// Stacks that were followed.
#[derive(Debug, Default)]
pub struct HeapStacks(Stacks);

impl HeapStacks {
    /// The blocks that were allocated since the last time.
    pub fn drain(&mut self) -> Vec<HeapBlock> {
        self.0.drain().into_iter().map(HeapBlock::new).collect()
    }
}

/// The sampled blocks that live.
pub fn heap_live() -> Vec<HeapBlock> {
    heap_steps::live().into_iter().map(HeapBlock::new).collect()
}

/// The calling thread is not sampled any more.
pub fn leave_out_this_thread() {
    heap_steps::leave_out_this_thread();
}
