//! A set of small numbers that a signal handler may change: a bit for each, side by side.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers in one word.
const WORD: usize = 64;

/// Times that one word is tried again when others change it at the same moment.
const TRIES: usize = 8;

#[derive(Debug)]
pub(super) struct Bits<W = Box<[AtomicU64]>>(W);

/// Words that hold so many numbers.
pub(super) const fn words(count: usize) -> usize {
    count.div_ceil(WORD)
}

impl Bits {
    /// A set without members; numbers below `count` have a place.
    pub(super) fn none(count: usize) -> Self {
        let zeros = std::iter::repeat_with(AtomicU64::default);
        Self(zeros.take(words(count)).collect())
    }
}

impl<W: Deref<Target = [AtomicU64]>> Bits<W> {
    /// The set whose members are the bits of these words.
    pub(super) fn of(words: W) -> Self {
        Self(words)
    }

    /// Adds a number. What was written before is seen by whoever finds it afterwards.
    #[inline]
    pub(super) fn insert(&self, number: usize) {
        if let Some(word) = self.0.get(number / WORD) {
            word.fetch_or(bit(number), Ordering::AcqRel);
        }
    }

    /// Takes a number out and says whether it was there: of several who try, one succeeds.
    #[inline]
    pub(super) fn remove(&self, number: usize) -> bool {
        let word = self.0.get(number / WORD);
        word.is_some_and(|word| word.fetch_and(!bit(number), Ordering::AcqRel) & bit(number) != 0)
    }

    /// Takes the smallest number out. No lock; gives up where others are always faster.
    #[inline]
    pub(super) fn take_first(&self) -> Option<usize> {
        self.0
            .iter()
            .zip(0..)
            .find_map(|(word, place): (_, usize)| {
                (0..TRIES).find_map(|_| {
                    let held = word.load(Ordering::Relaxed);
                    let number = first(held, place)?;
                    self.remove(number).then_some(number)
                })
            })
    }

    pub(super) fn count(&self) -> usize {
        let words = self.0.iter().map(|word| word.load(Ordering::Relaxed));
        words.map(|word| word.count_ones() as usize).sum()
    }

    /// The members, smallest first, each word as it was when it was come to.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().zip(0..).flat_map(|(word, place)| {
            let mut held = word.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let number = first(held, place)?;
                held &= held.wrapping_sub(1);
                Some(number)
            })
        })
    }
}

#[inline]
fn bit(number: usize) -> u64 {
    1 << (number % WORD)
}

/// The smallest number in a word, which is the `place`th.
#[inline]
fn first(held: u64, place: usize) -> Option<usize> {
    let number = usize::try_from(held.trailing_zeros()).ok()?;
    (held != 0).then_some(place.wrapping_mul(WORD).wrapping_add(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_smallest_first_and_once() {
        let bits = Bits::none(130);
        for number in [129, 64, 3, 63, 3] {
            bits.insert(number);
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [3, 63, 64, 129]);
        assert!(bits.remove(63) && !bits.remove(63));
        let taken: Vec<usize> = std::iter::from_fn(|| bits.take_first()).collect();
        assert_eq!(taken, [3, 64, 129]);
        bits.insert(10_000);
        assert_eq!(bits.iter().next(), None, "it has no place");
    }

    #[test]
    fn of_many_threads_each_takes_other_numbers() {
        let bits = Bits::none(1000);
        for number in 0..1000 {
            bits.insert(number);
        }
        let take = || {
            let taken = std::iter::from_fn(|| {
                bits.take_first()
                    .or_else(|| bits.iter().find(|number| bits.remove(*number)))
            });
            taken.collect::<Vec<usize>>()
        };
        let mut all: Vec<usize> = std::thread::scope(|scope| {
            let threads = [0; 4].map(|_| scope.spawn(take));
            let taken = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            taken.collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }
}
