//! Whose work a thread does right now: interned label sets, and the cell that names the running one.
//!
//! The table is the process's, as the cell is the thread's: a sample is taken for all agents of a
//! process. Sets are never removed, so a number stays true for as long as a sample that holds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, LazyLock, RwLock};

use super::metrics::{halves, whole};
use super::profile::{Label, OVERFLOW_NAME};
use super::sync::{read, write};
use crate::config;

/// The label that names the request's route template.
pub(crate) const ROUTE: &str = "http_route";
/// The label that names the request's method.
pub(crate) const METHOD: &str = "http_request_method";

/// The number of a set of labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct LabelSet(u32);

/// Labels in the order of their keys.
pub(crate) type Labels = Arc<[Label]>;

impl LabelSet {
    /// No label at all.
    pub(crate) const NONE: Self = Self(0);
    /// Stands for sets that found no place.
    const OVERFLOW: Self = Self(1);

    /// This set with one more label, or with another value for a key that it has.
    ///
    /// The set stays as it is, without the label, once it has as many labels as one may have.
    pub(crate) fn with(self, key: &'static str, value: &str) -> Self {
        let value = cut(value);
        let present = self.labels();
        let place = present.binary_search_by(|label| label.key.cmp(key));
        let mut labels = present.to_vec();
        let label = Label {
            key,
            value: value.into(),
        };
        match place {
            Ok(place) => match labels.get_mut(place) {
                Some(old) if *old.value == *value => return self,
                Some(old) => *old = label,
                None => return self,
            },
            Err(_) if labels.len() >= config::LABELS => return self,
            Err(place) => labels.insert(place, label),
        }
        TABLE.intern(&labels)
    }

    /// The labels of this set.
    pub(crate) fn labels(self) -> Labels {
        TABLE.get(self)
    }

    /// The value under a key.
    pub(crate) fn value(self, key: &str) -> Option<Arc<str>> {
        let labels = self.labels();
        let mut labels = labels.iter();
        labels
            .find(|label| label.key == key)
            .map(|label| Arc::clone(&label.value))
    }
}

/// For memory that holds nothing but numbers.
impl From<LabelSet> for u32 {
    fn from(set: LabelSet) -> Self {
        set.0
    }
}

/// The set that gave this number; any other number stands for no labels.
impl From<u32> for LabelSet {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

/// As much of a value as is kept, cut between characters.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(config::LABEL_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default()
}

#[derive(Debug)]
struct Table {
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    numbers: HashMap<Labels, LabelSet>,
    held: Vec<Labels>,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

impl Table {
    fn new() -> Self {
        let overflow = Label {
            key: ROUTE,
            value: OVERFLOW_NAME.into(),
        };
        let inner = Inner {
            numbers: HashMap::new(),
            held: vec![Arc::new([]), Arc::new([overflow])],
        };
        Self {
            inner: RwLock::new(inner),
        }
    }

    fn intern(&self, labels: &[Label]) -> LabelSet {
        if let Some(set) = read(&self.inner).numbers.get(labels) {
            return *set;
        }
        let mut inner = write(&self.inner);
        if let Some(set) = inner.numbers.get(labels) {
            return *set;
        }
        let number = u32::try_from(inner.held.len()).ok();
        let free = inner.held.len() < config::LABEL_SETS;
        let Some(number) = number.filter(|_| free) else {
            return LabelSet::OVERFLOW;
        };
        let (set, labels): (_, Labels) = (LabelSet(number), labels.into());
        inner.held.push(Arc::clone(&labels));
        inner.numbers.insert(labels, set);
        set
    }

    fn get(&self, set: LabelSet) -> Labels {
        let inner = read(&self.inner);
        let place = usize::try_from(set.0).unwrap_or(usize::MAX);
        let labels = inner.held.get(place);
        labels.map_or_else(|| Arc::new([]), Arc::clone)
    }
}

/// Whose work it is: the label set and, for a request that is traced, where its trace is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) set: LabelSet,
    /// All zero: not traced.
    pub(crate) trace: Trace,
}

/// The ids of W3C trace context, as the bytes of its header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trace {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
}

impl Mark {
    /// Nobody's.
    pub(crate) const NONE: Self = Self {
        set: LabelSet::NONE,
        trace: Trace {
            trace_id: 0,
            span_id: 0,
        },
    };
}

/// The running work of one thread; written by the thread itself, read by a signal handler on it.
struct Cell {
    /// False while the rest is being written.
    valid: AtomicBool,
    set: AtomicU32,
    trace: [AtomicU64; 2],
    span: AtomicU64,
}

thread_local! {
    // Const and without a destructor: reading it builds nothing, so a signal handler may.
    static CELL: Cell = const {
        Cell {
            valid: AtomicBool::new(true),
            set: AtomicU32::new(0),
            trace: [AtomicU64::new(0), AtomicU64::new(0)],
            span: AtomicU64::new(0),
        }
    };
}

impl Cell {
    #[inline]
    fn get(&self) -> Mark {
        let [high, low] = &self.trace;
        let (high, low) = (high.load(Ordering::Relaxed), low.load(Ordering::Relaxed));
        Mark {
            set: LabelSet(self.set.load(Ordering::Relaxed)),
            trace: Trace {
                trace_id: whole([high, low]),
                span_id: self.span.load(Ordering::Relaxed),
            },
        }
    }

    #[inline]
    fn set(&self, mark: Mark) {
        let [high, low] = &self.trace;
        let [high_half, low_half] = halves(mark.trace.trace_id);
        self.valid.store(false, Ordering::Relaxed);
        // A handler interrupts between two instructions of this very thread: order for the compiler
        // is order enough.
        compiler_fence(Ordering::SeqCst);
        self.set.store(mark.set.0, Ordering::Relaxed);
        high.store(high_half, Ordering::Relaxed);
        low.store(low_half, Ordering::Relaxed);
        self.span.store(mark.trace.span_id, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.valid.store(true, Ordering::Relaxed);
    }
}

/// The mark of the running thread.
#[inline]
pub(crate) fn current() -> Mark {
    CELL.with(Cell::get)
}

/// Makes a mark the running thread's and returns the one before.
#[inline]
pub(crate) fn replace(mark: Mark) -> Mark {
    CELL.with(|cell| {
        let before = cell.get();
        // Half of all polls change nothing: an unlabelled task on an unlabelled worker.
        if before != mark {
            cell.set(mark);
        }
        before
    })
}

/// The mark of the interrupted thread, for its signal handler: nobody's while it is being changed.
///
/// No lock, no allocation, no lazy construction. Not for a library that was loaded by `dlopen`: there
/// a thread's first access may allocate.
#[cfg_attr(
    not(all(
        feature = "profiling",
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    expect(dead_code, reason = "no handler in this build")
)]
#[inline]
pub(crate) fn interrupted() -> Mark {
    CELL.with(|cell| {
        if cell.valid.load(Ordering::Relaxed) {
            cell.get()
        } else {
            Mark::NONE
        }
    })
}

/// Makes a mark the thread's until dropped, however the scope ends.
#[derive(Debug)]
pub(crate) struct Marked {
    outer: Mark,
}

impl Marked {
    #[inline]
    pub(crate) fn new(mark: Mark) -> Self {
        Self {
            outer: replace(mark),
        }
    }
}

impl Drop for Marked {
    #[inline]
    fn drop(&mut self) {
        replace(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_number_whatever_the_order() {
        let one = LabelSet::NONE.with("tenant", "acme").with(ROUTE, "/a");
        let other = LabelSet::NONE.with(ROUTE, "/a").with("tenant", "acme");
        assert_eq!(one, other);
        assert_ne!(one, one.with("tenant", "other"));
        assert_eq!(one.with("tenant", "acme"), one);
        assert_eq!(one.value("tenant").as_deref(), Some("acme"));
        let keys: Vec<&str> = one.labels().iter().map(|label| label.key).collect();
        assert_eq!(keys, [ROUTE, "tenant"]);
    }

    #[test]
    fn values_are_cut_and_a_set_takes_no_more_labels_than_allowed() {
        let long = "ä".repeat(100);
        let value = LabelSet::NONE.with("k", &long).value("k").unwrap();
        assert_eq!(value.len(), 128);
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let full = keys
            .iter()
            .fold(LabelSet::NONE, |set, key| set.with(key, "1"));
        assert_eq!(full.labels().len(), config::LABELS);
        assert_ne!(full.with("a", "2"), full, "a label it has may change");
    }

    #[test]
    fn sets_beyond_the_limit_share_one_and_known_ones_stay_found() {
        let table = Table::new();
        let labels = |n: usize| {
            [Label {
                key: "n",
                value: n.to_string().into(),
            }]
        };
        let sets: Vec<LabelSet> = (0..config::LABEL_SETS + 10)
            .map(|n| table.intern(&labels(n)))
            .collect();
        assert_eq!(sets.last(), Some(&LabelSet::OVERFLOW));
        assert_eq!(table.intern(&labels(0)), sets[0]);
        assert_eq!(&*table.get(LabelSet::OVERFLOW)[0].value, OVERFLOW_NAME);
        assert!(table.get(LabelSet(u32::MAX)).is_empty());
    }

    #[test]
    fn a_mark_ends_with_its_scope_even_by_a_panic_and_is_no_other_threads() {
        let mark = Mark {
            set: LabelSet::NONE.with("tenant", "panicking"),
            trace: Trace {
                trace_id: u128::MAX - 7,
                span_id: 9,
            },
        };
        let caught = std::panic::catch_unwind(|| {
            let _marked = Marked::new(mark);
            assert_eq!(interrupted(), mark);
            let elsewhere = std::thread::spawn(current).join().unwrap();
            assert_eq!(elsewhere, Mark::NONE);
            panic!("handler bug");
        });
        assert!(caught.is_err());
        assert_eq!(current(), Mark::NONE);
    }
}
