//! What a thread was doing, by architecture: its registers and where its own block lies.
#![expect(unsafe_code, reason = "reading registers")]

/// What the interrupted code was doing.
#[derive(Debug, Clone, Copy)]
pub(in crate::collect::sys) struct Registers {
    pub(in crate::collect::sys) pc: u64,
    pub(in crate::collect::sys) sp: u64,
    pub(in crate::collect::sys) fp: u64,
    /// Link register; 0 on x86-64.
    pub(in crate::collect::sys) lr: u64,
}

/// An address inside the thread's own block, which the C library puts at the top of its stack.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(in crate::collect::sys) fn thread_pointer() -> usize {
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
pub(in crate::collect::sys) fn thread_pointer() -> usize {
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

/// The registers of the caller, now.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(in crate::collect::sys) fn here() -> Registers {
    let (pc, sp, fp): (u64, u64, u64);
    // SAFETY: reads registers only.
    unsafe {
        std::arch::asm!(
            "lea {}, [rip]", "mov {}, rsp", "mov {}, rbp",
            out(reg) pc, out(reg) sp, out(reg) fp, options(nomem, nostack, preserves_flags)
        );
    }
    Registers { pc, sp, fp, lr: 0 }
}

/// The registers of the caller, now.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(in crate::collect::sys) fn here() -> Registers {
    let (pc, sp, fp, lr): (u64, u64, u64, u64);
    // SAFETY: reads registers only.
    unsafe {
        std::arch::asm!(
            "adr {}, .", "mov {}, sp", "mov {}, x29", "mov {}, x30",
            out(reg) pc, out(reg) sp, out(reg) fp, out(reg) lr,
            options(nomem, nostack, preserves_flags)
        );
    }
    Registers { pc, sp, fp, lr }
}

/// Puts registers where [`interrupted`] finds them.
#[cfg(target_arch = "x86_64")]
pub(super) fn write(context: &mut libc::ucontext_t, registers: Registers) {
    let [_, _, _, _, _, _, _, _, _, _, fp, _, _, _, _, sp, pc, ..] = &mut context.uc_mcontext.gregs;
    *pc = registers.pc.cast_signed();
    *sp = registers.sp.cast_signed();
    *fp = registers.fp.cast_signed();
}

/// Puts registers where [`interrupted`] finds them.
#[cfg(target_arch = "aarch64")]
pub(super) fn write(context: &mut libc::ucontext_t, registers: Registers) {
    let machine = &mut context.uc_mcontext;
    let [.., fp, lr] = &mut machine.regs;
    (*fp, *lr) = (registers.fp, registers.lr);
    machine.pc = registers.pc;
    machine.sp = registers.sp;
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

    #[test]
    fn registers_come_back_from_the_context_that_they_were_written_to() {
        // SAFETY: all-zero bytes are a valid context.
        let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
        let (local, here) = (0_u8, here());
        write(&mut context, here);
        let back = interrupted((&raw mut context).cast());
        assert_eq!((back.pc, back.sp, back.fp), (here.pc, here.sp, here.fp));
        assert!((&raw const local as u64).abs_diff(here.sp) < 4096);
    }
}
