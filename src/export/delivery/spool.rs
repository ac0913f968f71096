//! Messages on disk: one file each, named by its number, in a directory that one process holds.
//!
//! A file is written under its name at once and removed when its message has ended, so that a kill at
//! any moment leaves at most one file that is not whole, and one whose message has just arrived. Files are
//! not synced: they outlive the process, not a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::queue::SpoolFile;
use super::record::{HEAD_BYTES, Head};

/// What file systems give out.
const BLOCK: u64 = 4096;
const SUFFIX: &str = ".otlp";

pub(super) struct Spool {
    directory: PathBuf,
    /// Held while this process uses the directory; the kernel lets go of it however the process ends.
    _lock: File,
    next: u64,
    bytes: u64,
    /// Files that could not be removed.
    doomed: Vec<SpoolFile>,
}

/// What an earlier process left.
pub(super) struct Found {
    /// Oldest first.
    pub(super) records: Vec<(SpoolFile, Head)>,
    /// Files that were not whole, and are removed.
    pub(super) torn: u64,
}

impl Spool {
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Found)> {
        make(directory)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(directory.join("lock"))?;
        lock.try_lock()?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut spool = Self {
            directory: directory.to_owned(),
            _lock: lock,
            next: numbers.last().map_or(0, |last| last.saturating_add(1)),
            bytes: 0,
            doomed: Vec::new(),
        };
        let mut found = Found {
            records: Vec::new(),
            torn: 0,
        };
        for number in numbers {
            match spool.head(number)? {
                Some(head) => {
                    let file = file(number, head.length);
                    spool.bytes += file.bytes;
                    found.records.push((file, head));
                }
                None => {
                    fs::remove_file(spool.path(number))?;
                    found.torn += 1;
                }
            }
        }
        Ok((spool, found))
    }

    /// What the files take of the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a message of this length will take.
    pub(super) fn bytes_of(length: usize) -> u64 {
        file(0, length as u64).bytes
    }

    /// Writes a message; what could not be written whole is removed.
    pub(super) fn write(&mut self, head: &Head, body: &[u8]) -> io::Result<SpoolFile> {
        make(&self.directory)?;
        let number = self.next;
        self.next += 1;
        let path = self.path(number);
        let mut options = OpenOptions::new();
        options.create_new(true).write(true).mode(0o600);
        let mut opened = options.open(&path)?;
        let written = opened
            .write_all(&head.encode())
            .and_then(|()| opened.write_all(body));
        if let Err(error) = written {
            drop(fs::remove_file(path));
            return Err(error);
        }
        let file = file(number, head.length);
        self.bytes += file.bytes;
        Ok(file)
    }

    /// Reads a message back; [`ErrorKind::InvalidData`] if it is not what was written.
    pub(super) fn read(&self, file: SpoolFile) -> io::Result<Vec<u8>> {
        let mut opened = File::open(self.path(file.number))?;
        let mut head = [0; HEAD_BYTES];
        opened.read_exact(&mut head)?;
        let head = Head::decode(&head).ok_or(ErrorKind::InvalidData)?;
        let mut body = Vec::new();
        opened.take(file.bytes).read_to_end(&mut body)?;
        if head.fits(&body) {
            Ok(body)
        } else {
            Err(ErrorKind::InvalidData.into())
        }
    }

    /// Removes a file, or remembers to; until then its bytes are taken.
    pub(super) fn remove(&mut self, file: SpoolFile) -> io::Result<()> {
        match fs::remove_file(self.path(file.number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.doomed.push(file);
                Err(error)
            }
            _ => {
                self.bytes = self.bytes.saturating_sub(file.bytes);
                Ok(())
            }
        }
    }

    /// Removes what could not be removed before.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let doomed = std::mem::take(&mut self.doomed);
        doomed
            .into_iter()
            .map(|file| self.remove(file))
            .fold(Ok(()), Result::and)
    }

    /// The head of a file that is as long as it says; `None` for one that is not whole.
    fn head(&self, number: u64) -> io::Result<Option<Head>> {
        let mut opened = File::open(self.path(number))?;
        let mut bytes = [0; HEAD_BYTES];
        match opened.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = opened.metadata()?.len();
        let whole = |head: &Head| head.length.checked_add(HEAD_BYTES as u64) == Some(length);
        Ok(Head::decode(&bytes).filter(whole))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:020}{SUFFIX}"))
    }
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn file(number: u64, length: u64) -> SpoolFile {
    let whole = length.saturating_add(HEAD_BYTES as u64);
    SpoolFile {
        number,
        bytes: whole.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX),
    }
}
