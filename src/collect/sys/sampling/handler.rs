//! The sampling handler.
//!
//! On the path from [`handle`] nothing allocates, locks, formats, unwinds, panics or touches a
//! thread-local that is built on first use. Its only library call is memcpy. System calls are made
//! only where nothing is known of the running thread: `process_vm_readv` for stack bytes whose bounds
//! are not known (it cannot fault), and for a thread without a timer of its own its id and name.
#![expect(unsafe_code, reason = "a signal handler")]

use std::sync::atomic::Ordering;

use super::arena::Head;
use super::ask::Question;
use super::records::{self, Record, ThreadName};
use super::registers::{Registers, interrupted, thread_pointer};
use super::sampler::Sampler;
use super::stack_copy::{by_kernel, within};
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
    let period_nanos = sampler.period_nanos.load(Ordering::Relaxed);
    let off = period_nanos == 0;
    let record = sampler.records.get(cookie.number, cookie.generation);
    let late = record.filter(|record| !off && record.late_nanos.load(Ordering::Relaxed) > 0);
    let late = late.map_or(0, |record| {
        let nanos = record.late_nanos.swap(0, Ordering::Relaxed);
        sampler.late_shares.take(nanos, period_nanos)
    });
    let weight = weight.saturating_add(late);
    if let Some(record) = record {
        let signalled = &record.signalled;
        signalled.fetch_add(weight.into(), Ordering::Relaxed);
    }
    counts.fired.fetch_add(u64::from(weight), Ordering::Relaxed);
    let lost = match record {
        _ if off => &counts.lost_off,
        None => &counts.lost_busy,
        Some(record) => return record_sample(sampler, record, weight, registers),
    };
    lost.fetch_add(u64::from(weight), Ordering::Relaxed);
}

/// The process's timer met some thread: one with a timer of its own is sampled by that one already.
///
/// Its signal comes on nearly every tick of a running thread, so each stands for the CPU time between
/// two of them, which the watcher measures; overruns say nothing, since they count the CPU time of all
/// threads.
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
    let weight = sampler.unmet_shares.take(part, period_nanos);
    if weight == 0 {
        return;
    }
    let counts = &sampler.counts;
    counts.fired.fetch_add(u64::from(weight), Ordering::Relaxed);
    write(sampler, weight, tid, name, registers, |stack| {
        unbounded(stack, registers.sp)
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
        len: unbounded(stack, registers.sp),
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
            within(stack, registers.sp, high)
        } else {
            // A coroutine's stack or an alternate one: nothing is known of what lies above it, and a
            // read could run into a guard page.
            unbounded(stack, registers.sp)
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

/// Copies the stack from `sp` upwards where its bounds are not known; not beyond the thread's own block,
/// which lies at the top of most stacks.
#[cold]
fn unbounded(stack: *mut u8, sp: u64) -> u32 {
    let above = (thread_pointer() as u64).checked_sub(sp);
    by_kernel(stack, sp, above.unwrap_or(u64::MAX))
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::super::arena::STACK_BYTES;
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

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
    fn a_thread_without_a_timer_is_sampled_in_its_share_of_ticks() {
        let sampler = sampler(64);
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
        assert_eq!(weight, 20, "50 ticks of 4 ms at 10 ms");
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
