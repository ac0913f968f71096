//! Names of the system calls in which threads wait.
//!
//! A call that is not in the table keeps its number.

/// A wait for another thread of the process.
pub(super) const FUTEX: u16 = number(libc::SYS_futex);

const fn number(call: i64) -> u16 {
    // The highest number of any architecture is below 1,000.
    (call & 0xffff) as u16
}

macro_rules! calls {
    ($($name:literal $call:ident,)*) => {
        &[$((number(libc::$call), $name),)*]
    };
}

const CALLS: &[(u16, &str)] = calls![
    "accept" SYS_accept,
    "accept4" SYS_accept4,
    "clock_nanosleep" SYS_clock_nanosleep,
    "close" SYS_close,
    "connect" SYS_connect,
    "epoll_pwait" SYS_epoll_pwait,
    "epoll_pwait2" SYS_epoll_pwait2,
    "fallocate" SYS_fallocate,
    "fcntl" SYS_fcntl,
    "fdatasync" SYS_fdatasync,
    "flock" SYS_flock,
    "fsync" SYS_fsync,
    "ftruncate" SYS_ftruncate,
    "futex" SYS_futex,
    "getdents64" SYS_getdents64,
    "io_getevents" SYS_io_getevents,
    "io_uring_enter" SYS_io_uring_enter,
    "ioctl" SYS_ioctl,
    "madvise" SYS_madvise,
    "mmap" SYS_mmap,
    "mprotect" SYS_mprotect,
    "mq_timedreceive" SYS_mq_timedreceive,
    "msgrcv" SYS_msgrcv,
    "msync" SYS_msync,
    "munmap" SYS_munmap,
    "nanosleep" SYS_nanosleep,
    "openat" SYS_openat,
    "ppoll" SYS_ppoll,
    "pread64" SYS_pread64,
    "preadv" SYS_preadv,
    "pselect6" SYS_pselect6,
    "pwrite64" SYS_pwrite64,
    "pwritev" SYS_pwritev,
    "read" SYS_read,
    "readv" SYS_readv,
    "recvfrom" SYS_recvfrom,
    "recvmmsg" SYS_recvmmsg,
    "recvmsg" SYS_recvmsg,
    "renameat2" SYS_renameat2,
    "restart_syscall" SYS_restart_syscall,
    "rt_sigsuspend" SYS_rt_sigsuspend,
    "rt_sigtimedwait" SYS_rt_sigtimedwait,
    "semop" SYS_semop,
    "semtimedop" SYS_semtimedop,
    "sendfile" SYS_sendfile,
    "sendmmsg" SYS_sendmmsg,
    "sendmsg" SYS_sendmsg,
    "sendto" SYS_sendto,
    "splice" SYS_splice,
    "sync_file_range" SYS_sync_file_range,
    "unlinkat" SYS_unlinkat,
    "wait4" SYS_wait4,
    "waitid" SYS_waitid,
    "write" SYS_write,
    "writev" SYS_writev,
];

/// Calls that the newer architectures were made without.
#[cfg(target_arch = "x86_64")]
const OLDER: &[(u16, &str)] = calls![
    "epoll_wait" SYS_epoll_wait,
    "open" SYS_open,
    "pause" SYS_pause,
    "poll" SYS_poll,
    "rename" SYS_rename,
    "select" SYS_select,
    "unlink" SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[(u16, &str)] = &[];

/// The name of a call; `None` for one that is not in the table.
pub(super) fn name(number: u16) -> Option<&'static str> {
    let mut calls = CALLS.iter().chain(OLDER);
    calls
        .find(|(call, _)| *call == number)
        .map(|(_, name)| *name)
}

/// A wait for events of an epoll set.
pub(super) fn is_epoll(number: u16) -> bool {
    name(number).is_some_and(|name| name.starts_with("epoll_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_names_and_unknown_ones_none() {
        assert_eq!(name(FUTEX), Some("futex"));
        assert_eq!(name(number(libc::SYS_read)), Some("read"));
        assert!(is_epoll(number(libc::SYS_epoll_pwait)) && !is_epoll(FUTEX));
        assert_eq!(name(9999), None);
    }
}
