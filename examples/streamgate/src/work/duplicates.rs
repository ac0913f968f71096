//! Which items stand in a list more than once: in one pass, and by comparing each with each.
//!
//! Guide 6.3. Breaking tests: `both_find_the_same_items`, `they_differ_on_triples_as_the_guide_wrote_them`.
//!
//! The guide's two differ: of an item that stands three times, comparing pairs reports each pair (three
//! entries), the set each one after the first (two). Which items are reported is the same.
//!
//! The set keeps the standard library's keyed hash: items come from clients, who could choose them to
//! fall into one bucket of an unkeyed one, and then this is quadratic as well.

use std::collections::HashSet;
use std::hash::Hash;

/// Each occurrence after an item's first, in order. Time and memory grow with the number of items.
pub(crate) fn duplicates<T: Eq + Hash>(items: &[T]) -> Vec<&T> {
    let mut seen = HashSet::with_capacity(items.len());
    items.iter().filter(|item| !seen.insert(*item)).collect()
}

/// One entry for each pair of equal items, by the place of the first. Time grows with the square: what
/// the fault `quadratic_duplicates` runs.
// Never inlined, so that a CPU profile names it.
#[inline(never)]
pub(crate) fn duplicates_by_pairs<T: Eq>(items: &[T]) -> Vec<&T> {
    let mut found = Vec::new();
    for (place, item) in items.iter().enumerate() {
        for other in items.iter().skip(place + 1) {
            if item == other {
                found.push(item);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_find_the_same_items(items in proptest::collection::vec(0..20_u8, 0..60)) {
            let distinct = |found: Vec<&u8>| found.into_iter().copied().collect::<BTreeSet<u8>>();
            prop_assert_eq!(distinct(duplicates(&items)), distinct(duplicates_by_pairs(&items)));
            let all: BTreeSet<&u8> = items.iter().collect();
            prop_assert_eq!(duplicates(&items).len(), items.len() - all.len());
        }
    }

    #[test]
    fn they_differ_on_triples_as_the_guide_wrote_them() {
        let triple = ["a", "a", "a"];
        assert_eq!(duplicates(&triple), [&"a"; 2]);
        assert_eq!(duplicates_by_pairs(&triple), [&"a"; 3]);
        let pair = ["b", "a", "b"];
        assert_eq!(duplicates(&pair), duplicates_by_pairs(&pair));
    }
}
