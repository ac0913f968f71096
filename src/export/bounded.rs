//! Writes an answer within its byte limit, and shows less of a profile where all is too much.

use std::io::{self, Write};

use crate::store::profile::Profile;

/// Refuses what exceeds its limit.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) bytes: Vec<u8>,
    limit: usize,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            let words = format!("the answer exceeds {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a profile within a limit; where all of it is too much, the lighter half of its stacks
/// becomes one, until the rest fits.
///
/// # Errors
/// What writing failed with, if even a profile of one stack does not fit.
pub(super) fn shrink<E>(
    profile: &Profile,
    limit: usize,
    write: impl Fn(&Profile, &mut Bounded) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut kept = profile.samples.len();
    let mut out = Bounded::new(limit);
    let mut written = write(profile, &mut out);
    while written.is_err() && kept > 0 {
        kept /= 2;
        out = Bounded::new(limit);
        written = write(&profile.folded_to(kept), &mut out);
    }
    written.map(|()| out.bytes)
}
