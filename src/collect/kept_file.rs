//! A file of `/proc` or `/sys` that is opened once and read again and again.
//!
//! Opening costs more than reading: a kept-open `/proc/self/stat` reads in 1-3 µs.

use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes that are read at most. `/proc/stat` of a machine with 256 CPUs has about 80 KiB.
const LONGEST: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    file: Option<File>,
}

impl KeptFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
        }
    }

    /// The whole text as it is now, in `buffer`; `None` if it cannot be read. After a failure the
    /// file is opened anew, for a cgroup may have gone and come back.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Option<Cow<'a, str>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let length = self.file.as_ref().and_then(|file| fill(file, buffer));
        if length.is_none() {
            self.file = None;
        }
        buffer.get(..length?).map(String::from_utf8_lossy)
    }
}

fn fill(file: &File, buffer: &mut Vec<u8>) -> Option<usize> {
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= LONGEST {
                return None;
            }
            buffer.resize((length * 2).max(4096), 0);
        }
        let offset = u64::try_from(length).ok()?;
        match file.read_at(buffer.get_mut(length..)?, offset) {
            Ok(0) => return Some(length),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn each_read_gives_the_text_of_now() {
        let dir = Fixture::new();
        let path = dir.write("a", "first");
        let (mut file, mut buffer) = (KeptFile::new(&path), Vec::new());
        assert_eq!(file.read(&mut buffer).unwrap(), "first");
        // Written in place: a new file under the old name would not be seen.
        std::fs::write(&path, "2nd").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), "2nd");
        let long = "x".repeat(100_000);
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), long);
        std::fs::write(&path, "x".repeat(LONGEST + 1)).unwrap();
        assert_eq!(file.read(&mut buffer), None);
    }

    #[test]
    fn a_file_that_comes_later_is_found() {
        let dir = Fixture::new();
        let (mut file, mut buffer) = (KeptFile::new(dir.path("late")), Vec::new());
        assert_eq!(file.read(&mut buffer), None);
        dir.write("late", "here");
        assert_eq!(file.read(&mut buffer).unwrap(), "here");
    }
}
