//! The allocator over checking ones.
#![expect(unsafe_code, reason = "calls to an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

/// One rate per process: tests take turns.
static ONE: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mine(addresses: &[usize]) -> Vec<Live> {
    let mut held = Vec::new();
    live(|live| {
        if addresses.contains(&usize::try_from(live.address).unwrap()) {
            held.push(*live);
        }
    });
    held
}

#[test]
fn every_block_is_sampled_at_rate_one_and_leaves_the_table_when_it_is_freed() {
    let _turn = turn();
    set_limit(u64::MAX);
    set_rate(1);
    let allocator = ProfiledAllocator::new(System);
    let layout = |size| Layout::from_size_align(size, 8).unwrap();
    let blocks: Vec<(usize, usize)> = std::thread::spawn(move || {
        let sizes = [1, 64, 5000, 1 << 20];
        // SAFETY: the sizes are not zero.
        sizes.map(|size| (unsafe { allocator.alloc(layout(size)) } as usize, size))
    })
    .join()
    .unwrap()
    .to_vec();
    let addresses: Vec<usize> = blocks.iter().map(|(address, _)| *address).collect();
    let mut stacks = 0;
    drain(|allocated, head, stack| {
        assert_eq!(allocated.rate, 1);
        assert_eq!(stack.len(), usize::try_from(head.len).unwrap());
        stacks += usize::from(!stack.is_empty());
        17
    });
    assert!(stacks >= 4);
    let mut held = mine(&addresses);
    held.sort_by_key(|live| live.size);
    let sizes: Vec<u64> = held.iter().map(|live| live.size).collect();
    assert_eq!(sizes, [1, 64, 5000, 1 << 20]);
    assert!(held.iter().all(|live| live.stack == Some(17)));
    for (address, size) in blocks {
        // SAFETY: allocated above with this layout.
        unsafe { allocator.dealloc(address as *mut u8, layout(size)) };
    }
    assert_eq!(mine(&addresses).len(), 0);
    set_rate(crate::config::heap::RATE_BYTES);
}
