//! Samples that are known to be due of a thread although nobody saw its stack.

use super::{Key, Windows};
use crate::store::label::{LabelSet, Mark};
use crate::store::stacks::LOST;

/// Closed buckets that are looked at, newest first, for what a thread did before.
const LOOK_BACK: usize = 15;

impl Windows {
    /// Adds samples of a thread to the open bucket. They stand with the stacks of the latest bucket that
    /// holds any of a thread of that name, each by its share; if none does, their stack is a lost one.
    /// Returns whose work they are.
    pub(crate) fn add_unseen(&mut self, thread: &str, samples: u32) -> Vec<(LabelSet, u32)> {
        self.open.unseen += u64::from(samples);
        let alike = self.alike(thread);
        let whole: u64 = alike.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if whole == 0 {
            self.add(&[LOST], thread, Mark::NONE, samples);
            return vec![(LabelSet::NONE, samples)];
        }
        let share = |part: u64| u128::from(samples) * u128::from(part) / u128::from(whole);
        let mut before = 0;
        let shares = alike.into_iter().map(|(key, weight)| {
            let part = share(before + u64::from(weight)) - share(before);
            before += u64::from(weight);
            (key, u32::try_from(part).unwrap_or(u32::MAX))
        });
        let shares = shares.filter(|(_, part)| *part > 0);
        let added = shares.map(|(key, part)| {
            let sum = self.open.weights.entry(key).or_default();
            *sum = sum.saturating_add(part);
            (key.set, part)
        });
        added.collect()
    }

    /// The samples of threads of this name in the latest bucket that holds any.
    fn alike(&mut self, thread: &str) -> Vec<(Key, u32)> {
        let name = self.threads.intern(thread);
        let is_alike = |(key, _): &(Key, u32)| key.thread == name && !key.is_overflow();
        let open = self.open.weights.iter();
        let open = open.map(|(key, weight)| (*key, *weight));
        let open: Vec<(Key, u32)> = open.filter(is_alike).collect();
        let closed = self.buckets.iter().rev().take(LOOK_BACK).map(|bucket| {
            let entries = bucket.entries.iter();
            let held = entries.map(|entry| (entry.key, entry.weight));
            held.filter(is_alike).collect()
        });
        let mut of_buckets = std::iter::once(open).chain(closed);
        of_buckets.find(|held| !held.is_empty()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MANY, Seconds, windows};
    use super::*;
    use crate::store::Detail;
    use std::time::Instant;

    #[test]
    fn unseen_samples_stand_with_the_threads_latest_stacks_by_their_share() {
        let time = Seconds(Instant::now());
        let mut windows = windows(1 << 20, MANY);
        windows.add(&[1], "worker", Mark::NONE, 50);
        windows.cut(time.span(0, 100));
        windows.add(&[7], "worker", Mark::NONE, 30);
        windows.add(&[8], "worker", Mark::NONE, 10);
        windows.add(&[9], "other", Mark::NONE, 10);
        windows.cut(time.span(1, 100));
        let added = windows.add_unseen("worker", 8);
        assert_eq!(added.iter().map(|(_, samples)| samples).sum::<u32>(), 8);
        windows.add_unseen("never seen", 3);
        windows.cut(time.span(2, 100));
        let window = windows.merge(time.at(2), time.at(3), Detail::default());
        let window = window.unwrap();
        assert_eq!(window.unseen, 11);
        let stacks = window.stacks.into_iter();
        let mut held: Vec<_> = stacks
            .map(|held| (held.thread.to_string(), held.addresses[0], held.samples))
            .collect();
        held.sort();
        let expected = [("never seen", LOST, 3), ("worker", 7, 6), ("worker", 8, 2)];
        assert_eq!(held, expected.map(|(name, at, n)| (name.to_owned(), at, n)));
    }

    #[test]
    fn no_unseen_sample_is_lost_to_rounding() {
        let mut windows = windows(1 << 20, MANY);
        for stack in 0..37 {
            windows.add(
                &[stack],
                "worker",
                Mark::NONE,
                1 + u32::try_from(stack % 5).unwrap(),
            );
        }
        for samples in [1, 2, 36, 38, 1000] {
            let added = windows.add_unseen("worker", samples);
            assert_eq!(added.iter().map(|(_, part)| part).sum::<u32>(), samples);
        }
    }
}
