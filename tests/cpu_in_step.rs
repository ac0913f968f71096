//! Work that keeps step with the kernel's tick, at which alone it looks at CPU clocks.
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

use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sampling::{agent, ask, during, named, own_cpu, serial, tick, tolerance};
use streamgate_agent::AgentHandle;

fn now(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap()
}

/// When the kernel has just ticked: the coarse clock moves then.
fn at_a_tick() -> Duration {
    let before = now(ClockId::MonotonicCoarse);
    while now(ClockId::MonotonicCoarse) == before {}
    now(ClockId::Monotonic)
}

fn sleep_until(time: Duration) {
    let until = libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap(),
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: `until` is a live local; nothing is told of an interruption.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        )
    };
}

/// Works between ticks and sleeps at each; CPU time used since the first of them.
fn dodge(work: Duration) -> Duration {
    let tick = tick();
    let start = own_cpu();
    let mut next = at_a_tick();
    while own_cpu() - start < work {
        while next < now(ClockId::Monotonic) {
            next += tick;
        }
        sleep_until(next + tick / 8);
        while now(ClockId::Monotonic) < next + tick / 2 {}
    }
    own_cpu() - start
}

/// Samples of such a thread, and how many its CPU time should have given.
fn dodger(agent: &AgentHandle, hertz: u32) -> (f64, f64) {
    let prepare = || {
        let (go, begin) = channel::<()>();
        let (tell, told) = channel();
        let (end, ended) = channel::<()>();
        let thread = named("dodger", move || {
            begin.recv().unwrap();
            tell.send(dodge(Duration::from_millis(600))).unwrap();
            // It outlives the window.
            ended.recv().unwrap_err();
        });
        (go, told, (end, thread))
    };
    let (profile, (used, kept)) = during(agent, hertz, prepare, |(go, told, kept)| {
        go.send(()).unwrap();
        (told.recv().unwrap(), kept)
    });
    let (end, thread) = kept;
    drop(end);
    thread.join().unwrap();
    let (seen, due) = (profile.of("dodger"), used.as_secs_f64() * f64::from(hertz));
    eprintln!("{seen} of {due:.1}");
    (seen, due)
}

/// As a service does that is called in step with the tick. No tick meets it, so nobody knows its stack;
/// that it used the CPU is known all the same.
#[test]
fn a_thread_that_no_tick_meets_has_its_samples_when_the_window_ends() {
    let _turn = serial();
    let agent = agent();
    let (seen, due) = dodger(&agent, 99);
    assert!((seen - due).abs() <= tolerance(1.0, 99), "{seen} of {due}");
}

#[test]
fn such_samples_are_due_at_the_end_of_a_window_within_a_longer_one() {
    let _turn = serial();
    let agent = agent();
    let longer = ask(&agent, 99, 60);
    let (seen, due) = dodger(&agent, 99);
    assert!((seen - due).abs() <= tolerance(1.0, 99), "{seen} of {due}");
    // The next test's agent can sample only once this one has ended.
    let stopped = agent.shutdown_blocking(Duration::from_secs(10));
    assert_eq!(stopped.still_running, [""; 0]);
    drop(longer);
}
