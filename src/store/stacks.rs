//! Interned stacks of raw addresses and names of threads, bounded in number and bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::profile::OVERFLOW_NAME;

/// The frame that stands for the callers of a stack that was too deep.
pub(crate) const TRUNCATED: u64 = u64::MAX - 1;
/// What [`TRUNCATED`] is called.
pub(crate) const TRUNCATED_NAME: &str = "[truncated]";
/// The only frame of the stack that stands for all that found no place.
pub(crate) const OVERFLOW: u64 = u64::MAX - 2;

/// The only frame of the stack that stands for stacks that could not be kept when they were taken.
pub(crate) const LOST: u64 = u64::MAX - 3;
/// What [`LOST`] is called.
pub(crate) const LOST_NAME: &str = "[stack lost]";

/// The name of a frame that stands for no code.
pub(crate) fn mark_name(address: u64) -> Option<&'static str> {
    match address {
        TRUNCATED => Some(TRUNCATED_NAME),
        OVERFLOW => Some(OVERFLOW_NAME),
        LOST => Some(LOST_NAME),
        _ => None,
    }
}

/// Things that are held once and meant by a small number; 0 means `[overflow]`.
#[derive(Debug)]
pub(crate) struct Interned<T: ?Sized> {
    ids: HashMap<Arc<T>, u32>,
    held: Vec<Arc<T>>,
    size: fn(&T) -> usize,
    bytes: usize,
    limits: Limits,
    overflow: Arc<T>,
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

/// The number of what found no place.
pub(crate) const OVERFLOWED: u32 = 0;

/// Bytes of an entry beside its content: two pointers, two counts, a place in the table.
const ENTRY_BYTES: usize = 64;

pub(crate) fn stacks(limits: Limits) -> Interned<[u64]> {
    Interned::new(limits, Arc::new([OVERFLOW]), size_of_val)
}

pub(crate) fn names(limits: Limits) -> Interned<str> {
    Interned::new(limits, OVERFLOW_NAME.into(), str::len)
}

impl<T: ?Sized + Eq + std::hash::Hash> Interned<T>
where
    for<'a> Arc<T>: From<&'a T>,
{
    fn new(limits: Limits, overflow: Arc<T>, size: fn(&T) -> usize) -> Self {
        Self {
            ids: HashMap::new(),
            held: Vec::new(),
            size,
            bytes: 0,
            limits,
            overflow,
        }
    }

    /// The number of a thing, [`OVERFLOWED`] if there is no place for it.
    pub(crate) fn intern(&mut self, thing: &T) -> u32 {
        if let Some(id) = self.ids.get(thing) {
            return *id;
        }
        let bytes = (self.size)(thing) + ENTRY_BYTES;
        let full = self.held.len() >= self.limits.count || self.bytes + bytes > self.limits.bytes;
        let Some(id) = u32::try_from(self.held.len() + 1).ok().filter(|_| !full) else {
            return OVERFLOWED;
        };
        let thing: Arc<T> = thing.into();
        self.held.push(Arc::clone(&thing));
        self.ids.insert(thing, id);
        self.bytes += bytes;
        id
    }

    /// What a number means.
    pub(crate) fn get(&self, id: u32) -> &Arc<T> {
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        place
            .and_then(|place| self.held.get(place))
            .unwrap_or(&self.overflow)
    }

    /// Drops what is not in use and says the new number for each old one.
    pub(crate) fn compact(&mut self, used: impl Fn(u32) -> bool) -> HashMap<u32, u32> {
        let old = std::mem::take(&mut self.held);
        self.ids = HashMap::new();
        self.bytes = 0;
        let mut moved = HashMap::from([(OVERFLOWED, OVERFLOWED)]);
        for (thing, id) in old.into_iter().zip(1..) {
            if used(id) {
                moved.insert(id, self.intern(&thing));
            }
        }
        moved
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes held, with the tables around the content.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_have_one_number_and_give_their_addresses_back() {
        let mut stacks = stacks(Limits {
            count: 8,
            bytes: 4096,
        });
        let first = stacks.intern(&[1, 2, 3]);
        assert_ne!(first, stacks.intern(&[1, 2]));
        assert_eq!(first, stacks.intern(&[1, 2, 3]));
        assert_eq!(**stacks.get(first), [1, 2, 3]);
    }

    #[test]
    fn past_either_limit_stacks_fold_into_the_overflow() {
        let mut few = stacks(Limits {
            count: 2,
            bytes: 1 << 20,
        });
        let mut small = stacks(Limits {
            count: 1 << 20,
            bytes: 2 * (ENTRY_BYTES + 8),
        });
        for held in [&mut few, &mut small] {
            assert_ne!(held.intern(&[1]), OVERFLOWED);
            assert_ne!(held.intern(&[2]), OVERFLOWED);
            assert_eq!(held.intern(&[3]), OVERFLOWED);
            assert_eq!(**held.get(OVERFLOWED), [OVERFLOW]);
            assert_ne!(held.intern(&[2]), OVERFLOWED, "what is held stays found");
        }
    }

    #[test]
    fn compacting_frees_the_place_of_what_is_unused() {
        let mut names = names(Limits {
            count: 2,
            bytes: 4096,
        });
        let (old, kept) = (names.intern("old"), names.intern("kept"));
        assert_eq!(names.intern("new"), OVERFLOWED);
        let moved = names.compact(|id| id == kept);
        assert!(!moved.contains_key(&old));
        let kept = moved.get(&kept).copied().unwrap();
        assert_eq!(&**names.get(kept), "kept");
        assert_ne!(names.intern("new"), OVERFLOWED);
    }
}
