//! The running thread's own stack bytes, copied while it stands still.
#![expect(unsafe_code, reason = "copying a stack")]

use super::arena::STACK_BYTES;

/// Copies the stack from `sp` up to `high`, as far as there is room.
#[inline]
pub(in crate::collect::sys) fn within(stack: *mut u8, sp: u64, high: u64) -> u32 {
    let above = usize::try_from(high.saturating_sub(sp)).unwrap_or(0);
    let bytes = above.min(STACK_BYTES);
    // SAFETY: `[sp, high)` is the used part of this thread's stack mapping, which cannot go away
    // while the thread runs here; `stack` has room for STACK_BYTES.
    unsafe { std::ptr::copy_nonoverlapping(sp as *const u8, stack, bytes) };
    u32::try_from(bytes).unwrap_or(0)
}

/// Has the kernel copy up to `most` bytes of stack from `sp` upwards, as far as it is readable, which
/// cannot fault.
#[cold]
pub(in crate::collect::sys) fn by_kernel(stack: *mut u8, sp: u64, most: u64) -> u32 {
    let bytes = most.min(KERNEL_BYTES as u64);
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
pub(in crate::collect::sys) const KERNEL_BYTES: usize = STACK_BYTES / 2;

#[cfg(test)]
mod tests {
    use super::super::registers::thread_pointer;
    use super::*;

    #[test]
    fn the_kernel_copies_a_stack_and_stops_where_it_ends() {
        let copy = || {
            let mut slot = vec![0_u8; STACK_BYTES];
            let known = [0x5a_u8; 64];
            let sp = known.as_ptr() as u64;
            let above = thread_pointer() - known.as_ptr() as usize;
            let length = by_kernel(slot.as_mut_ptr(), sp, above as u64);
            assert_eq!(slot[..64], known);
            (length, above)
        };
        let (length, above) = std::thread::spawn(copy).join().unwrap();
        assert_eq!(length as usize, above.min(KERNEL_BYTES));
        let mut slot = vec![0_u8; STACK_BYTES];
        assert_eq!(
            by_kernel(slot.as_mut_ptr(), 8, u64::MAX),
            0,
            "nothing is mapped there"
        );
        assert_eq!(by_kernel(slot.as_mut_ptr(), u64::MAX - 8, u64::MAX), 0);
    }
}
