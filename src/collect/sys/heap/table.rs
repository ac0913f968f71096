//! The sampled blocks that live, found by address.
//!
//! Levels of entries in one private mapping, whose memory is touched as it is needed; the child of a
//! fork has all of it, as it frees what its parent sampled. A block's entry lies at most [`NEAR`] places
//! after the one that its address leads to, and that one knows by a bit each which of them those are: no
//! mark of freed entries is left behind, and a block that is not in the table costs one look per level.
#![expect(unsafe_code, reason = "a mapping that outlives every thread")]

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::{Live, counts};
use crate::store::label::{LabelSet, Mark};

/// Addresses of sampled blocks are multiples of this, whatever the page size, so that the test of an
/// address costs nothing.
pub(super) const PAGE: usize = 4096;

/// Entries of the first level, 192 KiB; each further one is twice as long as the one before.
const FIRST: usize = 4096;
const LEVELS: usize = 8;
pub(super) const ENTRIES: usize = FIRST * ((1 << LEVELS) - 1);

/// Places that an entry may lie after its own, itself included: bits of a word.
const NEAR: usize = 64;

/// In place of an address while a block's thread fills its entry in.
const CLAIMED: u64 = PAGE as u64;

/// The lowest bits of an entry's word count the blocks that it held.
const TURN: u64 = PAGE as u64 - 1;

/// The stack is still in the ring, under the serial number in the other bits.
const WAITING: u32 = 1 << 31;
/// No stack, for good.
const LOST: u32 = WAITING - 1;

/// How many blocks of the table have an address that leads here: what a look at a page-aligned block of
/// the host's costs. Allocators hand out many such: the first of each slab, and all of whole pages.
static FILTER: [AtomicU8; 1 << FILTER_BITS] = [const { AtomicU8::new(0) }; 1 << FILTER_BITS];
/// Then at 65,536 live samples every other look is in vain; it takes 64 KiB.
const FILTER_BITS: u32 = 16;

#[inline(always)]
fn filter(address: usize) -> Option<&'static AtomicU8> {
    let place = mixed(address) >> (u64::BITS - FILTER_BITS);
    FILTER.get(usize::try_from(place).ok()?)
}

/// All bits of a page's number, in the upper ones.
#[inline(always)]
fn mixed(address: usize) -> u64 {
    (address as u64 / PAGE as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// False for nearly all blocks that are not in the table, without a look at it.
#[inline(always)]
pub(super) fn may_hold(block: *mut u8) -> bool {
    let address = block.addr();
    let held = || filter(address).is_some_and(|held| held.load(Ordering::Relaxed) > 0);
    address.is_multiple_of(PAGE) && held()
}

#[repr(C)]
#[derive(Debug)]
struct Entry {
    /// Bit `n`: the entry `n` places on holds a block whose address leads here.
    near: AtomicU64,
    /// The block's address and, below it, the turn.
    word: AtomicU64,
    size: AtomicU64,
    born_millis: AtomicU64,
    rate: AtomicU32,
    /// From the block that the inner allocator knows to the one that the host knows.
    offset: AtomicU32,
    labels: AtomicU32,
    stack: AtomicU32,
}

/// A block to enter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) address: usize,
    pub(super) offset: usize,
    pub(super) size: u64,
    pub(super) rate: u64,
    pub(super) labels: LabelSet,
    pub(super) born_millis: u64,
}

/// Where a block was entered, and which of all that this entry has held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    entry: u32,
    serial: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    entries: &'static [Entry],
    /// Blocks in each level, or on their way into it.
    held: [AtomicUsize; LEVELS],
    /// Levels that hold blocks or once did.
    used: AtomicUsize,
    serial: AtomicU32,
}

/// One level.
struct Level<'a> {
    first: usize,
    entries: &'a [Entry],
}

impl Level<'_> {
    fn place(&self, home: usize, step: usize) -> usize {
        home.wrapping_add(step) & self.entries.len().wrapping_sub(1)
    }

    /// Where an address leads to.
    fn home(&self, address: usize) -> usize {
        self.place(usize::try_from(mixed(address) >> 24).unwrap_or(0), 0)
    }
}

impl Table {
    /// Maps room for [`ENTRIES`].
    ///
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(super) fn new() -> std::io::Result<Self> {
        let bytes = ENTRIES * size_of::<Entry>();
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
        // A huge page would be touched whole by its first entry.
        // SAFETY: the range is the mapping made above; advice changes no contents.
        unsafe { libc::madvise(mapped, bytes, libc::MADV_NOHUGEPAGE) };
        // SAFETY: page-aligned, zeroed (a valid `Entry`: integers all), never unmapped, hence 'static.
        let entries = unsafe { std::slice::from_raw_parts(mapped.cast::<Entry>(), ENTRIES) };
        Ok(Self {
            entries,
            held: [const { AtomicUsize::new(0) }; LEVELS],
            used: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
        })
    }

    fn level(&self, number: usize) -> Option<Level<'_>> {
        let first = FIRST * ((1_usize << number) - 1);
        let entries = self.entries.get(first..first + (FIRST << number))?;
        Some(Level { first, entries })
    }

    /// Levels that may hold blocks.
    fn used(&self) -> impl Iterator<Item = (Level<'_>, &AtomicUsize)> {
        let used = self.used.load(Ordering::Acquire);
        let levels = self.held.iter().enumerate().take(used);
        levels.filter_map(|(number, held)| Some((self.level(number)?, held)))
    }

    /// More than three quarters of all entries are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.held() > ENTRIES / 4 * 3
    }

    /// Blocks, of at most [`ENTRIES`].
    pub(super) fn held(&self) -> usize {
        let held = self.held.iter().map(|held| held.load(Ordering::Relaxed));
        held.sum()
    }

    /// Memory of the levels that were ever used, and of the filter: what may be resident.
    pub(super) fn bytes(&self) -> usize {
        let used = self.used().map(|(level, _)| size_of_val(level.entries));
        used.sum::<usize>() + size_of_val(&FILTER)
    }

    /// Enters a block; `None` if there is no place.
    pub(super) fn insert(&self, block: Block) -> Option<Ticket> {
        let add = |held: u8| held.checked_add(1);
        let filter = filter(block.address)?;
        let added = filter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.ok()?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) & (WAITING - 1);
        let ticket = self.held.iter().enumerate().find_map(|(number, held)| {
            let level = self.level(number)?;
            // Up to seven eighths: fuller, a place may be far.
            let room = level.entries.len() / 8 * 7;
            if held.fetch_add(1, Ordering::Relaxed) < room {
                self.used.fetch_max(number + 1, Ordering::AcqRel);
                if let Some(entry) = level.insert(block, WAITING | serial) {
                    return Some(Ticket {
                        entry: u32::try_from(level.first + entry).ok()?,
                        serial,
                    });
                }
            }
            held.fetch_sub(1, Ordering::Relaxed);
            None
        });
        if ticket.is_some() {
            counts::SAMPLED.fetch_add(1, Ordering::Relaxed);
        } else {
            filter.fetch_sub(1, Ordering::Relaxed);
        }
        ticket
    }

    pub(super) fn contains(&self, address: usize) -> bool {
        let mut used = self.used();
        used.any(|(level, _)| level.find(address).is_some())
    }

    /// Takes a block out and returns its offset; `None` if it is not in the table.
    #[inline]
    pub(super) fn remove(&self, address: usize) -> Option<usize> {
        let offset = self.used().find_map(|(level, held)| {
            let offset = level.remove(address)?;
            held.fetch_sub(1, Ordering::Relaxed);
            Some(offset)
        })?;
        filter(address)?.fetch_sub(1, Ordering::Relaxed);
        counts::FREED.fetch_add(1, Ordering::Relaxed);
        Some(offset)
    }

    /// Keeps the number of a block's stack, unless the block is gone.
    pub(super) fn set_stack(&self, ticket: Ticket, number: u32) {
        let number = number.min(LOST);
        let entry = usize::try_from(ticket.entry).ok();
        if let Some(entry) = entry.and_then(|entry| self.entries.get(entry)) {
            let waiting = WAITING | ticket.serial;
            // Otherwise the entry is another block's by now.
            let _kept =
                entry
                    .stack
                    .compare_exchange(waiting, number, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The stack of this block is not known, nor will it be.
    pub(super) fn lose_stack(&self, ticket: Ticket) {
        self.set_stack(ticket, LOST);
    }

    pub(super) fn walk(&self, visit: &mut impl FnMut(&Live)) {
        for (level, held) in self.used() {
            if held.load(Ordering::Relaxed) > 0 {
                for live in level.entries.iter().filter_map(Entry::live) {
                    visit(&live);
                }
            }
        }
    }
}

impl Level<'_> {
    fn insert(&self, block: Block, stack: u32) -> Option<usize> {
        let home = self.home(block.address);
        let (step, place, entry, turn) = (0..NEAR).find_map(|step| {
            let place = self.place(home, step);
            let entry = self.entries.get(place)?;
            Some((step, place, entry, entry.claim()?))
        })?;
        entry.fill(block, stack, turn);
        // Whoever frees the block was given it by whoever allocated it, so sees this bit.
        let home = self.entries.get(home)?;
        home.near.fetch_or(1 << step, Ordering::Release);
        Some(place)
    }

    /// The entry of a block, and how far it lies from where the address leads to.
    #[inline]
    fn find(&self, address: usize) -> Option<(&Entry, usize)> {
        let home = self.home(address);
        let mut near = self.entries.get(home)?.near.load(Ordering::Acquire);
        while near != 0 {
            let step = usize::try_from(near.trailing_zeros()).unwrap_or(0);
            near &= near - 1;
            let entry = self.entries.get(self.place(home, step))?;
            if entry.word.load(Ordering::Acquire) & !TURN == address as u64 {
                return Some((entry, step));
            }
        }
        None
    }

    #[inline]
    fn remove(&self, address: usize) -> Option<usize> {
        let (entry, step) = self.find(address)?;
        let offset = entry.offset.load(Ordering::Relaxed);
        let home = self.entries.get(self.home(address))?;
        home.near.fetch_and(!(1 << step), Ordering::Relaxed);
        let turn = entry.word.load(Ordering::Relaxed) & TURN;
        // From here on the entry is anybody's.
        entry.word.store(turn, Ordering::Release);
        usize::try_from(offset).ok()
    }
}

impl Entry {
    /// Takes an entry that nobody has; returns its turn.
    fn claim(&self) -> Option<u64> {
        let word = self.word.load(Ordering::Relaxed);
        let turn = word.wrapping_add(1) & TURN;
        let claim = || {
            let claimed = CLAIMED | turn;
            let (taken, not) = (Ordering::Acquire, Ordering::Relaxed);
            self.word
                .compare_exchange(word, claimed, taken, not)
                .is_ok()
        };
        (word & !TURN == 0 && claim()).then_some(turn)
    }

    fn fill(&self, block: Block, stack: u32, turn: u64) {
        // A reader that sees any of what follows sees the claim, too.
        fence(Ordering::Release);
        let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        self.size.store(block.size, Ordering::Relaxed);
        self.rate.store(low(block.rate), Ordering::Relaxed);
        self.offset
            .store(low(block.offset as u64), Ordering::Relaxed);
        self.labels.store(block.labels.into(), Ordering::Relaxed);
        self.stack.store(stack, Ordering::Relaxed);
        self.born_millis.store(block.born_millis, Ordering::Relaxed);
        let word = block.address as u64 | turn;
        self.word.store(word, Ordering::Release);
    }

    /// The block, if there is one and it did not change while it was read.
    fn live(&self) -> Option<Live> {
        let word = self.word.load(Ordering::Acquire);
        let address = word & !TURN;
        if address <= CLAIMED {
            return None;
        }
        let stack = self.stack.load(Ordering::Relaxed);
        let live = Live {
            address,
            size: self.size.load(Ordering::Relaxed),
            rate: u64::from(self.rate.load(Ordering::Relaxed)),
            mark: Mark {
                set: LabelSet::from(self.labels.load(Ordering::Relaxed)),
                ..Mark::NONE
            },
            born_millis: self.born_millis.load(Ordering::Relaxed),
            stack: (stack < LOST).then_some(stack),
        };
        fence(Ordering::Acquire);
        (self.word.load(Ordering::Relaxed) == word).then_some(live)
    }
}
