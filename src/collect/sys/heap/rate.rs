//! How far apart samples lie on average: as asked for, or further while they are too many.
#![expect(unsafe_code, reason = "reading a clock")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::config::heap::{RATE_BYTES, SAMPLES_PER_SECOND};

static INSTALLED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicU64 = AtomicU64::new(RATE_BYTES);
static LIMIT: AtomicU64 = AtomicU64::new(SAMPLES_PER_SECOND);
static DOUBLED: AtomicU32 = AtomicU32::new(0);
/// The second that `TAKEN` counts samples of.
static SECOND: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// 2^20 times what is asked for: half a TiB at the default.
const DOUBLED_MOST: u32 = 20;

pub(super) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

pub(super) fn install() {
    INSTALLED.store(true, Ordering::Relaxed);
}

pub(super) fn set(mean_bytes: u64) {
    // An entry keeps 32 bits of it.
    let mean_bytes = mean_bytes.min(u64::from(u32::MAX));
    DOUBLED.store(0, Ordering::Relaxed);
    TAKEN.store(0, Ordering::Relaxed);
    ASKED.store(mean_bytes, Ordering::Relaxed);
}

pub(super) fn set_limit(samples_per_second: u64) {
    LIMIT.store(samples_per_second, Ordering::Relaxed);
}

pub(super) fn effective() -> u64 {
    let asked = ASKED.load(Ordering::Relaxed);
    (asked << doubled()).min(u64::from(u32::MAX))
}

pub(super) fn doubled() -> u32 {
    DOUBLED.load(Ordering::Relaxed)
}

/// Counts a sample taken at `now_millis`; `crowded` says that the table is filling up.
///
/// Doubles the distance once the second has had its samples, at once and again if need be, and halves it
/// again after a second that had few. Two threads that do so at the same moment count one sample more or
/// less.
pub(super) fn count(now_millis: u64, crowded: bool) {
    let limit = LIMIT.load(Ordering::Relaxed);
    let second = now_millis / 1000;
    let taken = if SECOND.swap(second, Ordering::Relaxed) == second {
        TAKEN.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    } else {
        let before = TAKEN.swap(1, Ordering::Relaxed);
        if crowded {
            change(1);
        } else if before < limit / 4 {
            change(-1);
        }
        1
    };
    if taken > limit {
        TAKEN.store(0, Ordering::Relaxed);
        change(1);
    }
}

fn change(by: i32) {
    let change = |doubled: u32| {
        let changed = doubled.checked_add_signed(by)?;
        (changed <= DOUBLED_MOST).then_some(changed)
    };
    // At either end it stays as it is.
    let _before = DOUBLED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

/// The kernel's coarse monotonic clock, exact to a tick: reading it is no system call.
pub(super) fn now_millis() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
