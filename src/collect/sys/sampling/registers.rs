//! What a thread was doing, by architecture: its registers and where its own block lies.
#![expect(unsafe_code, reason = "reading registers")]

/// What the interrupted code was doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registers {
    pub(super) pc: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// Link register; 0 on x86-64.
    pub(super) lr: u64,
}

/// An address inside the thread's own block, which the C library puts at the top of its stack.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the x86-64 ABI keeps the thread pointer's own address in its first word.
    unsafe {
        std::arch::asm!(
            "mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly)
        );
    }
    pointer
}

#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register that user space may read.
    unsafe {
        std::arch::asm!(
            "mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags)
        );
    }
    pointer
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn interrupted(context: *mut libc::c_void) -> Registers {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let [_, _, _, _, _, _, _, _, _, _, fp, _, _, _, _, sp, pc, ..] = context.uc_mcontext.gregs;
    Registers {
        pc: pc.cast_unsigned(),
        sp: sp.cast_unsigned(),
        fp: fp.cast_unsigned(),
        lr: 0,
    }
}

#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) fn interrupted(context: *mut libc::c_void) -> Registers {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let machine = &context.uc_mcontext;
    let [.., fp, lr] = machine.regs;
    Registers {
        pc: machine.pc,
        sp: machine.sp,
        fp,
        lr,
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_the_registers_are_those_of_the_c_library() {
        assert_eq!((libc::REG_RBP, libc::REG_RSP, libc::REG_RIP), (10, 15, 16));
    }

    #[test]
    fn the_thread_pointer_lies_above_this_frame_on_a_spawned_thread() {
        let look = || {
            let local = 0_u8;
            (thread_pointer(), &raw const local as usize)
        };
        let (pointer, frame) = std::thread::spawn(look).join().unwrap();
        assert!(pointer > frame && pointer - frame < 8 << 20);
    }
}
