//! Frames that stand for what has no stack: a state, or the system call that a thread waits in.
//!
//! They travel as addresses at the top of the address space, where the kernel maps nothing.

use super::calls;
use super::threads::{Call, Thread};
use crate::store::profile::OVERFLOW_NAME;
use crate::store::stacks::{OVERFLOW, TRUNCATED, TRUNCATED_NAME};

/// Plus the number of a call: blocked in it.
const BLOCKED_IN: u64 = 0xffff_ffff_ffe0_0000;
const BLOCKED: u64 = BLOCKED_IN + 0x1_0000;
const RUNNING: u64 = BLOCKED + 1;
const STOPPED: u64 = BLOCKED + 2;
/// The thread was asked and ended, or never ran again.
pub(super) const NO_ANSWER: u64 = BLOCKED + 3;

/// The frame of a thread that is not asked.
pub(super) fn of(thread: &Thread) -> u64 {
    match (thread.state, thread.call) {
        (b'R', _) => RUNNING,
        (b'T' | b't', _) => STOPPED,
        (_, Call::Number(number)) => BLOCKED_IN + u64::from(number),
        (_, Call::None | Call::Unknown) => BLOCKED,
    }
}

/// What a frame is called; `None` for an address of code.
pub(super) fn name(address: u64) -> Option<String> {
    let fixed = match address {
        TRUNCATED => TRUNCATED_NAME,
        OVERFLOW => OVERFLOW_NAME,
        BLOCKED => "[blocked]",
        RUNNING => "[running]",
        STOPPED => "[stopped]",
        NO_ANSWER => "[no answer]",
        _ => {
            let number = address.checked_sub(BLOCKED_IN)?;
            let call = call_name(u16::try_from(number).ok()?);
            return Some(format!("[blocked: {call}]"));
        }
    };
    Some(fixed.to_owned())
}

/// A call's name, or its number.
pub(super) fn call_name(number: u16) -> String {
    calls::name(number).map_or_else(|| format!("syscall {number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(state: u8, call: Call) -> Thread {
        Thread {
            tid: 1,
            name: "x".to_owned(),
            state,
            call,
        }
    }

    #[test]
    fn a_frame_names_the_state_or_the_call() {
        let named = |state, call| name(of(&thread(state, call))).unwrap();
        let futex = Call::Number(calls::FUTEX);
        assert_eq!(named(b'S', futex), "[blocked: futex]");
        assert_eq!(named(b'D', Call::Number(999)), "[blocked: syscall 999]");
        assert_eq!(named(b'S', Call::Unknown), "[blocked]");
        assert_eq!(named(b'R', Call::None), "[running]");
        assert_eq!(named(b't', futex), "[stopped]");
        assert_eq!(name(NO_ANSWER).unwrap(), "[no answer]");
        assert_eq!(name(name as *const () as usize as u64), None);
    }
}
