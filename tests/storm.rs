//! Sampling of CPU at 999 Hz and of the heap every 4 KiB while the process does all that samplers are
//! known to die of.
//!
//! Five seconds; a minute where `CI` is set; `STREAMGATE_STORM_SECONDS` says otherwise.
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
    clippy::zombie_processes,
    reason = "tests; children are waited for by number"
)]

mod sampling;

use std::alloc::System;
use std::backtrace::Backtrace;
use std::io::{Error, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{catch_unwind, panic_any, set_hook};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sampling::{agent, burn, spin, take};
use streamgate_agent::ProfiledAllocator;
use streamgate_agent::bench_door::{
    HeapStacks, cpu_signals, heap_counts, heap_live, leave_out_this_thread, set_heap_rate,
};

#[global_allocator]
static ALLOCATOR: ProfiledAllocator<System> = ProfiledAllocator::new(System);

/// The signal that carries our samples: the highest, as nobody else in these tests takes one.
const SIGNAL: i32 = 64;

// ---- What the process does by itself ----

fn backtraces() {
    let text = format!("{}", Backtrace::force_capture());
    assert!(text.contains("backtraces"));
}

fn unwinds() {
    for _ in 0..100 {
        assert!(catch_unwind(|| panic_any(7_u8)).is_err());
    }
}

/// Loads and unloads libraries of the system that nobody else uses.
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

fn programs() {
    assert!(Command::new("true").status().unwrap().success());
}

/// A child that goes on with the parent's code, handler included, and gets our signal.
fn forks() {
    // SAFETY: the child makes only calls that are allowed between fork and exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        for _ in 0..50 {
            std::hint::black_box(spin(1));
            // SAFETY: allowed in a forked child; the handler is the parent's.
            unsafe { libc::raise(SIGNAL) };
        }
        // SAFETY: ends the child without the parent's clean-up.
        unsafe { libc::_exit(7) };
    }
    let status = wait_for(child).unwrap();
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7,
        "{status}"
    );
}

/// The status of an ended child; `None` if the call failed.
fn wait_for(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status is a live local.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    (waited == child).then_some(status)
}

extern "C" fn within_a_handler(_signal: libc::c_int) {
    for _ in 0..20 {
        std::hint::black_box(spin(1));
    }
}

/// Another signal's handler is what the samples interrupt.
fn handlers() {
    for _ in 0..20 {
        // SAFETY: the handler was installed before the storm and only works.
        unsafe { libc::raise(libc::SIGUSR1) };
    }
}

fn install_handler() {
    // SAFETY: all-zero bytes are a valid action with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = within_a_handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler only works; a null old action is allowed.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// Code that no file and no unwind information belongs to, and that is gone a moment later.
#[cfg(target_arch = "x86_64")]
fn code() {
    // mov ecx, 1_000_000; dec ecx; jnz -4; ret
    const LOOP: [u8; 10] = [0xb9, 0x40, 0x42, 0x0f, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0xc3];
    let (write, execute) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_EXEC);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, write, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the page was mapped for writing just now.
    unsafe { ptr::copy_nonoverlapping(LOOP.as_ptr(), page.cast(), LOOP.len()) };
    // SAFETY: the range is the mapping made above.
    let set = unsafe { libc::mprotect(page, 4096, libc::PROT_READ | execute) };
    assert_eq!(set, 0);
    // SAFETY: the bytes are a function that takes nothing and returns.
    let run: extern "C" fn() = unsafe { std::mem::transmute(page) };
    run();
    // SAFETY: the mapping made above, which nobody runs any more.
    unsafe { libc::munmap(page, 4096) };
}

#[cfg(target_arch = "aarch64")]
fn code() {}

fn tasks() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..1000)
            .map(|_| tokio::spawn(async { tokio::task::yield_now().await }))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

const WORK: [(&str, fn()); 10] = [
    ("backtraces", backtraces),
    ("unwinds", unwinds),
    ("loads", loads),
    ("allocations", allocations),
    ("churn", churn),
    ("programs", programs),
    ("forks", forks),
    ("handlers", handlers),
    ("code", code),
    ("tasks", tasks),
];

/// A stack deeper than a slot holds and than frames are kept.
#[inline(never)]
fn deep(left: u32) -> u64 {
    let here = std::hint::black_box([u64::from(left); 32]);
    if left == 0 {
        return spin(1);
    }
    deep(left - 1) ^ here[7]
}

// ---- Threads that wait in the kernel ----

/// How often a blocking call returned, and how often because of a signal.
#[derive(Debug, Default)]
struct Calls {
    all: AtomicU64,
    interrupted: AtomicU64,
}

impl Calls {
    fn count(&self, interrupted: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.interrupted
            .fetch_add(u64::from(interrupted), Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.all), read(&self.interrupted))
    }
}

/// What the blocked threads wait on, and what they saw.
struct Blocked {
    pipe: [i32; 2],
    full: [i32; 2],
    sockets: [i32; 2],
    word: AtomicU32,
    calls: [Calls; 6],
    stop: AtomicBool,
    /// Nobody waits any more.
    ended: AtomicBool,
}

const READ: usize = 0;
const WRITE: usize = 1;
const RECV: usize = 2;
const FUTEX: usize = 3;
const WAIT: usize = 4;
const SLEEP: usize = 5;
/// Calls that go on by themselves after a signal; the last kind does not, on no system.
const NAMES: [&str; 6] = ["read", "write", "recv", "futex", "waitpid", "nanosleep"];

impl Blocked {
    fn new() -> Self {
        let pair = |make: &dyn Fn(*mut i32) -> i32| {
            let mut ends = [0; 2];
            assert_eq!(make(ends.as_mut_ptr()), 0);
            ends
        };
        // SAFETY: the pointer is to a live pair.
        let pipe = || pair(&|ends| unsafe { libc::pipe(ends) });
        let kind = libc::SOCK_STREAM;
        // SAFETY: as above.
        let sockets = pair(&|ends| unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends) });
        Self {
            pipe: pipe(),
            full: pipe(),
            sockets,
            word: AtomicU32::new(0),
            calls: Default::default(),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    fn wait(&self, kind: usize) {
        let mut bytes = vec![0_u8; 1 << 17];
        while !self.stop.load(Ordering::Relaxed) {
            let interrupted = self.call(kind, &mut bytes);
            self.calls[kind].count(interrupted);
        }
    }

    /// Says whether a signal ended the call.
    fn call(&self, kind: usize, bytes: &mut [u8]) -> bool {
        let place = bytes.as_mut_ptr().cast();
        match kind {
            // SAFETY: the descriptor is open, the buffer live; so for the next two.
            READ => was_interrupted(unsafe { libc::read(self.pipe[0], place, 1) } == -1),
            // More than a pipe holds: it waits half way.
            WRITE => {
                // SAFETY: see above.
                let written = unsafe { libc::write(self.full[1], place, bytes.len()) };
                was_interrupted(written == -1)
            }
            // SAFETY: see above.
            RECV => was_interrupted(unsafe { libc::recv(self.sockets[0], place, 1, 0) } == -1),
            FUTEX => {
                let seen = self.word.load(Ordering::Acquire);
                let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
                let (word, forever) = (self.word.as_ptr(), ptr::null::<libc::timespec>());
                // SAFETY: the word lives as long as this call.
                let result = unsafe { libc::syscall(libc::SYS_futex, word, wait, seen, forever) };
                was_interrupted(result == -1)
            }
            WAIT => {
                let child = Command::new("sleep").arg("0.01").spawn().unwrap();
                let child = i32::try_from(child.id()).unwrap();
                let interrupted = was_interrupted(wait_for(child).is_none());
                if interrupted {
                    wait_for(child).unwrap();
                }
                interrupted
            }
            _ => {
                let time = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 5_000_000,
                };
                // SAFETY: the time is a live local; no rest is asked for.
                was_interrupted(unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) } == -1)
            }
        }
    }

    /// Lets every wait end now and then.
    fn feed(&self) {
        let mut bytes = vec![0_u8; 1 << 17];
        while !self.ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(3));
            // SAFETY: the descriptors are open, the buffer live.
            unsafe { libc::write(self.pipe[1], bytes.as_ptr().cast(), 1) };
            // SAFETY: as above.
            unsafe { libc::send(self.sockets[1], bytes.as_ptr().cast(), 1, 0) };
            let mut waiting = 0;
            // SAFETY: the number is a live local.
            unsafe { libc::ioctl(self.full[0], libc::FIONREAD, &raw mut waiting) };
            if waiting > 0 {
                // SAFETY: the descriptor is open, the buffer live.
                unsafe { libc::read(self.full[0], bytes.as_mut_ptr().cast(), bytes.len()) };
            }
            self.word.fetch_add(1, Ordering::AcqRel);
            let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the word is live.
            unsafe { libc::syscall(libc::SYS_futex, self.word.as_ptr(), wake, 1) };
        }
    }
}

/// Whether the call that failed just now was ended by a signal.
fn was_interrupted(failed: bool) -> bool {
    failed && Error::last_os_error().raw_os_error() == Some(libc::EINTR)
}

// ---- What another process does to it ----

/// The head of a timer's siginfo, to be forged.
#[repr(C)]
struct Forged {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    timer: i32,
    overrun: i32,
    value: u64,
    rest: [u64; 12],
}

fn part_of(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", name])
        .stdin(Stdio::piped());
    command
}

/// Sends our signal to this process and to each of its threads until its input ends.
fn foreign_signals() -> Child {
    let mut command = part_of("another_process_sends_signals");
    let pid = std::process::id().to_string();
    let command = command.env("STREAMGATE_STORM_TARGET", pid);
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "the storm runs it as another process"]
fn another_process_sends_signals() {
    let Ok(target) = std::env::var("STREAMGATE_STORM_TARGET") else {
        return;
    };
    let pid: i32 = target.parse().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        flag.store(true, Ordering::Relaxed);
    });
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    while !ended.load(Ordering::Relaxed) {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            return;
        };
        for tid in threads.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok()) {
            // Any record of any generation, the process's own timer, and such as could be true.
            let value = match next() % 4 {
                0 => u64::MAX,
                1 => (next() % 4096) | ((next() % 4) << 32),
                _ => next(),
            };
            let forged = Forged {
                signal: SIGNAL,
                errno: 0,
                code: libc::SI_TIMER,
                padding: 0,
                timer: 3,
                overrun: i32::try_from(next() % 5).unwrap() - 1,
                value,
                rest: [0; 12],
            };
            let (kill, send) = (libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo);
            // SAFETY: the kernel reads a siginfo of 128 bytes, which lives. A thread that has ended,
            // or a full queue, is an error that changes nothing.
            unsafe { libc::syscall(send, pid, tid, SIGNAL, &raw const forged) };
            // SAFETY: numbers only.
            unsafe { libc::syscall(kill, pid, tid, SIGNAL) };
            // SAFETY: as above.
            unsafe { libc::kill(pid, SIGNAL) };
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Recurses until the stack ends.
#[inline(never)]
fn endless(left: u64) -> u64 {
    let here = std::hint::black_box([left; 64]);
    if left == u64::MAX {
        return 0;
    }
    endless(left + 1) ^ here[3]
}

#[test]
#[ignore = "runs as another process, which it ends"]
fn another_process_overflows_its_stack() {
    if std::env::var_os("STREAMGATE_STORM_TARGET").is_none() {
        return;
    }
    let agent = agent();
    let _taking = take(&agent, 999, 30);
    burn(Duration::from_millis(200));
    let thread = thread::Builder::new().name("overflows".to_owned());
    let thread = thread.spawn(|| endless(0)).unwrap();
    drop(thread.join());
}

#[test]
fn a_stack_overflow_is_still_reported_by_rust() {
    let mut command = part_of("another_process_overflows_its_stack");
    let command = command.env("STREAMGATE_STORM_TARGET", "itself");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(
        said.contains("thread 'overflows'") && said.contains("has overflowed its stack"),
        "{said}"
    );
}

// ---- The storm ----

fn length() -> Duration {
    let usual = if std::env::var_os("CI").is_some() {
        60
    } else {
        5
    };
    let told = std::env::var("STREAMGATE_STORM_SECONDS");
    Duration::from_secs(told.map_or(usual, |text| text.parse().unwrap()))
}

#[test]
fn storm_leaves_no_crash_no_hang_and_no_sample_unaccounted_for() {
    set_hook(Box::new(|info| {
        // The storm's own panics carry a number.
        if info.payload().downcast_ref::<u8>().is_none() {
            eprintln!("{info}");
        }
    }));
    install_handler();
    let agent = agent();
    // From now on the signal has its handler for good: before, a foreign one would end the process.
    take(&agent, 99, 1).profile();
    let stop = Arc::new(AtomicBool::new(false));
    let done: Arc<[AtomicU64; WORK.len()]> = Arc::default();
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(body).unwrap()
    };
    let workers = WORK.into_iter().enumerate().map(|(place, (name, work))| {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        let body = move || {
            while !stop.load(Ordering::Relaxed) {
                work();
                std::hint::black_box(deep(300));
                done[place].fetch_add(1, Ordering::Relaxed);
            }
        };
        spawn(name, Box::new(body))
    });
    let workers: Vec<_> = workers.collect();
    let blocked = Arc::new(Blocked::new());
    let waiters = NAMES.into_iter().enumerate().map(|(kind, name)| {
        let blocked = Arc::clone(&blocked);
        spawn(name, Box::new(move || blocked.wait(kind)))
    });
    let waiters: Vec<_> = waiters.collect();
    let feeder = {
        let blocked = Arc::clone(&blocked);
        spawn("feeder", Box::new(move || blocked.feed()))
    };
    set_heap_rate(4096, u64::MAX);
    let heap = {
        let stop = Arc::clone(&stop);
        spawn("heap", Box::new(move || heap(&stop)))
    };
    let mut foreign = foreign_signals();

    let end = Instant::now() + length();
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
        if profiles <= 3 {
            eprintln!(
                "{hertz} Hz: {all} samples, {cut} truncated ({deep} in deep stacks); {:?}",
                profile.comments
            );
        }
        assert!(all > 0.0);
    }
    assert!(
        foreign.try_wait().unwrap().is_none(),
        "signals came to the end"
    );
    drop(foreign.stdin.take());
    assert!(foreign.wait().unwrap().success());
    stop.store(true, Ordering::Relaxed);
    blocked.stop.store(true, Ordering::Relaxed);
    for thread in workers.into_iter().chain(waiters) {
        thread.join().unwrap();
    }
    blocked.ended.store(true, Ordering::Relaxed);
    feeder.join().unwrap();
    heap.join().unwrap();
    set_heap_rate(0, u64::MAX);

    for ((name, _), times) in WORK.iter().zip(done.iter()) {
        let times = times.load(Ordering::Relaxed);
        eprintln!("{name}: {times} times");
        assert!(times > 0, "{name} was never done");
    }
    for (name, calls) in NAMES.into_iter().zip(&blocked.calls) {
        let (all, interrupted) = calls.read();
        eprintln!("{name}: {all} calls, {interrupted} interrupted");
        assert!(all > 0);
        if name == NAMES[SLEEP] {
            // Signals did reach waiting threads.
            assert!(interrupted > 0);
        } else {
            assert_eq!(interrupted, 0, "{name} was interrupted for good");
        }
    }
    let [fired, recorded, lost] = settled();
    eprintln!("{profiles} profiles: fired {fired} = recorded {recorded} + lost {lost}");
    assert_eq!(fired, recorded + lost);
    assert!(recorded > 1000 && lost > 1000);
}

/// Follows the stacks of sampled blocks and walks the table of those that live, as the agent does.
fn heap(stop: &AtomicBool) {
    leave_out_this_thread();
    let (mut stacks, mut followed, mut walks) = (HeapStacks::default(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        followed += stacks.drain().len();
        let live = heap_live();
        assert!(
            live.iter()
                .all(|block| block.size > 0 && block.objects >= 1.0)
        );
        walks += 1;
    }
    let counts = heap_counts();
    eprintln!("heap: {counts:?}, {followed} stacks followed, {walks} walks");
    assert!(followed > 1000 && counts.freed > 1000);
    assert_eq!(counts.blocks_lost, 0);
}

/// The counts once no signal is on its way any more.
fn settled() -> [u64; 3] {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut before = cpu_signals().unwrap();
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = cpu_signals().unwrap();
        if now == before || Instant::now() > deadline {
            return now;
        }
        before = now;
    }
}
