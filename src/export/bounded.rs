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

/// How many slices of time become one, each tried when the one before is too much.
const COARSER: [usize; 5] = [4, 16, 64, 256, 1024];

/// The same for a format that shows when samples were taken: time gets coarser before any stack goes.
///
/// # Errors
/// As [`shrink`].
pub(super) fn shrink_timed<E>(
    profile: &Profile,
    limit: usize,
    write: impl Fn(&Profile, &mut Bounded) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    if profile.slices.is_empty() {
        return shrink(profile, limit, write);
    }
    let mut out = Bounded::new(limit);
    if write(profile, &mut out).is_ok() {
        return Ok(out.bytes);
    }
    let slices = profile.slices.len();
    for step in COARSER.into_iter().take_while(|step| *step < slices) {
        let mut coarse = profile.coarser(step);
        let comment = format!("the order of time is true to {step} s only, to save room");
        coarse.comments.push(comment);
        out = Bounded::new(limit);
        if write(&coarse, &mut out).is_ok() {
            return Ok(out.bytes);
        }
    }
    shrink(&profile.timeless(), limit, write)
}
