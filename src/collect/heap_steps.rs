//! Heap samples as they come, for benches and tests that look at the allocator alone.

use std::collections::HashMap;

use super::code::unwind::Unwinder;
use super::sys::heap::{self, Counts};
use crate::store::heap::Estimate;

/// A sampled block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampled {
    pub(crate) size: u64,
    /// Equal for equal stacks; `None` if it was lost.
    pub(crate) stack: Option<u32>,
    pub(crate) stands_for: Estimate,
    pub(crate) age_millis: u64,
    /// Labels that its thread had.
    pub(crate) labels: usize,
}

/// Stacks that were followed.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    unwinder: Unwinder,
    numbers: HashMap<Vec<u64>, u32>,
}

impl Stacks {
    /// The blocks that were allocated since the last time.
    pub(crate) fn drain(&mut self) -> Vec<Sampled> {
        let Self { unwinder, numbers } = self;
        unwinder.refresh();
        let (mut taken, mut frames) = (Vec::new(), Vec::new());
        let now = heap::now_millis();
        heap::drain(|block, head, stack| {
            unwinder.unwind(head, stack, &mut frames);
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let number = match numbers.get(&frames) {
                Some(number) => *number,
                None => *numbers.entry(frames.clone()).or_insert(next),
            };
            taken.push(Sampled {
                size: block.size,
                stack: Some(number),
                stands_for: block.estimate(),
                age_millis: now.saturating_sub(block.born_millis),
                labels: block.mark.set.labels().len(),
            });
            number
        });
        taken
    }
}

/// The sampled blocks that live.
pub(crate) fn live() -> Vec<Sampled> {
    let mut held = Vec::new();
    let now = heap::now_millis();
    heap::live(|live| {
        held.push(Sampled {
            size: live.size,
            stack: live.stack,
            stands_for: live.estimate(),
            age_millis: now.saturating_sub(live.born_millis),
            labels: live.mark.set.labels().len(),
        });
    });
    held
}

/// Samples from now on lie so far apart on average, however many a second that makes up to a limit.
pub(crate) fn set_rate(mean_bytes: u64, samples_per_second: u64) {
    heap::set_limit(samples_per_second);
    heap::set_rate(mean_bytes);
}

/// Whether the program's allocations are seen.
pub(crate) fn is_installed() -> bool {
    heap::is_installed()
}

pub(crate) fn counts() -> Counts {
    heap::counts()
}

/// The calling thread is not sampled any more.
pub(crate) fn leave_out_this_thread() {
    heap::leave_out_this_thread();
}
