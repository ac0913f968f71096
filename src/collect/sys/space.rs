//! How full a file system is, as `df` shows it.

#![expect(unsafe_code, reason = "statvfs has no counterpart in std")]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The used share of what this user may use; `None` if the file system has no blocks of its own.
///
/// What is reserved for root is neither used nor usable, so it counts on neither side: with the
/// plain total as denominator a file system of this machine showed 76 % where `df` said 28 %.
///
/// # Cost
/// One system call, which may wait for a file server.
pub(crate) fn used_share(mount: &Path) -> Option<f64> {
    let path = CString::new(mount.as_os_str().as_bytes()).ok()?;
    let mut raw = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string and the pointer is to a whole, writable `statvfs`; both outlive
    // the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), raw.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: statvfs returned 0, so it has filled the struct.
    let raw = unsafe { raw.assume_init() };
    let used = raw.f_blocks.saturating_sub(raw.f_bfree) as f64;
    let usable = used + raw.f_bavail as f64;
    (usable > 0.0).then(|| used / usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_used_in_part_and_proc_has_no_blocks() {
        let used = used_share(Path::new("/")).unwrap();
        assert!(used > 0.0 && used <= 1.0);
        assert_eq!(used_share(Path::new("/proc")), None);
        assert_eq!(used_share(Path::new("/no/such/mount")), None);
    }
}
