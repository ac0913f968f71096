//! Where requests waited: exact sums by logical stack, since the start.
//!
//! A logical stack is the request's route and the names of what it had open when it waited, such as
//! `/content/{id}`, `cache get content l1`, `query SELECT content by id`. There are no addresses in it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::metrics::{unix_nanos_now, whole_nanos};
use super::profile::{OVERFLOW_NAME, to_usize};
use super::sync::{lock, read, write};

/// Logical stacks kept apart. A service of 100 routes with ten waits each has 1,000.
const STACKS: usize = 4_096;
/// Names kept apart, routes included, and their longest.
const NAMES: usize = 4_096;
const NAME_BYTES: usize = 128;
/// Frames of a stack; what is deeper counts for the last of them.
const DEPTH: usize = 12;
/// Places that are locked one at a time: with eight workers two meet seldom.
const SHARDS: usize = 16;

/// A name of a logical stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Frame(u32);

impl Frame {
    /// All names that found no place.
    const OVERFLOW: Self = Self(0);
    /// Waiting for something without a name.
    pub(crate) const OTHER: Self = Self(1);
    /// Below it is a task that works for the request beside it.
    pub(crate) const IN_REQUEST: Self = Self(2);
    /// The route of a request that has none (yet).
    pub(crate) const UNMATCHED: Self = Self(3);

    pub(super) const fn number(self) -> u32 {
        self.0
    }

    pub(super) const fn numbered(number: u32) -> Self {
        Self(number)
    }
}

/// The names of the frames above, in their order.
const FIXED: [&str; 4] = [OVERFLOW_NAME, "[other]", "[in_request]", "<unmatched>"];

/// A logical stack, outermost frame first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LogicalStack {
    frames: [Frame; DEPTH],
    depth: usize,
}

impl LogicalStack {
    pub(crate) fn of(route: Frame) -> Self {
        let mut stack = Self {
            frames: [Frame::OVERFLOW; DEPTH],
            depth: 0,
        };
        stack.push(route);
        stack
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        if let Some(place) = self.frames.get_mut(self.depth) {
            *place = frame;
            self.depth += 1;
        }
    }

    fn frames(&self) -> &[Frame] {
        self.frames.get(..self.depth).unwrap_or_default()
    }
}

/// Waits of one logical stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waits {
    pub(crate) count: u64,
    pub(crate) nanos: u64,
}

/// The sums, and the names that they are told by.
#[derive(Debug)]
pub(crate) struct Awaits {
    names: RwLock<Names>,
    shards: [Mutex<HashMap<LogicalStack, Waits>>; SHARDS],
    hasher: RandomState,
    stacks: AtomicUsize,
    folded: AtomicU64,
    started: Instant,
    started_unix_nanos: u64,
}

#[derive(Debug, Default)]
struct Names {
    frames: HashMap<Arc<str>, Frame>,
    held: Vec<Arc<str>>,
}

impl Names {
    fn of(&self, stack: &LogicalStack) -> Vec<Arc<str>> {
        let name = |frame: &Frame| self.held.get(to_usize(frame.0)).map(Arc::clone);
        stack.frames().iter().filter_map(name).collect()
    }
}

/// The sums at one moment.
#[derive(Debug, Clone)]
pub(crate) struct AwaitTable {
    /// Names, outermost first.
    pub(crate) stacks: BTreeMap<Vec<Arc<str>>, Waits>,
    /// Waits whose stack found no place.
    pub(crate) folded: u64,
    pub(crate) start_unix_nanos: u64,
    pub(crate) duration: Duration,
    at: Instant,
    at_unix_nanos: u64,
}

impl Default for Awaits {
    fn default() -> Self {
        let mut names = Names::default();
        for (place, name) in (0..).zip(FIXED) {
            let name: Arc<str> = name.into();
            names.held.push(Arc::clone(&name));
            names.frames.insert(name, Frame(place));
        }
        Self {
            names: RwLock::new(names),
            shards: Default::default(),
            hasher: RandomState::new(),
            stacks: AtomicUsize::new(0),
            folded: AtomicU64::new(0),
            started: Instant::now(),
            started_unix_nanos: unix_nanos_now(),
        }
    }
}

impl Awaits {
    /// The frame of a name. Takes a lock: frames are made once and kept.
    pub(crate) fn frame(&self, name: &str) -> Frame {
        let name = name
            .get(..name.floor_char_boundary(NAME_BYTES))
            .unwrap_or_default();
        if let Some(frame) = read(&self.names).frames.get(name) {
            return *frame;
        }
        let mut names = write(&self.names);
        if let Some(frame) = names.frames.get(name) {
            return *frame;
        }
        let place = u32::try_from(names.held.len()).ok();
        let Some(frame) = place.filter(|_| names.held.len() < NAMES).map(Frame) else {
            return Frame::OVERFLOW;
        };
        let name: Arc<str> = name.into();
        names.held.push(Arc::clone(&name));
        names.frames.insert(name, frame);
        frame
    }

    /// Adds a wait that has ended.
    ///
    /// # Cost
    /// One lock that is seldom contended, one hash of 56 bytes.
    pub(crate) fn add(&self, stack: LogicalStack, waited: Duration) {
        let hash = self.hasher.hash_one(stack);
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(place) else {
            return;
        };
        let nanos = whole_nanos(waited);
        let add = |waits: &mut Waits| {
            waits.count += 1;
            waits.nanos = waits.nanos.saturating_add(nanos);
        };
        let mut shard = lock(shard);
        if let Some(waits) = shard.get_mut(&stack) {
            return add(waits);
        }
        let free = |held| (held < STACKS).then_some(held + 1);
        let taken = self
            .stacks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        if taken.is_ok() {
            add(shard.entry(stack).or_default());
        } else {
            self.folded.fetch_add(1, Ordering::Relaxed);
            // One per shard at most, beyond the limit.
            add(shard.entry(LogicalStack::of(Frame::OVERFLOW)).or_default());
        }
    }

    /// The names of a stack's frames, outermost first.
    pub(crate) fn names(&self, stack: &LogicalStack) -> Vec<Arc<str>> {
        read(&self.names).of(stack)
    }

    /// All sums since the start.
    pub(crate) fn table(&self) -> AwaitTable {
        let mut sums: HashMap<LogicalStack, Waits> = HashMap::new();
        for shard in &self.shards {
            for (stack, waits) in lock(shard).iter() {
                let sum = sums.entry(*stack).or_default();
                sum.count += waits.count;
                sum.nanos = sum.nanos.saturating_add(waits.nanos);
            }
        }
        let names = read(&self.names);
        let named = sums.into_iter();
        let named = named.map(|(stack, waits)| (names.of(&stack), waits));
        let now = Instant::now();
        AwaitTable {
            stacks: named.collect(),
            folded: self.folded.load(Ordering::Relaxed),
            start_unix_nanos: self.started_unix_nanos,
            duration: now.duration_since(self.started),
            at: now,
            at_unix_nanos: unix_nanos_now(),
        }
    }
}

impl AwaitTable {
    /// What was added since an earlier table.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.stacks.retain(|stack, waits| {
            let before = earlier.stacks.get(stack).copied().unwrap_or_default();
            waits.count = waits.count.saturating_sub(before.count);
            waits.nanos = waits.nanos.saturating_sub(before.nanos);
            waits.count > 0
        });
        self.folded = self.folded.saturating_sub(earlier.folded);
        self.start_unix_nanos = earlier.at_unix_nanos;
        self.duration = self.at.saturating_duration_since(earlier.at);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn named(table: &AwaitTable) -> Vec<(String, Waits)> {
        let stacks = table.stacks.iter();
        stacks
            .map(|(stack, waits)| (stack.join(";"), *waits))
            .collect()
    }

    #[test]
    fn waits_add_up_by_stack_and_a_later_table_is_told_apart_from_an_earlier() {
        let awaits = Awaits::default();
        let route = awaits.frame("/a");
        assert_eq!(awaits.frame("/a"), route);
        let mut deep = LogicalStack::of(route);
        deep.push(awaits.frame("query q"));
        awaits.add(LogicalStack::of(route), MILLI);
        awaits.add(deep, MILLI);
        let before = awaits.table();
        awaits.add(deep, 2 * MILLI);
        let waits = |count, nanos| Waits { count, nanos };
        let wanted = [
            ("/a".to_owned(), waits(1, 1_000_000)),
            ("/a;query q".to_owned(), waits(2, 3_000_000)),
        ];
        assert_eq!(named(&awaits.table()), wanted);
        let since = awaits.table().since(&before);
        let wanted = [("/a;query q".to_owned(), waits(1, 2_000_000))];
        assert_eq!(named(&since), wanted);
        assert!(since.duration <= awaits.table().duration);
    }

    #[test]
    fn a_flood_of_stacks_and_names_folds_and_loses_no_wait() {
        let awaits = Awaits::default();
        for first in 0..100 {
            for second in 0..100 {
                let mut stack = LogicalStack::of(awaits.frame(&format!("/{first}")));
                stack.push(awaits.frame(&format!("{second}")));
                awaits.add(stack, MILLI);
            }
        }
        let table = awaits.table();
        assert!(table.stacks.len() <= STACKS + 1);
        let total: u64 = table.stacks.values().map(|waits| waits.count).sum();
        assert_eq!(total, 10_000);
        assert_eq!(table.folded, 10_000 - STACKS as u64);
        for name in 0..2 * NAMES {
            awaits.frame(&format!("name {name}"));
        }
        assert_eq!(awaits.frame("one more"), Frame::OVERFLOW);
        assert_eq!(awaits.frame("/7"), awaits.frame("/7"));
    }

    #[test]
    fn what_is_too_deep_counts_for_the_last_frame_that_is_kept() {
        let awaits = Awaits::default();
        let mut stack = LogicalStack::of(Frame::UNMATCHED);
        for _ in 0..100 {
            stack.push(Frame::OTHER);
        }
        awaits.add(stack, MILLI);
        let table = awaits.table();
        assert_eq!(table.stacks.keys().next().unwrap().len(), DEPTH);
    }
}
