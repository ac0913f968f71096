//! Threads and stacks of unusual kinds: sampling them neither faults nor loses them.
#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::multiple_unsafe_ops_per_block,
    reason = "tests"
)]

mod sampling;

use std::cell::Cell;
use std::fs;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use sampling::{Profile, agent, burn, during, named, own_cpu, serial, tolerance};

const HERTZ: u32 = 999;
const PAGE: usize = 4096;

/// Samples of a thread in which a function of this file is at work.
fn reach(profile: &Profile, thread: &str, function: &str) -> f64 {
    profile.sum(|stack| {
        let mut names = stack.names.iter();
        stack.thread == thread && names.any(|name| name.ends_with(function))
    })
}

/// A stack with nothing readable above it or below it.
struct Island {
    mapped: *mut libc::c_void,
    bytes: usize,
}

impl Island {
    fn new(bytes: usize) -> Self {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes + 2 * PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(mapped, libc::MAP_FAILED);
        // SAFETY: the range lies inside the mapping made above.
        let result = unsafe {
            libc::mprotect(
                mapped.byte_add(PAGE),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        assert_eq!(result, 0);
        Self { mapped, bytes }
    }

    fn low(&self) -> *mut libc::c_void {
        // SAFETY: inside the mapping.
        unsafe { self.mapped.byte_add(PAGE) }
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody runs on any more.
        unsafe { libc::munmap(self.mapped, self.bytes + 2 * PAGE) };
    }
}

unsafe extern "C" {
    fn getcontext(context: *mut libc::ucontext_t) -> libc::c_int;
    fn makecontext(
        context: *mut libc::ucontext_t,
        run: extern "C" fn(),
        arguments: libc::c_int,
        ...
    );
    fn swapcontext(save: *mut libc::ucontext_t, next: *const libc::ucontext_t) -> libc::c_int;
}

thread_local! {
    /// The contexts of the thread itself and of its coroutine, and how long that is to run.
    static CONTEXTS: Cell<[*mut libc::ucontext_t; 2]> = const { Cell::new([ptr::null_mut(); 2]) };
}

/// One millisecond at a time, then back to the thread's own stack.
#[inline(never)]
extern "C" fn coroutine() {
    loop {
        in_coroutine();
        let [own, other] = CONTEXTS.get();
        // SAFETY: both contexts live as long as the thread that runs here.
        unsafe { swapcontext(other, own) };
    }
}

#[inline(never)]
fn in_coroutine() {
    burn(Duration::from_millis(1));
}

#[inline(never)]
fn on_the_own_stack() {
    burn(Duration::from_millis(1));
}

/// Switches between its own stack and a coroutine's until both have run for this long.
fn switches(time: Duration) -> Duration {
    let island = Island::new(64 << 10);
    let start = own_cpu();
    let mut own = MaybeUninit::<libc::ucontext_t>::zeroed();
    let mut other = MaybeUninit::<libc::ucontext_t>::zeroed();
    CONTEXTS.set([own.as_mut_ptr(), other.as_mut_ptr()]);
    // SAFETY: the context is a live local and gets a stack of its own, which outlives its last use.
    unsafe {
        assert_eq!(getcontext(other.as_mut_ptr()), 0);
        let context = &mut *other.as_mut_ptr();
        context.uc_stack.ss_sp = island.low();
        context.uc_stack.ss_size = island.bytes;
        context.uc_link = ptr::null_mut();
        makecontext(context, coroutine, 0);
    }
    while own_cpu() - start < time {
        on_the_own_stack();
        let [own, other] = CONTEXTS.get();
        // SAFETY: made above; the coroutine comes back by the same call.
        assert_eq!(unsafe { swapcontext(own, other) }, 0);
    }
    own_cpu() - start
}

#[test]
fn coroutine_beside_guard_page() {
    let _turn = serial();
    let (profile, used) = during(
        &agent(),
        HERTZ,
        || {},
        |()| {
            let threads = ["switch-a", "switch-b"].map(|name| {
                // A thread's first tenth of a second is sampled by the process's timer, whose signals
                // fall to one thread or another: the work is long beside that.
                let work = || switches(Duration::from_secs(4));
                (name, named(name, work))
            });
            threads.map(|(name, thread)| (name, thread.join().unwrap()))
        },
    );
    for (name, used) in used {
        let all = profile.of(name);
        let coroutine = reach(&profile, name, "cpu_stacks::in_coroutine");
        let own = reach(&profile, name, "cpu_stacks::on_the_own_stack");
        let due = used.as_secs_f64() * f64::from(HERTZ);
        eprintln!(
            "{name}: {all} of {due:.0}, {coroutine} in the coroutine, {own} on its own stack"
        );
        assert!(
            coroutine + own >= 0.95 * all,
            "{coroutine} + {own} of {all}"
        );
        assert!(coroutine >= 0.35 * all && own >= 0.35 * all);
        assert!((all - due).abs() <= 0.03 * due, "{all} of {due}");
    }
}

#[inline(never)]
extern "C" fn on_the_alternate_stack(_signal: libc::c_int) {
    let place = 0_u8;
    ON.set(ptr::from_ref(&place).addr());
    burn(Duration::from_millis(500));
}

thread_local! {
    /// An address on the stack that the handler ran on.
    static ON: Cell<usize> = const { Cell::new(0) };
}

fn alternates() {
    let island = Island::new(64 << 10);
    let stack = libc::stack_t {
        ss_sp: island.low(),
        ss_flags: 0,
        ss_size: island.bytes,
    };
    let mut before = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: both are live locals; the stack outlives its use.
    let set = unsafe { libc::sigaltstack(&raw const stack, before.as_mut_ptr()) };
    assert_eq!(set, 0);
    // SAFETY: all-zero bytes are a valid action with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_the_alternate_stack as *const () as usize;
    action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler only works, which any handler may; nobody else uses the signal here.
    unsafe {
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()),
            0
        );
        libc::raise(libc::SIGUSR1);
        libc::sigaltstack(before.as_ptr(), ptr::null_mut());
    }
    let low = island.low().addr();
    assert!((low..low + island.bytes).contains(&ON.get()));
}

#[test]
fn an_alternate_signal_stack_is_sampled() {
    let _turn = serial();
    let (profile, ()) = during(
        &agent(),
        HERTZ,
        || {},
        |()| {
            named("alternate", alternates).join().unwrap();
        },
    );
    let all = profile.of("alternate");
    let handler = reach(&profile, "alternate", "cpu_stacks::on_the_alternate_stack");
    // The kernel's trampoline has unwind information: the interrupted function is on the stack too,
    // but its frames lie on another one, which a slice of this one does not hold.
    eprintln!("{handler} of {all} samples reach the handler on the alternate stack");
    assert!(all > 350.0 && handler >= 0.95 * all, "{handler} of {all}");
}

#[test]
fn threads_with_the_smallest_stacks_survive_and_are_sampled() {
    let _turn = serial();
    let (profile, used) = during(
        &agent(),
        HERTZ,
        || {},
        |()| {
            let threads = (0..8).map(|_| {
                let small = thread::Builder::new().name("small".to_owned());
                let small = small.stack_size(16 << 10);
                let thread = small.spawn(|| burn(Duration::from_millis(200))).unwrap();
                thread.join().unwrap()
            });
            threads.sum::<Duration>()
        },
    );
    let (all, due) = (profile.of("small"), used.as_secs_f64() * f64::from(HERTZ));
    let whole = reach(&profile, "small", "sampling::burn");
    eprintln!("{all} of {due:.0}, {whole} reach their function");
    // How many there are is asked in `cpu_truth`, on an idle machine: on a busy one each of these short
    // threads is found late. None that survives here is sampled less than half or more than it worked.
    assert!((0.5..=1.05).contains(&(all / due)), "{all} of {due}");
    assert!(whole >= 0.97 * all, "{whole} of {all}");
}

fn tid() -> u32 {
    // SAFETY: takes nothing, changes nothing.
    u32::try_from(unsafe { libc::gettid() }).unwrap()
}

/// Where the kernel keeps the id that it gave last; writing it takes a privilege.
const LAST: &str = "/proc/sys/kernel/ns_last_pid";

#[test]
fn reused_tid_is_rearmed() {
    let _turn = serial();
    if fs::read_to_string(LAST).is_ok_and(|last| fs::write(LAST, last).is_err()) {
        eprintln!("skipped: {LAST} cannot be written by this user");
        return;
    }
    let (profile, used) = during(&agent(), HERTZ, || {}, |()| two_of_one_id());
    let (seen, due) = (profile.of("second"), used.as_secs_f64() * f64::from(HERTZ));
    // An ended thread's id on another one is found at the next full look, a second later at most.
    let least = (used.as_secs_f64() - 1.1) * f64::from(HERTZ);
    eprintln!("the second thread of the same id: {seen} of {due:.0} samples");
    assert!(seen >= least - tolerance(1.0, HERTZ), "{seen} of {due}");
    assert!(
        seen <= 1.03 * due + tolerance(1.0, HERTZ),
        "{seen} of {due}"
    );
}

/// A thread ends, the next one gets its id; says how much CPU time that one used.
fn two_of_one_id() -> Duration {
    let begin = Instant::now();
    let first = named("first", || {
        burn(Duration::from_millis(300));
        tid()
    });
    let first = first.join().unwrap();
    // Other processes start too: one of them may get the id first.
    while begin.elapsed() < Duration::from_secs(10) {
        fs::write(LAST, (first - 1).to_string()).unwrap();
        let (go, wait) = channel();
        let (say, hear) = channel();
        let thread = named("second", move || {
            say.send(tid()).unwrap();
            burn(wait.recv().unwrap())
        });
        let same = hear.recv().unwrap() == first;
        go.send(if same {
            Duration::from_millis(2500)
        } else {
            Duration::ZERO
        })
        .unwrap();
        let used = thread.join().unwrap();
        if same {
            return used;
        }
    }
    panic!("the id did not come back");
}
