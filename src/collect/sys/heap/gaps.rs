//! Which blocks are sampled: each thread counts its bytes down to the next one.
//!
//! Distances between sampled bytes are exponential, so a block of s bytes holds one with the chance
//! 1 - e^(-s / mean), whatever came before it, and several in one block are one sample. A thread's state
//! is a const thread-local without a destructor: it needs no construction, no allocation, and works
//! while and after the thread's other thread-locals are torn down.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{rate, state};

/// Bytes after which a thread looks whether the rate has changed.
pub(super) const CHUNK: i64 = 64 * 1024;

struct Local {
    /// Bytes that may be allocated before the next look.
    left: Cell<i64>,
    /// Bytes from that look to the next sampled one.
    beyond: Cell<i64>,
    /// Mean distance that `left` and `beyond` were drawn with, 0 while off.
    rate: Cell<u64>,
    /// The generator's state, 0 before the thread's first look.
    random: Cell<u64>,
    /// An allocation of this thread is being sampled, or the thread is left out.
    busy: Cell<bool>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            left: Cell::new(0),
            beyond: Cell::new(0),
            rate: Cell::new(0),
            random: Cell::new(0),
            busy: Cell::new(false),
        }
    };
}

/// Counts an allocation; says whether it needs a look by [`choose`].
#[inline(always)]
pub(super) fn count(size: usize) -> bool {
    LOCAL.with(|local| {
        // A layout's size fits.
        let left = local.left.get().wrapping_sub(size.cast_signed() as i64);
        local.left.set(left);
        left < 0
    })
}

/// A block that is to be sampled, at this mean distance. While it is held, the thread samples nothing
/// else.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) rate: u64,
}

impl Drop for Chosen {
    fn drop(&mut self) {
        LOCAL.with(|local| local.busy.set(false));
    }
}

/// Whether the allocation that [`count`] counted just now is to be sampled.
#[cold]
#[inline(never)]
pub(super) fn choose() -> Option<Chosen> {
    LOCAL.with(|local| {
        let (taken, now) = (local.left.get(), rate_now());
        if local.random.get() == 0 {
            rate::install();
            local.random.set(seed(local));
            local.draw(now);
            local.take(local.left.get().saturating_add(taken));
        } else {
            local.take(taken);
        }
        let reached = local.left.get() < 0;
        let rate = local.rate.get();
        if reached || rate != now {
            local.draw(now);
        }
        // In a forked child nothing may be: the ring is not mapped there.
        let chosen = reached && rate != 0 && now != 0 && !local.busy.replace(true);
        // Made only then: one that is dropped unused would end what it did not begin.
        chosen.then(|| Chosen { rate })
    })
}

impl Local {
    /// Makes `left` whole again after it went below 0; it stays below if the sampled byte was passed.
    fn take(&self, left: i64) {
        let all = self.beyond.get().saturating_add(left);
        self.split(all);
    }

    fn split(&self, all: i64) {
        let left = all.min(CHUNK);
        self.left.set(left);
        self.beyond.set(all.saturating_sub(left));
    }

    /// Draws the distance to the next sampled byte.
    fn draw(&self, rate: u64) {
        self.rate.set(rate);
        self.split(match rate {
            0 => i64::MAX,
            1 => 0,
            _ => {
                // In (0, 1]: 53 bits are what a float holds.
                let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                distance(-uniform.ln() * rate as f64)
            }
        });
    }

    /// splitmix64.
    fn next(&self) -> u64 {
        let state = self.random.get().wrapping_add(STEP);
        // 0 is the state of a thread that has none.
        self.random.set(if state == 0 { STEP } else { state });
        mix(state)
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whole bytes: at most 37 times the rate's 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "floats saturate")]
fn distance(bytes: f64) -> i64 {
    bytes as i64
}

/// Other for each thread and each process.
fn seed(local: &Local) -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    let thread = THREADS.fetch_add(STEP, Ordering::Relaxed);
    mix(thread ^ rate::now_millis().rotate_left(32) ^ std::ptr::from_ref(local) as u64) | 1
}

/// What threads are to sample at: nothing in a forked child.
fn rate_now() -> u64 {
    match state::ready() {
        Some(state) if !state.is_alive() => 0,
        _ => rate::effective(),
    }
}

/// Takes on the current rate at once.
pub(super) fn follow() {
    LOCAL.with(|local| {
        if local.random.get() != 0 {
            local.draw(rate_now());
        }
    });
}

/// Samples nothing on this thread any more.
pub(super) fn leave_out() {
    LOCAL.with(|local| local.busy.set(true));
}
