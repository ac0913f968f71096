//! Sums of sampled blocks, and how far they may be off.

use crate::store::heap::Estimate;

/// Samples and what they stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Weighed {
    pub(super) samples: u64,
    pub(super) objects: f64,
    pub(super) bytes: f64,
    /// Estimated variance of the bytes.
    pub(super) variance: f64,
}

impl Weighed {
    /// One sampled block of `size` bytes that stands for so many blocks.
    ///
    /// A block that is sampled with probability p stands for 1/p blocks, and its bytes s add
    /// s²(1 - p)/p² to the variance of the sum (Horvitz and Thompson, 1952).
    pub(super) fn block(size: u64, objects: f64) -> Self {
        let bytes = size as f64 * objects;
        Self {
            samples: 1,
            objects,
            bytes,
            variance: bytes * bytes * (1.0 - 1.0 / objects),
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.samples += more.samples;
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.variance += more.variance;
    }

    pub(super) fn estimate(&self) -> Estimate {
        Estimate {
            objects: self.objects,
            bytes: self.bytes,
        }
    }

    /// The standard error of the bytes as a share of them.
    pub(super) fn relative_error(&self) -> f64 {
        if self.bytes > 0.0 {
            self.variance.sqrt() / self.bytes
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_sure_to_be_sampled_has_no_error() {
        let every = Weighed::block(100, 1.0);
        assert_eq!((every.bytes, every.relative_error()), (100.0, 0.0));
    }

    #[test]
    fn the_error_of_many_rare_samples_is_one_over_the_root_of_their_number() {
        let mut sum = Weighed::default();
        for _ in 0..10_000 {
            sum.add(Weighed::block(64, 8192.5));
        }
        assert!((sum.relative_error() - 0.01).abs() < 1e-4);
    }
}
