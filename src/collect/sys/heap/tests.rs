//! The allocator over one that checks every layout and over one that refuses.
#![expect(unsafe_code, reason = "calls to an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;

use super::*;

/// One table per process: tests take turns, and nothing else in this program allocates through it.
static ONE: Mutex<()> = Mutex::new(());

pub(in crate::collect) fn turn(mean_bytes: u64) -> MutexGuard<'static, ()> {
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    drain(|_, _, _| 0);
    set_limit(u64::MAX);
    set_rate(mean_bytes);
    turn
}

fn all_live() -> Vec<Live> {
    let mut held = Vec::new();
    live(|live| held.push(*live));
    held.sort_by_key(|live| live.size);
    held
}

/// Knows what it gave out: every block must come back with the layout that it was asked for.
#[derive(Debug)]
struct Checking {
    given: Mutex<HashMap<usize, Layout>>,
    /// Larger requests get nothing.
    most: AtomicUsize,
}

impl Default for Checking {
    fn default() -> Self {
        Self {
            given: Mutex::default(),
            most: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Checking {
    fn refuses(&self, size: usize) -> bool {
        size > self.most.load(Ordering::Relaxed)
    }

    fn give(&self, block: *mut u8, layout: Layout) -> *mut u8 {
        assert_eq!(block.addr() % layout.align(), 0);
        let before = self.given.lock().unwrap().insert(block.addr(), layout);
        assert_eq!(before, None, "the system gave one block twice");
        block
    }

    fn take(&self, block: *mut u8, layout: Layout) {
        let given = self.given.lock().unwrap().remove(&block.addr());
        assert_eq!(given, Some(layout), "{block:?} was not given for that");
    }

    fn given(&self) -> HashMap<usize, Layout> {
        self.given.lock().unwrap().clone()
    }
}

// SAFETY: blocks are the system's.
unsafe impl GlobalAlloc for Checking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on, here and below.
        let block = unsafe { System.alloc(layout) };
        // What a caller must not rely on.
        // SAFETY: the block is that long.
        unsafe { block.write_bytes(0xa5, layout.size()) };
        self.give(block, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: see above.
        self.give(unsafe { System.alloc_zeroed(layout) }, layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.take(block, layout);
        // SAFETY: the block is that long.
        unsafe { block.write_bytes(0x5a, layout.size()) };
        // SAFETY: see above.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.refuses(new_size) {
            return std::ptr::null_mut();
        }
        self.take(block, layout);
        // SAFETY: see above.
        let new = unsafe { System.realloc(block, layout, new_size) };
        let layout = Layout::from_size_align(new_size, layout.align()).unwrap();
        self.give(new, layout)
    }
}

/// The same one, seen by the test and by the allocator above it.
#[derive(Debug, Clone)]
struct Shared(Arc<Checking>);

type Inner = ProfiledAllocator<Shared>;

// SAFETY: as the one that it shares.
unsafe impl GlobalAlloc for Shared {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.realloc(block, layout, new_size) }
    }
}

/// An allocator under test and the one below it.
fn pair() -> (Inner, Arc<Checking>) {
    let checking = Arc::new(Checking::default());
    (
        ProfiledAllocator::new(Shared(Arc::clone(&checking))),
        checking,
    )
}

/// A block that the test holds, filled with one byte.
#[derive(Debug)]
struct Held {
    address: usize,
    layout: Layout,
    byte: u8,
}

impl Held {
    fn new(allocator: &impl GlobalAlloc, layout: Layout, zeroed: bool, byte: u8) -> Option<Self> {
        let block = if zeroed {
            // SAFETY: the system takes empty layouts, too.
            unsafe { allocator.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { allocator.alloc(layout) }
        };
        if block.is_null() {
            return None;
        }
        assert_eq!(block.addr() % layout.align(), 0);
        let mut held = Self {
            address: block.addr(),
            layout,
            byte: 0,
        };
        if zeroed {
            held.check(layout.size());
        }
        held.fill(byte);
        Some(held)
    }

    fn block(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    fn fill(&mut self, byte: u8) {
        self.byte = byte;
        // SAFETY: the block is this test's and that long.
        unsafe { self.block().write_bytes(byte, self.layout.size()) };
    }

    fn check(&self, bytes: usize) {
        // SAFETY: as above, and it was filled.
        let bytes = unsafe { std::slice::from_raw_parts(self.block(), bytes) };
        assert!(bytes.iter().all(|byte| *byte == self.byte));
    }

    /// Says whether there was memory.
    fn resize(&mut self, allocator: &impl GlobalAlloc, size: usize) -> bool {
        self.check(self.layout.size());
        // SAFETY: the block is this test's, the size not zero.
        let block = unsafe { allocator.realloc(self.block(), self.layout, size) };
        if block.is_null() {
            self.check(self.layout.size());
            return false;
        }
        let kept = self.layout.size().min(size);
        self.address = block.addr();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert_eq!(self.address % self.layout.align(), 0);
        self.check(kept);
        self.fill(self.byte.wrapping_add(1));
        true
    }

    fn free(self, allocator: &impl GlobalAlloc) {
        self.check(self.layout.size());
        // SAFETY: the block is this test's and not used again.
        unsafe { allocator.dealloc(self.block(), self.layout) };
    }
}

/// The table holds nothing but blocks that the test holds, and all of which the allocator below has
/// another address.
fn assert_table_is(held: &[Held], given: &HashMap<usize, Layout>) {
    let live = all_live();
    let find = |address: usize| held.iter().find(|held| held.address == address);
    for live in &live {
        let held = find(usize::try_from(live.address).unwrap()).unwrap();
        assert_eq!(live.size, held.layout.size() as u64);
    }
    let padded = held
        .iter()
        .filter(|held| !given.contains_key(&held.address));
    for held in padded {
        let address = held.address as u64;
        assert!(live.iter().any(|live| live.address == address));
    }
    assert_eq!(held.len(), given.len());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Allocate {
        size: usize,
        align: u32,
        zeroed: bool,
    },
    Resize {
        which: usize,
        size: usize,
    },
    Free {
        which: usize,
    },
    Rate(u64),
    Most(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..=256_usize, 1..=8192_usize, Just(4096), 1..=200_000_usize];
    let allocate = (size.clone(), 0..=14_u32, any::<bool>());
    let allocate = allocate.prop_map(|(size, align, zeroed)| Step::Allocate {
        size,
        align,
        zeroed,
    });
    let resize = (any::<usize>(), size);
    let resize = resize.prop_map(|(which, size)| Step::Resize {
        which,
        size: size.max(1),
    });
    let free = any::<usize>().prop_map(|which| Step::Free { which });
    let rate = prop_oneof![Just(1), Just(64), Just(4096), Just(RARE), Just(0)];
    let most = prop_oneof![Just(usize::MAX), Just(5000)];
    let step = prop_oneof![
        8 => allocate,
        6 => resize,
        6 => free,
        1 => rate.prop_map(Step::Rate),
        1 => most.prop_map(Step::Most),
    ];
    proptest::collection::vec(step, 0..120)
}

const RARE: u64 = 512 << 10;

fn run(steps: &[Step], allocator: &Inner, below: &Checking, pool: &Mutex<Vec<Held>>) {
    let take = |which: usize| {
        let mut pool = pool.lock().unwrap();
        let place = which.checked_rem(pool.len())?;
        Some(pool.swap_remove(place))
    };
    for (step, byte) in steps.iter().zip((0..=u8::MAX).cycle()) {
        match *step {
            Step::Allocate {
                size,
                align,
                zeroed,
            } => {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                if let Some(held) = Held::new(allocator, layout, zeroed, byte) {
                    pool.lock().unwrap().push(held);
                }
            }
            Step::Resize { which, size } => {
                if let Some(mut held) = take(which) {
                    let there_was_memory = held.resize(allocator, size);
                    assert!(there_was_memory || below.refuses(size) || size > 5000);
                    pool.lock().unwrap().push(held);
                }
            }
            Step::Free { which } => {
                if let Some(held) = take(which) {
                    held.free(allocator);
                }
            }
            Step::Rate(mean_bytes) => set_rate(mean_bytes),
            Step::Most(most) => below.most.store(most, Ordering::Relaxed),
        }
    }
}

proptest! {
    #[test]
    fn every_block_comes_back_with_the_layout_that_it_was_asked_for(
        rate in prop_oneof![Just(1_u64), Just(512), Just(8192)],
        threads in proptest::collection::vec(steps(), 1..=3),
    ) {
        let _turn = turn(rate);
        let (allocator, below) = pair();
        let pool = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for steps in &threads {
                scope.spawn(|| run(steps, &allocator, &below, &pool));
            }
        });
        let held = pool.into_inner().unwrap();
        assert_table_is(&held, &below.given());
        drain(|_, _, _| 7);
        for held in held {
            held.free(&allocator);
        }
        prop_assert_eq!(all_live().len(), 0);
        prop_assert_eq!(below.given().len(), 0);
        let counts = counts();
        prop_assert_eq!(counts.sampled, counts.freed);
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn sizes(live: &[Live]) -> Vec<u64> {
    live.iter().map(|live| live.size).collect()
}

#[test]
fn at_rate_one_every_block_is_sampled_with_its_stack_until_it_is_freed() {
    let _turn = turn(1);
    let (allocator, below) = pair();
    let allocate = |size| Held::new(&allocator, layout(size), false, 1).unwrap();
    let held = [1, 64, 5000, 1 << 20].map(allocate);
    let mut drained = Vec::new();
    drain(|block, head, stack| {
        let known = layout as *const () as u64;
        assert!(head.pc.abs_diff(known) < 1 << 30 && stack.len() > 100);
        assert_eq!(
            (block.rate, head.name),
            (1, super::super::sampling::timer::current_name())
        );
        drained.push(block.size);
        u32::try_from(block.size).unwrap()
    });
    drained.sort_unstable();
    assert_eq!(drained, [1, 64, 5000, 1 << 20]);
    let live = all_live();
    assert_eq!(sizes(&live), drained);
    let stacks: Vec<u64> = live.iter().map(|live| live.stack.unwrap().into()).collect();
    assert_eq!(stacks, drained);
    for held in held {
        held.free(&allocator);
    }
    assert_eq!((all_live().len(), below.given().len()), (0, 0));
}

#[test]
fn a_full_ring_loses_stacks_and_no_blocks() {
    let _turn = turn(1);
    let (allocator, _below) = pair();
    let (before, seen) = (counts(), news());
    let slots = usize::try_from(crate::config::heap::RING_SLOTS).unwrap();
    let allocate = |_| Held::new(&allocator, layout(100), false, 1).unwrap();
    let held: Vec<Held> = (0..slots + 10).map(allocate).collect();
    let after = counts();
    assert_eq!(after.stacks_lost - before.stacks_lost, 10);
    let bytes = after.stack_lost.bytes - before.stack_lost.bytes;
    assert!((bytes - 1000.0).abs() < 1e-6);
    // It was half full long ago.
    wait(seen, Duration::from_secs(3600));
    assert_eq!(drain(|_, _, _| 3), crate::config::heap::RING_SLOTS);
    let live = all_live();
    assert_eq!(live.len(), slots + 10);
    let lost = live.iter().filter(|live| live.stack.is_none());
    assert_eq!(lost.count(), 10);
    for held in held {
        held.free(&allocator);
    }
}

#[test]
fn who_has_not_seen_a_call_does_not_wait_and_who_waits_is_woken() {
    let _turn = turn(0);
    let seen = news();
    wake();
    wait(seen, Duration::from_secs(3600));
    let seen = news();
    let waits = std::thread::spawn(move || wait(seen, Duration::from_secs(3600)));
    // Woken before it waits or after: either ends it.
    wake();
    waits.join().unwrap();
}

#[test]
fn a_block_that_only_its_padding_makes_too_large_is_not_sampled_and_is_counted() {
    let _turn = turn(1);
    let (allocator, below) = pair();
    below.most.store(5000, Ordering::Relaxed);
    let before = counts();
    let mut held = Held::new(&allocator, layout(4000), false, 1).unwrap();
    let lost = |after: Counts| {
        let bytes = after.lost.bytes - before.lost.bytes;
        (after.blocks_lost - before.blocks_lost, bytes)
    };
    assert_eq!((all_live().len(), lost(counts())), (0, (1, 4000.0)));
    assert!(Held::new(&allocator, layout(5001), true, 1).is_none());
    assert!(!held.resize(&allocator, 5001));
    assert!(held.resize(&allocator, 100));
    assert_eq!(sizes(&all_live()), [100]);
    assert!(!held.resize(&allocator, 5001), "and the old block stays");
    assert_eq!(sizes(&all_live()), [100]);
    held.free(&allocator);
    assert_eq!((all_live().len(), below.given().len()), (0, 0));
}

#[test]
fn a_thread_that_ends_allocates_and_frees_in_its_destructors() {
    let _turn = turn(1);
    let (allocator, below) = pair();
    let allocator = Arc::new(allocator);
    struct AtTheEnd(Arc<Inner>, Vec<Held>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let more = Held::new(&*self.0, layout(300), true, 9).unwrap();
            for held in self.1.drain(..).chain([more]) {
                held.free(&*self.0);
            }
        }
    }
    thread_local! {
        static KEPT: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
    }
    let sampled = counts().sampled;
    let thread = std::thread::spawn(move || {
        let held = [10, 20_000].map(|size| Held::new(&*allocator, layout(size), false, 1).unwrap());
        KEPT.set(Some(AtTheEnd(allocator, held.into())));
        all_live().len()
    });
    assert_eq!(thread.join().unwrap(), 2);
    assert_eq!(counts().sampled - sampled, 3);
    assert_eq!((all_live().len(), below.given().len()), (0, 0));
}

#[test]
fn a_thread_that_is_left_out_is_not_sampled() {
    let _turn = turn(1);
    let (allocator, _below) = pair();
    let thread = std::thread::spawn(move || {
        leave_out_this_thread();
        let allocate = |_| Held::new(&allocator, layout(1 << 20), false, 1).unwrap();
        let held: Vec<Held> = (0..3).map(allocate).collect();
        let live = all_live().len();
        held.into_iter().for_each(|held| held.free(&allocator));
        live
    });
    assert_eq!(thread.join().unwrap(), 0, "however often it allocates");
}

#[test]
fn a_forked_child_frees_what_was_sampled_and_samples_nothing() {
    let _turn = turn(1);
    let allocator = ProfiledAllocator::new(System);
    let held = [50, 5000].map(|size| Held::new(&allocator, layout(size), false, 1).unwrap());
    assert_eq!(all_live().len(), 2);
    // SAFETY: the child uses only this allocator, whose inner one the C library keeps whole, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut left = 0;
        for held in held {
            held.free(&allocator);
        }
        live(|_| left += 1);
        let another = Held::new(&allocator, layout(1 << 20), true, 1);
        live(|_| left += 10);
        let freed = another.map(|another| another.free(&allocator));
        let code = left + i32::from(freed.is_none()) * 50 + i32::from(rate() != 0) * 100;
        // SAFETY: ends the child without the parent's clean-up.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status is a live local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status}");
    assert_eq!(libc::WEXITSTATUS(status), 0);
    assert_eq!((all_live().len(), rate()), (2, 1));
    for held in held {
        held.free(&allocator);
    }
}

#[test]
fn too_many_samples_in_a_second_double_the_distance_and_few_halve_it() {
    let _turn = turn(1);
    set_rate(1000);
    set_limit(50);
    let second = 1 << 40;
    for _ in 0..120 {
        rate::count(second, false);
    }
    assert_eq!((counts().doubled, rate()), (2, 4000));
    // That second had its samples; the ones after it have few.
    for later in 1..=4 {
        rate::count(second + later * 1000, false);
    }
    assert_eq!(counts().doubled, 0);
    rate::count(second + 5000, true);
    assert_eq!((counts().doubled, rate()), (1, 2000), "the table fills up");
    set_rate(1000);
    assert_eq!(rate(), 1000);
}

#[test]
fn estimates_of_all_chances_add_up_to_what_there_was() {
    let _turn = turn(1);
    let (rate, size, blocks) = (1000.0, 100.0, 1e6);
    let estimate = counts::estimate(100, 1000);
    let sampled = blocks * (1.0 - f64::exp(-size / rate));
    assert!((estimate.objects * sampled / blocks - 1.0).abs() < 1e-9);
    assert!((estimate.bytes - 100.0 * estimate.objects).abs() < 1e-9);
    let whole = Estimate {
        objects: 1.0,
        bytes: 5.0,
    };
    assert_eq!(counts::estimate(5, 1), whole, "every block");
    let certain = counts::estimate(1 << 40, 4096).objects;
    assert!((certain - 1.0).abs() < 1e-9);
}
