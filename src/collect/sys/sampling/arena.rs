//! The slots that the sampling handler writes into: registers and a slice of stack each.
//!
//! One anonymous mapping, made before the first signal and never unmapped, kept out of core dumps
//! (it holds the host's stack bytes) and out of forked children.
#![expect(unsafe_code, reason = "a mapping shared with a signal handler")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;

use super::bits::{self, Bits};
use super::records::ThreadName;
use crate::store::label::Mark;

/// Bytes of stack that a sample keeps; what a stack does not use is neither copied nor touched. Frames of
/// async code take some 260 bytes in the middle (`tests/benches/sampling.rs`), but a service has some of
/// a hundred KiB: large futures on their way into a box, compressors on their way into the heap. In
/// StreamGate's demo 16 KiB cut 41 % of the samples, 64 KiB 26 %, 256 KiB none (2026-11-23).
pub(crate) const STACK_BYTES: usize = 256 * 1024;

/// Words of a slot beside its stack bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) weight: u32,
    pub(crate) tid: u32,
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    /// Link register; 0 on x86-64.
    pub(crate) lr: u64,
    /// Bytes of stack copied from `sp` upwards.
    pub(crate) len: u32,
    pub(crate) name: ThreadName,
    /// Whose work it was.
    pub(crate) mark: Mark,
}

/// What a slot holds beside stack bytes.
pub(crate) trait HasStack: Copy {
    /// Bytes of stack that were copied.
    fn stack_bytes(&self) -> u32;
}

impl HasStack for Head {
    fn stack_bytes(&self) -> u32 {
        self.len
    }
}

#[repr(C)]
struct Slot<H> {
    head: UnsafeCell<MaybeUninit<H>>,
    stack: UnsafeCell<[u8; STACK_BYTES]>,
}

// SAFETY: `head` and `stack` are written only between a claim (taking the slot's number out of
// `Arena::free`, at which one handler succeeds) and putting the number into `Arena::ready`, and read
// only by the one draining thread between taking it out of there and putting it back into `free`.
// Both sets acquire and release. So no two threads touch them at once.
unsafe impl<H: Copy + Send> Sync for Slot<H> {}

pub(crate) struct Arena<H: 'static = Head> {
    slots: &'static [Slot<H>],
    /// Slots that nobody has. The first is taken, so that few slots are in use at a low rate: they
    /// stay in the caches, and the others' memory is never touched.
    free: Numbers,
    /// Slots that hold a sample.
    ready: Numbers,
}

/// In the mapping, behind the slots.
type Numbers = Bits<&'static [AtomicU64]>;

impl<H> fmt::Debug for Arena<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<H: HasStack> Arena<H> {
    /// Maps `slots` slots for the rest of the process's life. Allocates nothing: an allocator calls it.
    ///
    /// # Errors
    /// The kernel's error if it gives no memory.
    pub(crate) fn new(slots: usize) -> std::io::Result<Self> {
        let words = bits::words(slots);
        let behind = slots * size_of::<Slot<H>>();
        let bytes = behind + 2 * words * size_of::<AtomicU64>();
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the range is the mapping made above; advice changes no contents. A kernel
            // without it leaves things as they are.
            unsafe { libc::madvise(mapped, bytes, advice) };
        }
        // SAFETY: the mapping is page-aligned, large enough for `slots` values, zeroed (a valid `Slot`:
        // integers and what is written before it is read), and never unmapped, hence 'static.
        let slots = unsafe { std::slice::from_raw_parts(mapped.cast::<Slot<H>>(), slots) };
        let numbers = |place: usize| {
            // SAFETY: within the mapping, behind the slots, whose size is a multiple of a word's.
            let start = unsafe { mapped.byte_add(behind + place * words * size_of::<AtomicU64>()) };
            // SAFETY: aligned and zeroed, `words` words long, never unmapped; each set has its own.
            Bits::of(unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), words) })
        };
        let (free, ready) = (numbers(0), numbers(1));
        for number in 0..slots.len() {
            free.insert(number);
        }
        Ok(Self { slots, free, ready })
    }

    /// Writes one sample, called from the handler: claims a slot, fills the head and lets `copy` fill
    /// the stack, which returns the head to store. Says whether there was a slot.
    ///
    /// No lock, allocation or system call of its own.
    #[inline]
    pub(crate) fn write(&self, fill: impl FnOnce(*mut u8) -> H) -> bool {
        let Some(number) = self.free.take_first() else {
            return false;
        };
        let Some(slot) = self.slots.get(number) else {
            return false;
        };
        let head = fill(slot.stack.get().cast::<u8>());
        // SAFETY: the claim above makes this the only thread in the slot.
        unsafe { slot.head.get().write(MaybeUninit::new(head)) };
        self.ready.insert(number);
        true
    }

    /// Hands every finished sample to `take` and frees its slot.
    pub(crate) fn drain(&self, mut take: impl FnMut(&H, &[u8])) {
        for number in self.ready.iter() {
            let Some(slot) = self.slots.get(number) else {
                continue;
            };
            // Taken out before it is looked at, and freed however that ends: a sample that nobody
            // can read is lost once and not met again.
            if !self.ready.remove(number) {
                continue;
            }
            let _freed = Freed(&self.free, number);
            // SAFETY: its writer is done, and of those who drain one took it out of `ready`.
            let head = unsafe { slot.head.get().read() };
            // SAFETY: written before the slot's number came into `ready`.
            let head = unsafe { head.assume_init() };
            // SAFETY: as above; the reference ends before the slot is freed.
            let stack = unsafe { &*slot.stack.get() };
            let len = usize::try_from(head.stack_bytes())
                .unwrap_or(0)
                .min(STACK_BYTES);
            take(&head, stack.get(..len).unwrap_or_default());
        }
    }
}

/// Puts a slot back among the free ones when it is dropped.
struct Freed<'a>(&'a Numbers, usize);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.insert(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_arena_refuses_and_takes_again_after_a_drain() {
        let arena = Arena::new(2).unwrap();
        let head = |pc| Head {
            pc,
            len: 1,
            ..Head::default()
        };
        let write = |pc: u64| {
            arena.write(|stack| {
                // SAFETY: the slot's stack has room for more than one byte.
                unsafe { stack.write(u8::try_from(pc).unwrap()) };
                head(pc)
            })
        };
        assert!(write(1) && write(2) && !write(3));
        let mut seen = Vec::new();
        arena.drain(|head, stack| seen.push((head.pc, stack.to_vec())));
        seen.sort();
        assert_eq!(seen, [(1, vec![1]), (2, vec![2])]);
        assert!(write(4));
    }

    #[test]
    fn a_slot_is_used_again_before_one_that_never_was() {
        let arena = Arena::new(64).unwrap();
        let mut places = Vec::new();
        for _ in 0..10 {
            for _ in 0..3 {
                assert!(arena.write(|_| Head::default()));
            }
            arena.drain(|_, stack| places.push(stack.as_ptr() as usize));
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn a_sample_that_its_reader_cannot_stand_is_not_met_again() {
        let arena = Arena::new(1).unwrap();
        assert!(arena.write(|_| Head::default()));
        let drain = || arena.drain(|_, _| panic!("as a test"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(drain)).is_err());
        arena.drain(|_, _| panic!("it was met again"));
        assert!(arena.write(|_| Head::default()), "its slot is free");
    }
}
