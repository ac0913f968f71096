//! Naming addresses of a large binary takes little memory, and gives it back.
#![cfg(all(target_os = "linux", feature = "profiling"))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use streamgate_agent::Agent;
use streamgate_agent::bench_door::Names;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; the counts are plain atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

/// Addresses all over the code of this binary.
fn addresses() -> Vec<u64> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let binary = std::env::current_exe().unwrap();
    let own = |line: &&str| line.contains(" r-xp ") && line.ends_with(binary.to_str().unwrap());
    let (range, _) = maps.lines().find(own).unwrap().split_once(' ').unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    let (start, end) = (hex(start), hex(end));
    (start..end)
        .step_by(((end - start) / 2000) as usize)
        .collect()
}

/// A line of this process's status in bytes.
fn status(key: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn names_all_over_a_binary_take_little_memory_and_give_it_back() {
    let addresses = addresses();
    let mut names = Names::default();
    // From here on the high-water mark is that of the naming.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let resident = status("VmRSS:");
    let live = LIVE.load(Ordering::Relaxed);
    MOST.store(live, Ordering::Relaxed);
    let (named, lined) = names.find(&addresses);
    let heap = MOST.load(Ordering::Relaxed) - live;
    let kept = LIVE.load(Ordering::Relaxed) - live;
    let peak = status("VmHWM:").saturating_sub(resident);
    eprintln!(
        "{named} of {} named, {lined} with lines: heap {} KiB, {} KiB kept, {} KiB more resident",
        addresses.len(),
        heap >> 10,
        kept >> 10,
        peak >> 10
    );
    assert!(
        named > 1500 && lined > 1000,
        "{named} named, {lined} with lines"
    );
    assert!(heap < 16 * MIB, "{heap} bytes of heap");
    assert!(kept < 2 * MIB, "{kept} bytes kept");
    assert!(peak < 24 * MIB, "{peak} bytes more resident");
    // Keeps an agent and its server in the binary. Its threads outlive the drop by a moment, and what they give
    // back would be taken off the figures.
    drop(Agent::builder("heap").no_listener().start().unwrap());
}
