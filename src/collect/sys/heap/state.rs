//! The one table and ring of the process, made by the first allocation that is sampled.
#![expect(
    unsafe_code,
    reason = "made once, without a lock, inside an allocation"
)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::ring::Ring;
use super::table::Table;
use crate::collect::sys::sampling::sampler::wiped_on_fork;

#[derive(Debug)]
pub(super) struct State {
    /// 1 in the process that made it; on a page that the kernel zeroes in a forked child.
    alive: &'static AtomicU32,
    /// In the child, too: it frees what the parent sampled.
    pub(super) table: Table,
    /// Not mapped in the child.
    pub(super) ring: Ring,
}

impl State {
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed) == 1
    }
}

const NONE: u8 = 0;
const MAKING: u8 = 1;
const READY: u8 = 2;
const REFUSED: u8 = 3;

struct Place {
    stage: AtomicU8,
    state: UnsafeCell<MaybeUninit<State>>,
}

// SAFETY: `state` is written once, by the thread that took `stage` from NONE to MAKING, and read only
// once `stage` is READY, which is stored after the write and never changed.
unsafe impl Sync for Place {}

static PLACE: Place = Place {
    stage: AtomicU8::new(NONE),
    state: UnsafeCell::new(MaybeUninit::uninit()),
};

/// What there is, if anything was sampled yet.
#[inline]
pub(super) fn ready() -> Option<&'static State> {
    if PLACE.stage.load(Ordering::Acquire) != READY {
        return None;
    }
    // SAFETY: READY, so written for good.
    let state = unsafe { &*PLACE.state.get() };
    // SAFETY: as above.
    Some(unsafe { state.assume_init_ref() })
}

/// What there is, or makes it. `None` while another thread makes it, and for good if the kernel gave no
/// memory: nobody waits here.
pub(super) fn get() -> Option<&'static State> {
    let ready = ready();
    let mine = || {
        let claim = &PLACE.stage;
        claim
            .compare_exchange(NONE, MAKING, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    };
    if ready.is_some() || !mine() {
        return ready;
    }
    let Ok(state) = make() else {
        PLACE.stage.store(REFUSED, Ordering::Relaxed);
        return None;
    };
    // SAFETY: this thread alone is at MAKING.
    unsafe { (*PLACE.state.get()).write(state) };
    PLACE.stage.store(READY, Ordering::Release);
    self::ready()
}

fn make() -> std::io::Result<State> {
    Ok(State {
        alive: wiped_on_fork()?,
        table: Table::new()?,
        ring: Ring::new()?,
    })
}
