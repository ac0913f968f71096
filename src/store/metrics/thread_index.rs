//! A small number for each recording thread, reused after the thread has ended.
//!
//! Reading it costs one load of a const thread-local. A thread past the 63rd, or one whose
//! thread-locals are already gone, has no place of its own.

use std::cell::Cell;
use std::sync::Mutex;

use crate::store::sync::lock;

/// Threads that have a place of their own at one time.
///
/// Two cores need no more than their workers; a blocking pool has up to 512 threads, and the 64th
/// thread pays 6 ns for a shared atomic add instead of 4 ns (design measurement), so more places
/// would buy little and cost a row of memory each.
pub(crate) const PLACES: usize = 63;

/// Any index from `PLACES` on is no place; these two say why.
const SHARED: usize = usize::MAX - 1;
const UNASSIGNED: usize = usize::MAX;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static LEASE: Lease = const { Lease };
}

static FREE: Mutex<Free> = Mutex::new(Free {
    returned: Vec::new(),
    next: 0,
});

struct Free {
    returned: Vec<usize>,
    next: usize,
}

/// Gives the place back when the thread ends. The next owner takes it under the same lock, so it
/// sees every cell that this thread wrote.
struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        let index = INDEX.replace(SHARED);
        if index < PLACES {
            lock(&FREE).returned.push(index);
        }
    }
}

/// The place of the running thread if it already has one; otherwise at least `PLACES`.
#[inline]
pub(crate) fn peek() -> usize {
    INDEX.get()
}

/// The place of the running thread, assigned now if it can have one; otherwise at least `PLACES`.
pub(crate) fn assigned() -> usize {
    let index = INDEX.get();
    if index == UNASSIGNED { assign() } else { index }
}

/// Places that any thread has had so far: the first so many. Whoever wrote at a place before this is
/// called is within.
pub(crate) fn used() -> usize {
    lock(&FREE).next
}

fn assign() -> usize {
    // The lease first: where thread-locals are being torn down, nobody would give the place back.
    if LEASE.try_with(|_| ()).is_err() {
        return SHARED;
    }
    let index = {
        let mut free = lock(&FREE);
        match free.returned.pop() {
            Some(index) => index,
            None if free.next < PLACES => {
                free.next += 1;
                free.next - 1
            }
            None => SHARED,
        }
    };
    INDEX.set(index);
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_index_and_a_later_thread_adopts_it() {
        let first = std::thread::spawn(|| (peek(), assigned(), peek()))
            .join()
            .unwrap();
        assert_eq!(first.0, UNASSIGNED);
        assert_eq!(first.1, first.2);
    }
}
