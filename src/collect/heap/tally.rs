//! What was allocated since the start, by stack and labels; and what is in use now.

use std::collections::HashMap;
use std::sync::Arc;

use super::estimate::Weighed;
use crate::config::heap as limits;
use crate::store::heap::Fill;
use crate::store::label::LabelSet;
use crate::store::stacks::{self, Interned, LOST, Limits, OVERFLOWED};

/// Sums since the start.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) stacks: Interned<[u64]>,
    pub(super) sums: HashMap<(u32, LabelSet), Weighed>,
    /// The same sums whatever the stack.
    pub(super) by_set: HashMap<LabelSet, Weighed>,
    pub(super) total: Weighed,
    pub(super) truncated: u64,
    /// Samples whose stack or sum found no place.
    pub(super) folded: u64,
    /// The number of the stack that stands for stacks that were lost.
    lost: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(Limits {
            count: limits::STACKS,
            bytes: limits::STACK_BYTES,
        })
    }
}

impl Tally {
    fn new(limits: Limits) -> Self {
        let mut stacks = stacks::stacks(limits);
        let lost = stacks.intern(&[LOST]);
        Self {
            stacks,
            sums: HashMap::new(),
            by_set: HashMap::new(),
            total: Weighed::default(),
            truncated: 0,
            folded: 0,
            lost,
        }
    }

    /// Takes a sampled block, and returns the number of its stack.
    pub(super) fn add(&mut self, stack: &[u64], set: LabelSet, weighed: Weighed) -> u32 {
        let number = self.stacks.intern(stack);
        let mut key = (number, set);
        if self.sums.len() >= limits::SUMS && !self.sums.contains_key(&key) {
            key = (OVERFLOWED, LabelSet::NONE);
        }
        if key.0 == OVERFLOWED {
            self.folded += weighed.samples;
        }
        self.sums.entry(key).or_default().add(weighed);
        self.by_set.entry(set).or_default().add(weighed);
        self.total.add(weighed);
        number
    }

    pub(super) fn stacks(&self) -> Fill {
        Fill {
            used: self.stacks.len() as u64,
            limit: limits::STACKS as u64,
        }
    }

    /// Stacks by labels.
    pub(super) fn sites(&self) -> Fill {
        Fill {
            used: self.sums.len() as u64,
            limit: limits::SUMS as u64,
        }
    }

    /// Memory of the stacks and sums.
    pub(super) fn bytes(&self) -> u64 {
        let sums = self.sums.capacity() * size_of::<((u32, LabelSet), Weighed)>();
        (self.stacks.bytes() + sums) as u64
    }
}

/// How long ago a live block was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Age {
    Minute,
    TenMinutes,
    Hour,
    Older,
}

impl Age {
    pub(super) fn of(millis: u64) -> Self {
        match millis / 60_000 {
            0 => Self::Minute,
            1..=9 => Self::TenMinutes,
            10..=59 => Self::Hour,
            _ => Self::Older,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Minute => "<1m",
            Self::TenMinutes => "1-10m",
            Self::Hour => "10-60m",
            Self::Older => ">60m",
        }
    }
}

/// The blocks in use at one moment.
#[derive(Debug, Default)]
pub(super) struct LiveSums {
    pub(super) sums: HashMap<(Option<u32>, LabelSet, Age), Weighed>,
    pub(super) total: Weighed,
}

impl LiveSums {
    /// Takes a block; without a stack it is one whose stack was lost.
    pub(super) fn add(
        &mut self,
        stack: Option<u32>,
        set: LabelSet,
        age_millis: u64,
        weighed: Weighed,
    ) {
        let mut key = (stack, set, Age::of(age_millis));
        if self.sums.len() >= limits::LIVE_SUMS && !self.sums.contains_key(&key) {
            key = (Some(OVERFLOWED), LabelSet::NONE, key.2);
        }
        self.sums.entry(key).or_default().add(weighed);
        self.total.add(weighed);
    }

    /// By labels, whatever the stack.
    pub(super) fn by_set(&self) -> HashMap<LabelSet, Weighed> {
        let mut sets: HashMap<LabelSet, Weighed> = HashMap::new();
        for ((_, set, _), sum) in &self.sums {
            sets.entry(*set).or_default().add(*sum);
        }
        sets
    }
}

/// One stack of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) stack: Arc<[u64]>,
    pub(super) set: LabelSet,
    /// Of live blocks; `None`: of what was allocated since the start.
    pub(super) age: Option<Age>,
    pub(super) weighed: Weighed,
}

/// The heap at one moment: an entry for what a stack has allocated, and one for each age of what of
/// it is in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) unix_nanos: u64,
    pub(super) rate: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) allocated: Weighed,
    pub(super) live: Weighed,
    pub(super) truncated: u64,
    pub(super) folded: u64,
    /// Allocated bytes and blocks whose stacks were lost, by cause; they are among the entries.
    pub(super) lost: Vec<(&'static str, Weighed)>,
    /// Resident memory of the process; `None`: not known.
    pub(super) resident_bytes: Option<f64>,
}

impl Snapshot {
    /// What is known of the sums, with `lost` under the stack that stands for them.
    pub(super) fn new(tally: &Tally, live: &LiveSums, lost: Vec<(&'static str, Weighed)>) -> Self {
        let allocated = tally.sums.iter().map(|((stack, set), weighed)| Entry {
            stack: Arc::clone(tally.stacks.get(*stack)),
            set: *set,
            age: None,
            weighed: *weighed,
        });
        let in_use = live.sums.iter().map(|((stack, set, age), weighed)| Entry {
            stack: Arc::clone(tally.stacks.get(stack.unwrap_or(tally.lost))),
            set: *set,
            age: Some(*age),
            weighed: *weighed,
        });
        let mut entries: Vec<Entry> = allocated.chain(in_use).collect();
        let mut total = tally.total;
        for (_, weighed) in &lost {
            total.add(*weighed);
            entries.push(Entry {
                stack: Arc::clone(tally.stacks.get(tally.lost)),
                set: LabelSet::NONE,
                age: None,
                weighed: *weighed,
            });
        }
        Self {
            entries,
            allocated: total,
            live: live.total,
            truncated: tally.truncated,
            folded: tally.folded,
            lost,
            ..Self::default()
        }
    }

    /// Keeps the heaviest entries and folds the others into one per age.
    pub(super) fn fold_to(&mut self, entries: usize) {
        if self.entries.len() <= entries {
            return;
        }
        self.entries
            .sort_unstable_by(|a, b| b.weighed.bytes.total_cmp(&a.weighed.bytes));
        let overflow: Arc<[u64]> = Arc::new([stacks::OVERFLOW]);
        let mut folded: HashMap<Option<Age>, Weighed> = HashMap::new();
        for entry in self.entries.drain(entries..) {
            folded.entry(entry.age).or_default().add(entry.weighed);
        }
        self.entries
            .extend(folded.into_iter().map(|(age, weighed)| Entry {
                stack: Arc::clone(&overflow),
                set: LabelSet::NONE,
                age,
                weighed,
            }));
    }

    /// The distinct addresses of code, sorted.
    pub(super) fn addresses(&self) -> Vec<u64> {
        addresses(self.entries.iter().map(|entry| &entry.stack))
    }
}

/// The distinct addresses of code of these stacks, sorted.
pub(super) fn addresses<'a>(stacks: impl Iterator<Item = &'a Arc<[u64]>>) -> Vec<u64> {
    let mut addresses: Vec<u64> = stacks
        .flat_map(|stack| stack.iter().copied())
        .filter(|address| stacks::mark_name(*address).is_none())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        count: 3,
        bytes: 1 << 20,
    };

    fn block(size: u64) -> Weighed {
        Weighed::block(size, 1.0)
    }

    #[test]
    fn what_finds_no_place_is_folded_and_the_totals_stay() {
        let mut tally = Tally::new(SMALL);
        let kept = tally.add(&[1], LabelSet::NONE, block(10));
        for leaf in 2..10 {
            tally.add(&[leaf], LabelSet::NONE, block(10));
        }
        assert_eq!(tally.add(&[1], LabelSet::NONE, block(10)), kept);
        assert_eq!(
            tally.folded, 7,
            "one place went to lost stacks, two to these"
        );
        let snapshot = Snapshot::new(&tally, &LiveSums::default(), Vec::new());
        let bytes: f64 = snapshot.entries.iter().map(|one| one.weighed.bytes).sum();
        assert!((bytes - 100.0).abs() < 1e-9, "{bytes}");
        assert_eq!(snapshot.allocated.samples, 10);
    }

    #[test]
    fn live_blocks_are_told_apart_by_age_and_lost_stacks_stay_in_the_total() {
        let mut tally = Tally::new(SMALL);
        let number = tally.add(&[1], LabelSet::NONE, block(100));
        let mut live = LiveSums::default();
        for age in [0, 59_999, 60_000, 599_999, 600_000, 3_600_000] {
            live.add(Some(number), LabelSet::NONE, age, block(100));
        }
        live.add(None, LabelSet::NONE, 0, block(100));
        let lost = vec![("ring full", block(100))];
        let snapshot = Snapshot::new(&tally, &live, lost);
        let mut seen: Vec<(Option<Age>, u64, u64)> = snapshot
            .entries
            .iter()
            .map(|one| (one.age, one.stack[0], one.weighed.samples))
            .collect();
        seen.sort_unstable();
        let wanted = [
            (None, 1, 1),
            (None, LOST, 1),
            (Some(Age::Minute), 1, 2),
            (Some(Age::Minute), LOST, 1),
            (Some(Age::TenMinutes), 1, 2),
            (Some(Age::Hour), 1, 1),
            (Some(Age::Older), 1, 1),
        ];
        assert_eq!(seen, wanted);
        assert_eq!((snapshot.live.samples, snapshot.allocated.samples), (7, 2));
        assert_eq!(snapshot.addresses(), [1]);
    }

    #[test]
    fn a_kept_snapshot_is_bounded_and_its_totals_stay() {
        let mut tally = Tally::default();
        let mut live = LiveSums::default();
        for leaf in 1..=100 {
            let number = tally.add(&[leaf], LabelSet::NONE, block(leaf));
            live.add(Some(number), LabelSet::NONE, 0, block(leaf));
        }
        let mut snapshot = Snapshot::new(&tally, &live, Vec::new());
        snapshot.fold_to(10);
        assert_eq!(snapshot.entries.len(), 12);
        let of = |age: Option<Age>| -> f64 {
            let entries = snapshot.entries.iter().filter(|entry| entry.age == age);
            entries.map(|entry| entry.weighed.bytes).sum()
        };
        assert!((of(None) - 5050.0).abs() < 1e-6);
        assert!((of(Some(Age::Minute)) - 5050.0).abs() < 1e-6);
    }
}
