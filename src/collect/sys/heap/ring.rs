//! Registers and stack bytes of blocks that were sampled, on their way to the thread that unwinds them.
#![expect(unsafe_code, reason = "futex, thread id, errno")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Allocated;
use super::table::{Block, Ticket};
use crate::collect::sys::sampling::arena::{Arena, HasStack, Head};
use crate::collect::sys::sampling::registers::{Registers, thread_pointer};
use crate::collect::sys::sampling::{stack_copy, timer};
use crate::config::heap::RING_SLOTS;
use crate::store::label;

/// Half of the ring, at which the draining thread is woken.
const HALF: u32 = RING_SLOTS / 2;

/// Grows with each reason to look at the ring now; what threads that drain wait on, whether or not there is
/// a ring yet.
static NEWS: AtomicU32 = AtomicU32::new(0);

/// One sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) head: Head,
    pub(super) ticket: Ticket,
    size: u64,
    rate: u64,
    born_millis: u64,
}

impl Sample {
    pub(super) fn allocated(&self) -> Allocated {
        Allocated {
            size: self.size,
            rate: self.rate,
            mark: self.head.mark,
            born_millis: self.born_millis,
        }
    }
}

impl HasStack for Sample {
    fn stack_bytes(&self) -> u32 {
        self.head.len
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    arena: Arena<Sample>,
    /// Samples that wait.
    waiting: AtomicU32,
}

impl Ring {
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            arena: Arena::new(usize::try_from(RING_SLOTS).unwrap_or(0))?,
            waiting: AtomicU32::new(0),
        })
    }

    /// Writes what this thread is doing; says whether there was a slot.
    pub(super) fn write(&self, block: Block, ticket: Ticket, registers: Registers) -> bool {
        let written = self.arena.write(|stack| Sample {
            head: Head {
                weight: 1,
                tid: own_tid(),
                pc: registers.pc,
                sp: registers.sp,
                fp: registers.fp,
                lr: registers.lr,
                len: copy(stack, registers.sp),
                name: timer::current_name(),
                mark: label::current(),
            },
            ticket,
            size: block.size,
            rate: block.rate,
            born_millis: block.born_millis,
        });
        if written && self.waiting.fetch_add(1, Ordering::Relaxed) == HALF {
            wake();
        }
        written
    }

    pub(super) fn drain(&self, mut take: impl FnMut(&Sample, &[u8])) {
        self.arena.drain(|sample, stack| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            take(sample, stack);
        });
    }
}

/// How often there was news. Read before one looks, it says to [`wait`] what has been seen.
pub(super) fn news() -> u32 {
    NEWS.load(Ordering::Acquire)
}

/// Ends the waiting of all who have not seen this.
pub(super) fn wake() {
    NEWS.fetch_add(1, Ordering::Release);
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static.
    unsafe { libc::syscall(libc::SYS_futex, NEWS.as_ptr(), wake, libc::c_int::MAX) };
}

/// Until there is more news than was `seen`, but not for longer than `at_most`.
pub(super) fn wait(seen: u32, at_most: Duration) {
    let time = libc::timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static, the time a live local. It returns at once if the word is not `seen`.
    unsafe { libc::syscall(libc::SYS_futex, NEWS.as_ptr(), wait, seen, &raw const time) };
}

fn own_tid() -> u32 {
    thread_local! {
        static TID: Cell<u32> = const { Cell::new(0) };
    }
    if TID.get() == 0 {
        TID.set(timer::current_tid());
    }
    TID.get()
}

thread_local! {
    /// Where this thread's stack is known to be readable.
    static KNOWN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Copies the stack from `sp` upwards.
///
/// What the kernel once could read between a frame of the thread and the top of its stack stays readable
/// while the thread lives: from there on it is copied directly. Another stack, as a coroutine's, is
/// always copied by the kernel, which cannot fault.
fn copy(stack: *mut u8, sp: u64) -> u32 {
    let (low, high) = KNOWN.get();
    if (low..high).contains(&sp) {
        return stack_copy::within(stack, sp, high);
    }
    let top = top(sp);
    let above = top.saturating_sub(sp);
    let copied = stack_copy::by_kernel(stack, sp, above);
    let end = sp.saturating_add(u64::from(copied));
    if high == top && (sp..=end).contains(&low) {
        KNOWN.set((sp, high));
    } else if end == top {
        KNOWN.set((sp, top));
    }
    copied
}

/// Where the stack that `sp` lies in ends, if it is the thread's own: at the thread's block or, for the
/// main thread, at what the kernel put above its first frame.
fn top(sp: u64) -> u64 {
    // SAFETY: reads what the kernel handed over when the program started.
    let first = unsafe { libc::getauxval(libc::AT_RANDOM) };
    let tops = [thread_pointer() as u64, first];
    let above = tops.into_iter().filter(|top| *top > sp);
    above.min().unwrap_or(u64::MAX)
}
