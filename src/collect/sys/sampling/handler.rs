//! The sampling handler.
//!
//! On the path from [`handle`] nothing allocates, locks, formats, unwinds, panics or touches a
//! thread-local that is built on first use. Its only library call is memcpy. System calls are made
//! only where nothing is known of the running thread: `process_vm_readv` for stack bytes whose bounds
//! are not known (it cannot fault), and for a thread without a timer of its own its id and its name.
#![expect(unsafe_code, reason = "a signal handler")]

use std::sync::atomic::Ordering;

use super::arena::{Head, STACK_BYTES};
use super::ask::Question;
use super::records::{self, Record, ThreadName};
use super::registers::{Registers, interrupted, thread_pointer};
use super::sampler::Sampler;
use super::timer::{self, Cookie};
use crate::store::label::{self, Mark};

/// The handler's address, for `sigaction`.
pub(crate) fn address() -> usize {
    handle as *const () as usize
}

/// Runs on the interrupted thread.
extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(sampler) = Sampler::get() else {
        return;
    };
    // First of all: in a forked child the arena is not mapped.
    if sampler.alive.load(Ordering::Relaxed) != 1 {
        return;
    }
    // SAFETY: the C library's location of this thread's errno is always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    sampler.running.fetch_add(1, Ordering::AcqRel);
    sample(sampler, info, context);
    sampler.running.fetch_sub(1, Ordering::AcqRel);
    // SAFETY: as above.
    unsafe { *errno = kept };
}

/// The head of the kernel's siginfo as a timer's signal fills it on every 64-bit Linux; the C library's
/// bindings do not show the overrun.
#[repr(C)]
struct TimerInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    timer: i32,
    overrun: i32,
    value: u64,
}

pub(super) fn sample(sampler: &Sampler, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a whole siginfo of 128 bytes, all of them written.
    let info = unsafe { &*info.cast::<TimerInfo>() };
    let counts = &sampler.counts;
    if info.code != libc::SI_TIMER {
        if let Some(question) = sampler.asks.question(info.code, info.value) {
            return answer(sampler, question, interrupted(context));
        }
        counts.fired.fetch_add(1, Ordering::Relaxed);
        counts.lost_foreign.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let weight = u32::try_from(info.overrun).unwrap_or(0).saturating_add(1);
    let cookie = Cookie::from_bits(info.value);
    let registers = interrupted(context);
    if cookie == Cookie::PROCESS {
        return unmet_thread(sampler, registers);
    }
    let off = sampler.period_nanos.load(Ordering::Relaxed) == 0;
    let record = sampler.records.get(cookie.number, cookie.generation);
    let weight = match record {
        Some(record) if !off && record.fresh.swap(false, Ordering::Relaxed) => {
            sampler.first_weight(record)
        }
        _ => weight,
    };
    counts.fired.fetch_add(u64::from(weight), Ordering::Relaxed);
    let lost = match record {
        _ if off => &counts.lost_off,
        None => &counts.lost_busy,
        Some(_) if weight == 0 => return,
        Some(record) => return record_sample(sampler, record, weight, registers),
    };
    lost.fetch_add(u64::from(weight), Ordering::Relaxed);
}

/// The process's timer met some thread: one with a timer of its own is sampled by that one already.
///
/// Of the ticks only some bring a signal: where two cores tick at the same moment the first one takes it,
/// 0.83 per tick on two busy cores (C program, 2026-11-26, 2-core VM). So each signal stands for the CPU
/// time between two of them, which the watcher measures; overruns say nothing, since they count the CPU
/// time of all threads. To give the thread a timer here instead saw 0.98 to 0.99 of threads of 20 ms on a
/// quiet machine, and 0.88 and 0.68 in two windows beside a build, where this way was not measured.
fn unmet_thread(sampler: &Sampler, registers: Registers) {
    let period_nanos = sampler.period_nanos.load(Ordering::Relaxed);
    if period_nanos == 0 {
        return;
    }
    sampler.ticks.fetch_add(1, Ordering::Relaxed);
    let tid = timer::current_tid();
    if sampler.records.of(tid).is_some() {
        return;
    }
    let name = timer::current_name();
    if records::is_agents_own(&name) {
        return;
    }
    sampler.unmet.fetch_add(1, Ordering::Relaxed);
    let part = sampler.tick_nanos.load(Ordering::Relaxed);
    let weight = sampler.shares.share(part, period_nanos);
    if weight == 0 {
        return;
    }
    let counts = &sampler.counts;
    counts.fired.fetch_add(u64::from(weight), Ordering::Relaxed);
    write(sampler, weight, tid, name, registers, |stack| {
        copy_by_kernel(stack, registers.sp)
    });
}

/// Somebody asked this thread what it does. Its stack is copied by the kernel, since a thread that was
/// never sampled has no known bounds.
fn answer(sampler: &Sampler, question: Question, registers: Registers) {
    sampler.asks.answer(question, |stack| Head {
        weight: question.session,
        tid: question.tid,
        pc: registers.pc,
        sp: registers.sp,
        fp: registers.fp,
        lr: registers.lr,
        len: copy_by_kernel(stack, registers.sp),
        ..Head::default()
    });
}

fn record_sample(sampler: &Sampler, record: &Record, weight: u32, registers: Registers) {
    let low = record.low.load(Ordering::Acquire) as u64;
    let high = record.high.load(Ordering::Acquire) as u64;
    record.seen.store(true, Ordering::Relaxed);
    if low == 0 {
        // The first samples of a thread: by now it has the name that it gave itself at its start.
        record.set_name(timer::current_name());
        record
            .thread_pointer
            .store(thread_pointer(), Ordering::Release);
        sampler.wants_bounds.store(true, Ordering::Release);
    }
    let (tid, name) = (record.tid(), record.name());
    write(sampler, weight, tid, name, registers, |stack| {
        if (low..high).contains(&registers.sp) {
            copy_within(stack, registers.sp, high)
        } else {
            // A coroutine's stack or an alternate one: nothing is known of what lies above it, and a
            // read could run into a guard page.
            copy_by_kernel(stack, registers.sp)
        }
    });
}

#[inline]
fn write(
    sampler: &Sampler,
    weight: u32,
    tid: u32,
    name: ThreadName,
    registers: Registers,
    copy: impl FnOnce(*mut u8) -> u32,
) {
    let written = sampler.arena.write(|stack| Head {
        weight,
        tid,
        pc: registers.pc,
        sp: registers.sp,
        fp: registers.fp,
        lr: registers.lr,
        len: copy(stack),
        name,
        mark: if sampler.reads_marks {
            label::interrupted()
        } else {
            Mark::NONE
        },
    });
    let counter = if written {
        &sampler.counts.recorded
    } else {
        &sampler.counts.lost_full
    };
    counter.fetch_add(u64::from(weight), Ordering::Relaxed);
}

/// Copies the stack from `sp` up to `high`, as far as there is room.
#[inline]
fn copy_within(stack: *mut u8, sp: u64, high: u64) -> u32 {
    let above = usize::try_from(high.saturating_sub(sp)).unwrap_or(0);
    let bytes = above.min(STACK_BYTES);
    // SAFETY: `[sp, high)` is the used part of this thread's stack mapping, which cannot go away
    // while the thread runs here; `stack` has room for STACK_BYTES.
    unsafe { std::ptr::copy_nonoverlapping(sp as *const u8, stack, bytes) };
    u32::try_from(bytes).unwrap_or(0)
}

/// Has the kernel copy the stack from `sp` upwards as far as it is readable, which cannot fault; not
/// beyond the thread's own block, which lies at the top of most stacks.
#[cold]
fn copy_by_kernel(stack: *mut u8, sp: u64) -> u32 {
    let above = (thread_pointer() as u64).checked_sub(sp);
    let bytes = above.map_or(KERNEL_BYTES as u64, |above| above.min(KERNEL_BYTES as u64));
    let local = libc::iovec {
        iov_base: stack.cast(),
        iov_len: usize::try_from(bytes).unwrap_or(0),
    };
    let mut remote = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; PIECES];
    // Pages, since the kernel stops at the first piece that it cannot read whole.
    let mut at = sp;
    let mut left = bytes;
    for piece in &mut remote {
        let in_page = (4096 - at % 4096).min(left);
        *piece = libc::iovec {
            iov_base: at as *mut libc::c_void,
            iov_len: usize::try_from(in_page).unwrap_or(0),
        };
        at = at.wrapping_add(in_page);
        left = left.saturating_sub(in_page);
    }
    // SAFETY: takes nothing, changes nothing.
    let pid = unsafe { libc::getpid() };
    // SAFETY: `local` covers the slot's stack bytes; the kernel checks the remote addresses itself.
    let read = unsafe {
        libc::process_vm_readv(
            pid,
            &raw const local,
            1,
            remote.as_ptr(),
            PIECES as libc::c_ulong,
            0,
        )
    };
    u32::try_from(read).unwrap_or(0)
}

/// Pages that a slice of stack may touch.
const PIECES: usize = KERNEL_BYTES / 4096 + 1;
/// Bytes that the kernel is asked for: half a slot, so that the list of pieces is half a KiB of the
/// interrupted thread's stack, which may be a small one.
const KERNEL_BYTES: usize = STACK_BYTES / 2;

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    #[test]
    fn the_kernel_copies_a_stack_and_stops_where_it_ends() {
        let copy = || {
            let mut slot = vec![0_u8; STACK_BYTES];
            let known = [0x5a_u8; 64];
            let length = copy_by_kernel(slot.as_mut_ptr(), known.as_ptr() as u64);
            assert_eq!(slot[..64], known);
            (length, thread_pointer() - known.as_ptr() as usize)
        };
        let (length, above) = std::thread::spawn(copy).join().unwrap();
        assert_eq!(length as usize, above.min(KERNEL_BYTES));
        let mut slot = vec![0_u8; STACK_BYTES];
        assert_eq!(
            copy_by_kernel(slot.as_mut_ptr(), 8),
            0,
            "nothing is mapped there"
        );
        assert_eq!(copy_by_kernel(slot.as_mut_ptr(), u64::MAX - 8), 0);
    }

    fn sampler(slots: usize) -> Sampler {
        let sampler = Sampler::new(slots, libc::SIGRTMAX()).unwrap();
        sampler.set_period(Duration::from_millis(1));
        sampler
    }

    /// A signal as the kernel hands it over, at a place in this thread's stack.
    fn signal(sampler: &Sampler, code: i32, overrun: i32, cookie: Cookie, sp: u64) {
        let mut info = [0_u64; 16];
        info[1] = u64::from(code.cast_unsigned());
        info[2] = u64::from(overrun.cast_unsigned()) << 32;
        info[3] = u64::from(cookie.number) | u64::from(cookie.generation) << 32;
        // SAFETY: all-zero bytes are a valid context.
        let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
        context.uc_mcontext.gregs[15] = sp.cast_signed();
        sample(sampler, info.as_mut_ptr().cast(), (&raw mut context).cast());
    }

    #[test]
    fn every_signal_is_recorded_or_lost_for_one_reason() {
        let sampler = sampler(1);
        let (number, record) = sampler.records.claim(timer::current_tid()).unwrap();
        record.arm(-1);
        let own = Cookie {
            number,
            generation: record.generation(),
        };
        let stack = [7_u64; 1 + STACK_BYTES / 8];
        let sp = stack.as_ptr() as u64;
        record
            .high
            .store(stack.as_ptr_range().end as usize, Ordering::Relaxed);
        record.low.store(stack.as_ptr() as usize, Ordering::Relaxed);
        let send = |code, overrun, cookie| signal(&sampler, code, overrun, cookie, sp);
        send(libc::SI_TIMER, 3, own);
        send(libc::SI_TIMER, 1, own);
        send(libc::SI_USER, 9, own);
        let reused = Cookie {
            generation: own.generation + 1,
            ..own
        };
        send(libc::SI_TIMER, 0, reused);
        // This thread has a timer of its own.
        send(libc::SI_TIMER, 50, Cookie::PROCESS);
        sampler.set_period(Duration::ZERO);
        send(libc::SI_TIMER, 4, own);
        let counts = &sampler.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(read(&counts.recorded), 4);
        assert_eq!(read(&counts.lost_full), 2);
        assert_eq!(read(&counts.lost_foreign), 1);
        assert_eq!(read(&counts.lost_busy), 1);
        assert_eq!(read(&counts.lost_off), 5);
        assert_eq!(read(&counts.fired), 4 + 2 + 1 + 1 + 5);
        let mut seen = Vec::new();
        sampler
            .arena
            .drain(|head, stack| seen.push((head.weight, stack.len(), stack[0])));
        assert_eq!(seen, [(4, STACK_BYTES, 7)]);
    }

    #[test]
    fn a_question_is_answered_apart_from_the_timers_samples_and_counts() {
        let sampler: &'static Sampler = Box::leak(Box::new(sampler(1)));
        let session = sampler.asks.begin().unwrap();
        // Asking works while no timer runs, too.
        sampler.set_period(Duration::ZERO);
        let here = [7_u64; 4096];
        let sp = here.as_ptr() as u64;
        signal(sampler, libc::SI_QUEUE, 0, session.cookie(41), sp);
        let mut taken = Vec::new();
        session.take(|head, stack| {
            // Up to the slot's size or the end of this thread's stack, whichever comes first.
            assert!(stack.len() >= size_of_val(&here), "{}", stack.len());
            taken.push((head.tid, head.sp, stack[0]));
        });
        assert_eq!(taken, [(41, sp, 7)]);
        let forged = Cookie {
            generation: session.cookie(41).generation ^ 1,
            ..session.cookie(41)
        };
        signal(sampler, libc::SI_QUEUE, 0, forged, sp);
        session.take(|_, _| panic!("a forged question was answered"));
        let counts = &sampler.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((read(&counts.fired), read(&counts.lost_foreign)), (1, 1));
        sampler
            .arena
            .drain(|_, _| panic!("an answer among samples"));
    }

    #[test]
    fn a_thread_for_which_no_timer_is_left_is_sampled_in_its_share_of_ticks() {
        let mut sampler = sampler(64);
        sampler.allowed = 0;
        sampler.set_period(Duration::from_millis(10));
        let here = [7_u64; 4096];
        for _ in 0..50 {
            signal(
                &sampler,
                libc::SI_TIMER,
                9,
                Cookie::PROCESS,
                here.as_ptr() as u64,
            );
        }
        let mut weight = 0;
        sampler.arena.drain(|head, stack| {
            weight += head.weight;
            assert!(stack.len() >= size_of_val(&here));
            assert_eq!(head.name, timer::current_name());
        });
        let due = 50.0 * timer::tick().as_secs_f64() / 0.01;
        assert!((f64::from(weight) - due).abs() <= 2.0, "{weight} of {due}");
    }

    #[test]
    fn the_first_signal_of_a_timer_weighs_one_tick_and_the_others_their_periods() {
        let sampler = sampler(64);
        sampler.set_period(Duration::from_millis(10));
        let (number, record) = sampler.records.claim(timer::current_tid()).unwrap();
        record.arm(-1);
        let own = Cookie {
            number,
            generation: record.generation(),
        };
        let here = [7_u64; 64];
        let mut first = 0;
        for _ in 0..50 {
            record.fresh.store(true, Ordering::Relaxed);
            for overrun in [9, 3] {
                signal(&sampler, libc::SI_TIMER, overrun, own, here.as_ptr() as u64);
            }
            let mut weights = Vec::new();
            sampler.arena.drain(|head, _| weights.push(head.weight));
            assert_eq!(weights.pop(), Some(4));
            first += weights.pop().unwrap_or(0);
        }
        let due = 50.0 * timer::tick().as_secs_f64() / 0.01;
        assert!((f64::from(first) - due).abs() <= 2.0, "{first} of {due}");
    }

    /// Prints; what it costs is judged by whoever reads it.
    #[test]
    fn the_handlers_cost() {
        let sampler = sampler(64);
        let (number, record) = sampler.records.claim(timer::current_tid()).unwrap();
        record.arm(-1);
        let own = Cookie {
            number,
            generation: record.generation(),
        };
        let stack = [7_u64; 1 + STACK_BYTES / 8];
        record
            .high
            .store(stack.as_ptr_range().end as usize, Ordering::Relaxed);
        record.low.store(stack.as_ptr() as usize, Ordering::Relaxed);
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = std::time::Instant::now();
            for _ in 0..64 {
                signal(&sampler, libc::SI_TIMER, 0, own, stack.as_ptr() as u64);
            }
            times.push(start.elapsed() / 64);
            sampler.arena.drain(|_, _| {});
        }
        times.sort();
        let recorded = sampler.counts.recorded.load(Ordering::Relaxed);
        assert_eq!(recorded, 64 * 200);
        eprintln!("handler: median {:?}, worst {:?}", times[100], times[199]);
    }
}
