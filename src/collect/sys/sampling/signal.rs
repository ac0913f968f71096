//! The signal that carries samples: chosen among the free realtime signals, installed once, never
//! removed.
//!
//! Putting the default action back with one signal pending would kill the process.
#![expect(unsafe_code, reason = "sigaction")]

use std::io;

use super::handler;

/// The action that a signal has now: the handler's address (0 default, 1 ignored).
fn action(signal: i32) -> Option<usize> {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only reads; `present` is a live local.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut present) };
    (result == 0).then_some(present.sa_sigaction)
}

/// A realtime signal with the default action that is not among the `blocked`.
///
/// From the top: the C library and programs that use realtime signals take them from the bottom.
pub(crate) fn free(blocked: u64) -> Option<i32> {
    let mut all = (libc::SIGRTMIN() + 1..=libc::SIGRTMAX()).rev();
    all.find(|signal| !is_in(blocked, *signal) && action(*signal) == Some(libc::SIG_DFL))
}

/// Whether a signal is in a set as the kernel writes it.
pub(crate) fn is_in(set: u64, signal: i32) -> bool {
    let place = u32::try_from(signal - 1).unwrap_or(u32::MAX);
    set.checked_shr(place).is_some_and(|set| set & 1 == 1)
}

/// Installs the handler for a free signal.
///
/// # Errors
/// The kernel's.
pub(crate) fn install(signal: i32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction` with an empty mask.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler::address();
    new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and keeps to what a handler may
    // do; a null old action is allowed.
    let result = unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Says whether the signal still is ours: a library may have taken it.
pub(crate) fn is_ours(signal: i32) -> bool {
    action(signal) == Some(handler::address())
}

/// Whether the running thread blocks the signal.
pub(crate) fn is_blocked_here(signal: i32) -> bool {
    // SAFETY: all-zero bytes are a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a null new set only reads; `set` is a live local.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set) };
    // SAFETY: as above.
    unsafe { libc::sigismember(&raw const set, signal) == 1 }
}
