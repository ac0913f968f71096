//! Ids of traces and spans: random, never zero, from a generator of each thread's own.
//!
//! The generator is xoshiro256++ (Blackman and Vigna, 2018). Its seed comes from the operating system by way
//! of std's `RandomState`, so that no two processes draw the same ids.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use crate::store::metrics::whole;

thread_local! {
    static STATE: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
}

/// The id of a new trace.
pub(crate) fn trace_id() -> u128 {
    whole([next(), span_id()])
}

/// The id of a new span.
pub(crate) fn span_id() -> u64 {
    loop {
        let id = next();
        if id != 0 {
            return id;
        }
    }
}

fn next() -> u64 {
    let mut state = STATE.get();
    while state == [0; 4] {
        state = [0, 1, 2, 3].map(|word: u64| RandomState::new().hash_one(word));
    }
    let [a, b, c, d] = state;
    let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
    let (c, d) = (c ^ a, d ^ b);
    let (b_next, a_next) = (b ^ c, a ^ d);
    STATE.set([a_next, b_next, c ^ (b << 17), d.rotate_left(45)]);
    drawn
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first values for the state 1, 2, 3, 4, from the authors' reference implementation.
        STATE.set([1, 2, 3, 4]);
        let drawn: [u64; 3] = std::array::from_fn(|_| next());
        assert_eq!(drawn, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
        STATE.set([0; 4]);
    }

    #[test]
    fn ids_are_never_zero_and_differ_between_threads() {
        let draw = || -> Vec<u128> {
            STATE.set([0; 4]);
            (0..10_000)
                .flat_map(|_| [trace_id(), u128::from(span_id())])
                .collect()
        };
        let threads = [(); 4].map(|()| std::thread::spawn(draw));
        let ids: Vec<u128> = threads
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect();
        assert!(!ids.contains(&0));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
