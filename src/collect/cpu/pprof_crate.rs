//! CPU samples by the `pprof` crate: SIGPROF at a rate of the process's CPU time.
//!
//! The crate unwinds in the signal handler, which is only safe outside the libraries that the
//! unwinder itself uses; so samples inside libc, libgcc, libpthread, the vdso and the loader are
//! left out, which shows as missing coverage. It also counts samples of one chain of functions
//! under the addresses of the first of them; each drain starts afresh and so sees other lines.
#![cfg_attr(
    target_os = "linux",
    expect(dead_code, reason = "compiled to stay whole; Linux has timers")
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::{Clocks, CpuEngine, Sink};
use crate::collect::code::modules::modules;
use crate::config::{SampleRate, sampling};
use crate::store::Unavailable;
use crate::store::label::Mark;
use crate::store::stacks::TRUNCATED;

/// Parts of the names of libraries in which a sample must not be unwound.
const UNSAFE_PLACES: [&str; 5] = ["libc", "libgcc", "pthread", "vdso", "ld-linux"];

/// Frames that the crate keeps of a stack, its own on top included.
const DEPTH: usize = 128;

/// Sampling by the `pprof` crate.
#[derive(Default)]
pub(super) struct Engine {
    guard: Option<ProfilerGuard<'static>>,
    rate: Option<SampleRate>,
    trampoline: Trampoline,
}

impl CpuEngine for Engine {
    fn start(&mut self, rate: SampleRate) -> Result<(), Unavailable> {
        self.stop();
        if caught_by_host().unwrap_or(false) {
            return Err(Unavailable(
                "this process handles SIGPROF itself (another profiler?); the agent leaves its \
                 handler in place"
                    .to_owned(),
            ));
        }
        self.guard = Some(guard(rate)?);
        self.rate = Some(rate);
        Ok(())
    }

    /// Costs 2.5 ms of one core in a release build and half a period of samples, since the crate
    /// has to be stopped to be emptied (2-core Linux 6.18 VM, three busy threads, 2026-11); in a
    /// debug build 80 ms.
    fn drain(&mut self, sink: &mut Sink<'_>) {
        let Some(rate) = self.rate else { return };
        if let Some(guard) = self.guard.take() {
            let report = guard.report().build_unresolved();
            drop(guard);
            self.guard = restarted(rate, sink);
            match report {
                Ok(report) => {
                    for (stack, count) in &report.data {
                        let frames = stack.frames.iter().map(|frame| address(frame.ip()));
                        let frames: Vec<u64> = frames.collect();
                        let thread = stack.thread_name.get(..stack.thread_name_length);
                        let thread = String::from_utf8_lossy(thread.unwrap_or_default());
                        self.hand_over(&frames, &thread, *count, sink);
                    }
                }
                Err(_) => sink.lost("buffer_unreadable", 1),
            }
        } else {
            self.guard = restarted(rate, sink);
        }
    }

    fn stop(&mut self) {
        self.guard = None;
        self.rate = None;
    }

    fn name(&self) -> &'static str {
        "pprof 0.15"
    }

    fn leaves_out(&self) -> Option<&'static str> {
        Some("samples inside libc, libgcc, libpthread, the vdso and the loader")
    }

    fn interval(&self) -> Duration {
        sampling::BUCKET
    }
}

impl Engine {
    fn hand_over(&mut self, frames: &[u64], thread: &str, count: isize, sink: &mut Sink<'_>) {
        let weight = u32::try_from(count).unwrap_or(0);
        let Some(interrupted) = self.trampoline.below(frames) else {
            // The unwinder did not get past the signal handler.
            sink.lost("handler_opaque", u64::from(weight));
            return;
        };
        let mut exact = true;
        let mut stack: Vec<u64> = Vec::with_capacity(interrupted.len() + 1);
        for frame in interrupted.iter().copied().take_while(|frame| *frame != 0) {
            // A return address may already belong to the next line, or to the next function.
            stack.push(if exact { frame } else { frame - 1 });
            exact = self.trampoline.is(frame);
        }
        if frames.len() >= DEPTH {
            sink.truncated(weight);
            stack.push(TRUNCATED);
        }
        sink.sample(&stack, thread, Mark::NONE, weight);
    }
}

fn guard(rate: SampleRate) -> Result<ProfilerGuard<'static>, Unavailable> {
    let hertz = i32::try_from(rate.hz()).unwrap_or(i32::MAX);
    let builder = ProfilerGuardBuilder::default().frequency(hertz);
    let guard = builder.blocklist(&UNSAFE_PLACES).build();
    guard.map_err(|error| Unavailable(format!("the pprof sampler does not start: {error}")))
}

fn restarted(rate: SampleRate, sink: &mut Sink<'_>) -> Option<ProfilerGuard<'static>> {
    let guard = guard(rate).ok();
    if guard.is_none() {
        sink.lost("not_restarted", 1);
    }
    guard
}

fn address(pointer: *mut std::ffi::c_void) -> u64 {
    pointer.addr() as u64
}

/// Whether the process has a handler of its own for SIGPROF; our own is away while we ask, since
/// the crate leaves the signal ignored. `None`: the kernel does not say.
fn caught_by_host() -> Option<bool> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    caught(&status, libc::SIGPROF)
}

fn caught(status: &str, signal: i32) -> Option<bool> {
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    let bit = signal.checked_sub(1)?;
    Some(caught >> bit & 1 == 1)
}

/// Where the kernel's signal frame returns to: what stands above it in a stack is the handler, the
/// frame below it was interrupted.
///
/// Known by its code, as debuggers know it: it loads the number of `rt_sigreturn` and enters the
/// kernel. So it is found in stripped binaries too.
#[derive(Debug, Default)]
struct Trampoline {
    address: Option<u64>,
}

#[cfg(target_arch = "x86_64")]
const SIGRETURN: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
#[cfg(target_arch = "aarch64")]
const SIGRETURN: &[u8] = &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SIGRETURN: &[u8] = &[];

/// Frames of a handler: one in release builds, up to five in debug builds.
const HANDLER_FRAMES: usize = 16;

impl Trampoline {
    /// The frames below the topmost trampoline.
    fn below<'a>(&mut self, frames: &'a [u64]) -> Option<&'a [u64]> {
        if self.address.is_none() {
            let top = frames.iter().copied().take(HANDLER_FRAMES);
            self.address = top
                .filter(|frame| *frame != 0)
                .find(|frame| returns(*frame));
        }
        let top = frames.iter().take(HANDLER_FRAMES);
        let place = top.into_iter().position(|frame| self.is(*frame))?;
        frames.get(place + 1..)
    }

    fn is(&self, frame: u64) -> bool {
        self.address == Some(frame)
    }
}

fn returns(address: u64) -> bool {
    !SIGRETURN.is_empty() && code(address).is_some_and(|code| code == SIGRETURN)
}

/// The code at an address: from memory, or from its file where memory may not be opened.
fn code(address: u64) -> Option<Vec<u8>> {
    let mut code = vec![0; SIGRETURN.len()];
    let memory = File::open("/proc/self/mem");
    if memory
        .and_then(|memory| memory.read_exact_at(&mut code, address))
        .is_ok()
    {
        return Some(code);
    }
    let modules = modules().ok()?;
    let module = modules.iter().find(|module| module.contains(address))?;
    let file = File::open(module.path()?).ok()?;
    let offset = address - module.start + module.offset;
    file.read_exact_at(&mut code, offset).ok().map(|()| code)
}

/// Kernel ticks per second in `/proc/self/stat`: a constant of the interface on all architectures
/// that std supports, whatever the kernel's own rate is.
const TICKS: u64 = 100;

/// The process's CPU time with the agent's own, which this engine samples like all the rest.
pub(super) fn clocks() -> Clocks {
    Clocks {
        host: process_cpu(),
        sampling: None,
    }
}

/// CPU time of all threads of this process, ended ones included, in steps of 10 ms.
fn process_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold anything, spaces and brackets too; it ends at the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)))
}

/// Not counted by this engine.
pub(super) fn signals() -> Option<[u64; 3]> {
    None
}

/// This engine's one timer is the process's, for threads of any age.
pub(super) fn thread_started() {}

/// Threads are not told apart here.
pub(super) fn own_thread_ends() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_signal_is_told_from_an_ignored_one() {
        // Bit 26 is SIGPROF, 27th from 1.
        let status = "Name:\tx\nSigIgn:\t0000000004000000\nSigCgt:\t0000000000000440\n";
        assert_eq!(caught(status, libc::SIGPROF), Some(false));
        let status = "Name:\tx\nSigCgt:\t0000000004000440\n";
        assert_eq!(caught(status, libc::SIGPROF), Some(true));
        assert_eq!(caught("Name:\tx\n", libc::SIGPROF), None);
    }

    #[test]
    fn what_stands_above_the_trampoline_is_the_handler() {
        let mut trampoline = Trampoline { address: Some(9) };
        assert_eq!(trampoline.below(&[1, 2, 9, 40, 30]), Some(&[40, 30][..]));
        assert_eq!(trampoline.below(&[9]), Some(&[][..]));
        assert_eq!(trampoline.below(&[1, 2]), None);
    }
}
