//! The sampling handler makes no system call on a thread that is known, but the one that finds out
//! whether it is: the kernel itself watches.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod sampling;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sampling::{agent, during, own_cpu, spin};

/// How often the watched thread was kept from each system call, by its number.
static KEPT: [AtomicU32; 600] = [const { AtomicU32::new(0) }; 600];
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn kept(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a whole siginfo; that of a kept call has its number in the seventh word.
    let [_, _, _, _, _, _, number] = unsafe { *info.cast::<[i32; 7]>() };
    if let Some(count) = usize::try_from(number)
        .ok()
        .and_then(|number| KEPT.get(number))
    {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// From now on the running thread gets a signal instead of each system call but three: the end of a
/// handler, its own end, and its id, by which the handler tells whether the thread has a timer.
fn watch() {
    let [load, equal, end] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ]
    .map(|code| u16::try_from(code).unwrap());
    let step = |code, k, jt| libc::sock_filter { code, jt, jf: 0, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let mut program = [
        step(load, 0, 0),
        step(equal, number(libc::SYS_rt_sigreturn), 3),
        step(equal, number(libc::SYS_exit), 2),
        step(equal, number(libc::SYS_gettid), 1),
        step(end, libc::SECCOMP_RET_TRAP, 0),
        step(end, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: numbers only.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is a live local, which the kernel copies.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(set, 0);
}

fn kept_calls() -> Vec<(usize, u32)> {
    let counts = KEPT.iter().map(|count| count.load(Ordering::Relaxed));
    counts.enumerate().filter(|(_, count)| *count > 0).collect()
}

/// Spins that take some 10 milliseconds of CPU time.
fn calibrated() -> u64 {
    let (start, mut spins) = (own_cpu(), 0);
    while own_cpu() - start < Duration::from_millis(10) {
        std::hint::black_box(spin(1));
        spins += 1;
    }
    spins
}

#[inline(never)]
fn watched_work(spins: u64) {
    for _ in 0..spins {
        std::hint::black_box(spin(1));
    }
}

fn watched() {
    // Sampled often enough, and for long enough, that its stack's bounds are known.
    let (begin, mut spins) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(1) || own_cpu() < Duration::from_millis(300) {
        spins = calibrated();
    }
    watch();
    watched_work(100 * spins);
    // The watch works: this call is kept from the kernel.
    // SAFETY: takes nothing, changes nothing.
    unsafe { libc::syscall(libc::SYS_getppid) };
    ENDED.store(true, Ordering::Release);
    // SAFETY: ends this thread and nothing else; the C library's way takes more calls.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

#[test]
fn a_known_threads_samples_cost_no_system_call_but_its_id() {
    // SAFETY: all-zero bytes are a valid action with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = kept as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler only counts; a null old action is allowed.
    let set = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let mut tries = 0;
    let (profile, ()) = during(
        &agent(),
        999,
        || {},
        |()| {
            tries += 1;
            ENDED.store(false, Ordering::Release);
            drop(
                thread::Builder::new()
                    .name("watched".to_owned())
                    .spawn(watched)
                    .unwrap(),
            );
            let deadline = Instant::now() + Duration::from_secs(120);
            while !ENDED.load(Ordering::Acquire) {
                assert!(Instant::now() < deadline, "the watched thread hangs");
                thread::sleep(Duration::from_millis(5));
            }
        },
    );
    let number = usize::try_from(libc::SYS_getppid).unwrap();
    let samples = profile.sum(|stack| {
        let mut names = stack.names.iter();
        stack.thread == "watched" && names.any(|name| name.ends_with("watched_work"))
    });
    eprintln!(
        "{samples} samples; kept calls by number: {:?}",
        kept_calls()
    );
    assert_eq!(kept_calls(), [(number, tries)], "only the test's own call");
    assert!(samples > 500.0, "{samples}");
}
