//! The directory of a database that nobody wants to keep: removed with the process, or, if that was
//! killed, by the next one that needs such a directory.
//!
//! A directory belongs to whoever holds its lock, which the kernel takes back when a process ends in
//! any way; its name says whose it is. Both are looked at: an owner in another container that shares
//! the temporary directory has no process number here, and one that has just made his directory has
//! no lock yet.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

const PREFIX: &str = "streamgate-db-";

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct ThrowAway {
    dir: TempDir,
    _lock: File,
}

impl ThrowAway {
    /// A new directory for temporary files, after those left behind there are removed.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(super) fn new() -> io::Result<Self> {
        Self::below(&std::env::temp_dir())
    }

    fn below(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir_in(parent)?;
        let lock = File::open(dir.path())?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// What cannot be read or removed is somebody else's to remove.
fn remove_stale(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten();
    for path in entries.filter_map(|entry| stale(&entry.ok()?)) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!(path = %path.display(), %error, "a database left behind stays");
        }
    }
}

/// The entry's path if it is a directory of ours whose process has ended.
fn stale(entry: &DirEntry) -> Option<PathBuf> {
    let name = entry.file_name();
    let (process, _) = name.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    let process: u32 = process.parse().ok()?;
    // A link would lead out of the directory.
    let is_dir = entry.file_type().ok()?.is_dir();
    if !is_dir || Path::new(&format!("/proc/{process}")).exists() {
        return None;
    }
    let path = entry.path();
    File::open(&path).ok()?.try_lock().ok()?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn ended_process() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn directories_of_ended_processes_go_and_all_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("streamgate.db"), "rows").unwrap();
            path
        };
        let ended = ended_process();
        let left = make(&format!("{PREFIX}{ended}-left"));
        let elsewhere = make(&format!("{PREFIX}{ended}-elsewhere"));
        let held = File::open(&elsewhere).unwrap();
        held.lock().unwrap();
        let kept = [
            elsewhere,
            make(&format!("{PREFIX}{}-running", std::process::id())),
            make(&format!("{PREFIX}name-x")),
            make(&format!("other-{ended}-x")),
        ];
        let target = make("target");
        symlink(&target, parent.path().join(format!("{PREFIX}{ended}-link"))).unwrap();

        let made = ThrowAway::below(parent.path()).unwrap();
        assert!(!left.exists());
        assert!(kept.iter().all(|path| path.join("streamgate.db").exists()));
        assert!(target.join("streamgate.db").exists());
        let path = made.path().to_owned();
        assert!(path.exists());
        drop(made);
        assert!(!path.exists());
    }
}
