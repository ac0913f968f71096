//! The steps of one CPU sample, each on its own: the handler, the walk along the stack, the names.

#[path = "heap.rs"]
mod heap;

pub use heap::{
    HeapBlock, HeapCounts, HeapStacks, heap_counts, heap_is_installed, heap_live,
    leave_out_this_thread, set_heap_rate,
};

use crate::config;
use crate::error::Error;

/// Does work as one of the agent's threads does, on a thread that is named like one.
pub fn on_own_thread<T>(work: impl FnOnce() -> T) -> T {
    crate::collect::cpu::on_own_thread(work)
}

/// Stacks as the sampling handler copied them, to be followed again and again.
#[derive(Debug)]
pub struct CopiedStacks(crate::collect::cpu::steps::Copies);

/// What one stack took, in seconds, and what it was.
#[derive(Debug, Clone, Copy)]
pub struct StackCost {
    /// Following it.
    pub unwind: f64,
    /// Adding it to what was seen before.
    pub keep: f64,
    /// Frames found.
    pub frames: usize,
    /// Bytes of stack that were copied.
    pub bytes: usize,
    /// It was followed to its end.
    pub whole: bool,
}

impl CopiedStacks {
    /// Samples the process at 999 Hz for as long as `work` says that it goes on; copies are taken away
    /// after each call.
    ///
    /// # Errors
    /// Refused if the process cannot be sampled.
    pub fn take(work: impl FnMut() -> bool) -> Result<Self, Error> {
        let rate = config::SampleRate::new(999, &config::HZ_HIGH)?;
        crate::collect::cpu::steps::Copies::take(rate, work).map(Self)
    }

    /// Follows all stacks in the order in which they were taken.
    pub fn unwind(&mut self) -> Vec<StackCost> {
        let took = self.0.unwind().into_iter().map(|took| StackCost {
            unwind: took.unwind.as_secs_f64(),
            keep: took.keep.as_secs_f64(),
            frames: took.frames,
            bytes: took.bytes,
            whole: took.whole,
        });
        took.collect()
    }
}

/// Seconds that the sampling handler takes, each after `before` was run. Not on the main thread, whose
/// stack lies elsewhere.
///
/// # Errors
/// Refused if the kernel gives no memory.
pub fn handler_costs(runs: usize, before: impl FnMut()) -> Result<Vec<f64>, Error> {
    let costs = crate::collect::cpu::steps::handler(runs, before)?;
    Ok(costs.iter().map(std::time::Duration::as_secs_f64).collect())
}

/// Names for addresses of this process.
#[derive(Debug, Default)]
pub struct Names(crate::collect::cpu::steps::Names);

impl Names {
    /// Names addresses, sorted and distinct; says how many have a name and how many a line.
    pub fn find(&mut self, addresses: &[u64]) -> (usize, usize) {
        self.0.find(addresses)
    }
}
