//! Stacks, lines and names: what a profile says of functions whose work is known.
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

use std::hint::black_box;
use std::time::Duration;

use sampling::{Frame, Profile, Stack, agent, named, own_cpu, serial, take, tick};

const HERTZ: u32 = 999;

/// The profile of one thread's work.
fn profile_of(name: &'static str, work: impl FnOnce() + Send + 'static) -> Profile {
    let _turn = serial();
    let agent = agent();
    let taking = take(&agent, HERTZ, 4);
    named(name, work).join().unwrap();
    let profile = taking.profile();
    let seen = profile.of(name);
    assert!(seen > 200.0, "only {seen} samples of {name}");
    profile
}

/// The share of a thread's samples for which something holds.
fn share(profile: &Profile, thread: &str, holds: impl Fn(&Stack) -> bool) -> f64 {
    let held = profile.sum(|stack| stack.thread == thread && holds(stack));
    held / profile.of(thread)
}

fn has(stack: &Stack, name: &str) -> bool {
    stack.names.iter().any(|held| held.ends_with(name))
}

/// Repeats work until the running thread has used this much CPU time more.
fn repeat(time: Duration, mut work: impl FnMut()) {
    let start = own_cpu();
    while own_cpu() - start < time {
        work();
    }
}

/// Takes this many rounds of one instruction or two: known work on the line where it stands, in every
/// build.
#[collapse_debuginfo(yes)]
macro_rules! rounds {
    ($count:expr) => {{
        let mut left: u64 = black_box($count);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: counts a register down to zero.
        unsafe {
            std::arch::asm!("2: sub {0}, 1", "jnz 2b", inout(reg) left, options(nomem, nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: counts a register down to zero.
        unsafe {
            std::arch::asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) left, options(nomem, nostack));
        }
        black_box(left);
    }};
}

/// About a millisecond.
const ROUNDS: u64 = 2_000_000;

// ---- The C library as leaf ----

#[inline(never)]
fn copies(from: &[u8], to: &mut [u8]) {
    for _ in 0..64 {
        to.copy_from_slice(black_box(from));
    }
}

#[inline(never)]
fn calls_copies(time: Duration) {
    let (from, mut to) = (vec![1_u8; 256 << 10], vec![0_u8; 256 << 10]);
    repeat(time, || copies(&from, &mut to));
    black_box(to);
}

/// Blocks of many sizes, many of them live, so that the allocator has to search.
#[inline(never)]
fn mallocs(held: &mut [*mut libc::c_void; 512], state: &mut u64) {
    for _ in 0..4096 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let place = usize::try_from(*state >> 55).unwrap();
        let size = usize::try_from(1500 + (*state >> 40) % 40_000).unwrap();
        // SAFETY: the block came from `malloc` or is null.
        unsafe { libc::free(held[place]) };
        // SAFETY: any size may be asked for.
        held[place] = unsafe { libc::malloc(size) };
    }
}

#[inline(never)]
fn calls_mallocs(time: Duration) {
    let mut held = [std::ptr::null_mut(); 512];
    let mut state = 1;
    repeat(time, || mallocs(&mut held, &mut state));
    for block in held {
        // SAFETY: as above, and for the last time.
        unsafe { libc::free(block) };
    }
}

fn in_the_c_library(frame: &Frame) -> bool {
    frame.object.starts_with("libc.so") || frame.object.starts_with("libc-")
}

/// The frames of a stack from the first that is not the C library's, without inlined ones.
fn callers(stack: &Stack) -> impl Iterator<Item = &str> {
    let frames = stack.frames.iter().filter(|frame| !frame.inlined);
    frames
        .skip_while(|frame| in_the_c_library(frame))
        .map(|frame| &*frame.name)
}

fn judge_leaves(thread: &'static str, work: fn(Duration), worker: &str, caller: &str, least: f64) {
    let profile = profile_of(thread, move || work(Duration::from_millis(1500)));
    let library = |stack: &Stack| stack.frames.first().is_some_and(in_the_c_library);
    let leaves = share(&profile, thread, library);
    // Debug builds have the standard library's own small functions between the two.
    let chained = share(&profile, thread, |stack| {
        let mut callers = callers(stack);
        library(stack)
            && callers.any(|name| name.ends_with(worker))
            && callers.any(|name| name.ends_with(caller))
    });
    eprintln!("{thread}: {leaves:.3} in the C library, {chained:.3} with all callers");
    assert!(
        leaves >= least,
        "{leaves} of the samples are in the C library"
    );
    assert!(
        chained >= 0.98 * leaves,
        "{chained} of {leaves} reach their callers"
    );
}

#[test]
fn a_copying_function_has_the_c_library_as_leaf_and_its_true_callers() {
    judge_leaves(
        "copies",
        calls_copies,
        "cpu_lines::copies",
        "cpu_lines::calls_copies",
        0.9,
    );
}

#[test]
fn an_allocating_function_has_the_c_library_as_leaf_and_its_true_callers() {
    judge_leaves(
        "mallocs",
        calls_mallocs,
        "cpu_lines::mallocs",
        "cpu_lines::calls_mallocs",
        0.6,
    );
}

// ---- Lines ----

const FIRST: u32 = line!() + 5;
const SECOND: u32 = FIRST + 1;

#[inline(never)]
fn two_hot_lines() {
    rounds!(ROUNDS);
    rounds!(3 * ROUNDS);
}

#[test]
fn two_hot_lines_of_one_function_stay_apart_in_the_ratio_of_their_work() {
    let time = Duration::from_millis(1500);
    let profile = profile_of("lines", move || repeat(time, two_hot_lines));
    let at = |line: u32| {
        share(&profile, "lines", |stack| {
            let leaf = stack.frames.first();
            leaf.is_some_and(|leaf| {
                leaf.name.ends_with("cpu_lines::two_hot_lines")
                    && leaf.file.ends_with("tests/cpu_lines.rs")
                    && leaf.line == i64::from(line)
            })
        })
    };
    let (first, second) = (at(FIRST), at(SECOND));
    eprintln!("line {FIRST}: {first:.3}, line {SECOND}: {second:.3}");
    assert!(first + second >= 0.95, "{first} and {second}");
    // Each tick is one signal, whatever the rate: four standard deviations of their number.
    let signals = time.as_secs_f64() / tick().as_secs_f64();
    let points = 4.0 * (0.25 * 0.75 / signals).sqrt();
    assert!(
        (first - 0.25).abs() <= points,
        "{first} instead of a quarter"
    );
}

#[inline(always)]
fn inlined_callee() {
    rounds!(ROUNDS);
}

#[inline(never)]
fn takes_it_in() {
    inlined_callee();
}

#[test]
fn an_inlined_callee_is_a_line_of_its_own_before_its_callers() {
    let time = Duration::from_millis(800);
    let profile = profile_of("inline", move || repeat(time, takes_it_in));
    let inlined = share(&profile, "inline", |stack| match &*stack.frames {
        [callee, caller, ..] => {
            // With line tables only, an inlined function has no more than its short name.
            callee.name.ends_with("inlined_callee")
                && callee.inlined
                && caller.name.ends_with("cpu_lines::takes_it_in")
                && !caller.inlined
                && callee.line < caller.line
        }
        _ => false,
    });
    let first = profile
        .stacks
        .iter()
        .find(|stack| has(stack, "inlined_callee"));
    assert!(inlined >= 0.95, "{inlined}: {first:?}");
}

// ---- Names ----

trait Work {
    fn work(&self);
}

struct Worker<T>(T);

impl Work for Worker<u64> {
    #[inline(never)]
    fn work(&self) {
        rounds!(self.0);
    }
}

#[test]
fn a_trait_methods_name_keeps_its_type_and_its_trait() {
    let time = Duration::from_millis(800);
    let profile = profile_of("trait", move || {
        let worker: &dyn Work = &Worker(ROUNDS);
        repeat(time, || worker.work());
    });
    let named = share(&profile, "trait", |stack| {
        let leaf = stack.frames.first();
        leaf.is_some_and(|leaf| {
            leaf.name == "<cpu_lines::Worker<u64> as cpu_lines::Work>::work"
                && leaf.system_name.starts_with("_")
        })
    });
    let names: Vec<_> = profile
        .stacks
        .iter()
        .filter(|stack| stack.thread == "trait" && has(stack, "::work"))
        .filter_map(|stack| stack.frames.first())
        .take(3)
        .collect();
    assert!(named >= 0.95, "{named}: {names:?}");
}
