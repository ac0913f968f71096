//! What became of samples.

use std::sync::atomic::{AtomicU64, Ordering};

use super::rate;
use crate::store::heap::Estimate;

/// What one block stands for that was sampled at a mean distance of `rate` bytes: the inverse of its
/// chance to be sampled, 1 - e^(-size / rate), which is right for any mix of sizes.
pub(super) fn estimate(size: u64, rate: u64) -> Estimate {
    let chance = if rate <= 1 {
        1.0
    } else {
        -(-(size as f64) / rate as f64).exp_m1()
    };
    Estimate {
        objects: 1.0 / chance,
        bytes: size as f64 / chance,
    }
}

/// Counts since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    /// Blocks that entered the table.
    pub(crate) sampled: u64,
    /// Those of them that were freed.
    pub(crate) freed: u64,
    /// Among the sampled: the ring was full, so nothing is known of their stack.
    pub(crate) stack_lost: Estimate,
    pub(crate) stacks_lost: u64,
    /// Chosen, but not sampled: the table was full, or there was no memory.
    pub(crate) lost: Estimate,
    pub(crate) blocks_lost: u64,
    /// The mean distance is this power of two times the one asked for, as samples were too many.
    pub(crate) doubled: u32,
}

/// A sum of fractions.
#[derive(Debug)]
struct Sum(AtomicU64);

impl Sum {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn add(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Such a function never says no.
        let _before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Samples that something was lost of.
#[derive(Debug)]
pub(super) struct Lost {
    blocks: AtomicU64,
    objects: Sum,
    bytes: Sum,
}

impl Lost {
    const fn new() -> Self {
        Self {
            blocks: AtomicU64::new(0),
            objects: Sum::new(),
            bytes: Sum::new(),
        }
    }

    pub(super) fn add(&self, size: u64, rate: u64) {
        let estimate = estimate(size, rate);
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.objects.add(estimate.objects);
        self.bytes.add(estimate.bytes);
    }

    fn estimate(&self) -> Estimate {
        Estimate {
            objects: self.objects.get(),
            bytes: self.bytes.get(),
        }
    }
}

pub(super) static SAMPLED: AtomicU64 = AtomicU64::new(0);
pub(super) static FREED: AtomicU64 = AtomicU64::new(0);
pub(super) static STACKS_LOST: Lost = Lost::new();
pub(super) static BLOCKS_LOST: Lost = Lost::new();

pub(super) fn now() -> Counts {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // First what is the smaller: never more freed than sampled.
    let freed = read(&FREED);
    Counts {
        freed,
        sampled: read(&SAMPLED),
        stack_lost: STACKS_LOST.estimate(),
        stacks_lost: read(&STACKS_LOST.blocks),
        lost: BLOCKS_LOST.estimate(),
        blocks_lost: read(&BLOCKS_LOST.blocks),
        doubled: rate::doubled(),
    }
}
