//! Sampling at 999 Hz while the process does all that samplers are known to die of.
//!
//! Five seconds; `STREAMGATE_STORM_SECONDS` raises it.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod sampling;

use std::backtrace::Backtrace;
use std::panic::{catch_unwind, panic_any, set_hook};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sampling::{agent, burn, own_cpu, spin, take};
use streamgate_agent::bench_door::cpu_signals;

/// How often each kind of work was done.
type Done = Arc<[AtomicU64; 7]>;

fn backtraces() {
    let text = format!("{}", Backtrace::force_capture());
    assert!(text.contains("backtraces"));
}

fn unwinds() {
    for _ in 0..100 {
        assert!(catch_unwind(|| panic_any(7_u8)).is_err());
    }
}

/// Loads and unloads a library of the system that nobody else uses.
fn loads() {
    for name in [
        c"libresolv.so.2",
        c"libnsl.so.1",
        c"libBrokenLocale.so.1",
        c"libanl.so.1",
    ] {
        // SAFETY: the C library's own small libraries run nothing when they are loaded.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if !library.is_null() {
            // SAFETY: the handle came from `dlopen` just now and is not used afterwards.
            unsafe { libc::dlclose(library) };
        }
    }
}

fn allocations() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for size in (0..2000).map(|n| 16 + n * n % 30_000) {
        held.push(vec![1; size]);
        if held.len() > 100 {
            held.swap_remove(size % 100);
        }
    }
    std::hint::black_box(held);
}

fn churn() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let small = thread::Builder::new().stack_size(16 << 10);
            small.spawn(|| burn(Duration::from_millis(2))).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn children() {
    assert!(Command::new("true").status().unwrap().success());
}

fn foreign() {
    let kill = format!("kill -64 {0}; kill -64 {0}", std::process::id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

/// A stack deeper than a slot holds and than frames are kept.
#[inline(never)]
fn deep(left: u32) -> u64 {
    let here = std::hint::black_box([u64::from(left); 32]);
    if left == 0 {
        return spin(1);
    }
    deep(left - 1) ^ here[7]
}

#[test]
fn storm_leaves_no_crash_no_hang_and_no_sample_unaccounted_for() {
    let seconds: u32 =
        std::env::var("STREAMGATE_STORM_SECONDS").map_or(5, |text| text.parse().unwrap());
    set_hook(Box::new(|info| {
        // The storm's own panics carry a number.
        if info.payload().downcast_ref::<u8>().is_none() {
            eprintln!("{info}");
        }
    }));
    let agent = agent();
    // From now on the signal has its handler for good: before, a foreign one would end the process.
    take(&agent, 99, 1).profile();
    let stop = Arc::new(AtomicBool::new(false));
    let done: Done = Arc::default();
    let kinds: [fn(); 7] = [
        backtraces,
        unwinds,
        loads,
        allocations,
        churn,
        children,
        foreign,
    ];
    let threads: Vec<_> = kinds
        .into_iter()
        .enumerate()
        .map(|(place, work)| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let thread = thread::Builder::new().name(format!("storm-{place}"));
            let body = move || {
                let start = own_cpu();
                while !stop.load(Ordering::Relaxed) {
                    work();
                    std::hint::black_box(deep(300));
                    done[place].fetch_add(1, Ordering::Relaxed);
                }
                own_cpu() - start
            };
            thread.spawn(body).unwrap()
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    let mut profiles = 0;
    // Stopped and started again under load, at other rates.
    for (hertz, length) in [(999, 2), (499, 1), (999, 1)].into_iter().cycle() {
        if Instant::now() >= end && profiles >= 3 {
            break;
        }
        let profile = take(&agent, hertz, length).profile();
        profiles += 1;
        let all = profile.sum(|_| true);
        let cut = profile.sum(|stack| stack.names.iter().any(|name| name == "[truncated]"));
        let deep = profile.sum(|stack| stack.names.iter().any(|name| name.contains("storm::deep")));
        let odd = profile.sum(|stack| {
            let names = &stack.names;
            names.iter().any(|name| name == "[truncated]")
                && !names.iter().any(|name| name.contains("storm::deep"))
        });
        eprintln!(
            "{hertz} Hz: {all} samples, {cut} truncated ({deep} in deep stacks, {odd} truncated \
             elsewhere); {:?}",
            profile.comments
        );
        assert!(all > 0.0);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let done: Vec<u64> = done.iter().map(|one| one.load(Ordering::Relaxed)).collect();
    eprintln!("done {done:?} in {profiles} profiles");
    assert!(done.iter().all(|times| *times > 0), "{done:?}");
    let [fired, recorded, lost] = cpu_signals().unwrap();
    assert_eq!(fired, recorded + lost);
    assert!(recorded > 1000);
}
