//! Buffers that are used again, in four sizes.
//!
//! Guide 4.2. Metrics: `buffer_pool_gets_total{result}`, `buffer_pool_returns_total{result}`,
//! `buffer_pool_buffers`, `buffer_pool_bytes`. Breaking tests: `a_buffer_is_used_again_and_arrives_empty`,
//! `what_the_pool_keeps_is_bounded`, `a_body_gives_its_buffer_back_with_its_last_byte`.
//!
//! A buffer is lent as a value that gives it back when dropped, so nobody can give one back twice; as the
//! body of an answer it comes back when the last byte has left.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use streamgate_agent::{AgentHandle, BufferPool};

use crate::faults::{Fault, Faults};

/// Sizes in bytes: a detail, a page of 20, a page of 100, a page of 100 with long descriptions.
const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];

/// Buffers kept of each size: 10.6 MiB in all at most.
const KEPT: usize = 32;

/// The pool. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Shelves>);

struct Shelves {
    /// By the place of their size; what lies here is empty.
    free: [Mutex<Vec<Vec<u8>>>; SIZES.len()],
    observe: BufferPool,
    faults: Faults,
}

/// A buffer on loan.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    from: Buffers,
}

impl Buffers {
    /// An empty pool.
    pub(crate) fn new(agent: &AgentHandle, faults: &Faults) -> Self {
        Self(Arc::new(Shelves {
            free: Default::default(),
            observe: agent.buffer_pool("bodies"),
            faults: faults.clone(),
        }))
    }

    /// An empty buffer with room for this many bytes. It grows where they are more.
    pub(crate) fn take(&self, bytes: usize) -> Buffer {
        let size = SIZES.into_iter().find(|size| bytes <= *size);
        let pooled = size.is_some() && !self.0.faults.is_on(Fault::PoolBuffersOff);
        let kept = match pooled {
            true => self.shelf(bytes).and_then(|mut shelf| shelf.pop()),
            false => None,
        };
        let bytes = match kept {
            Some(buffer) => {
                self.0.observe.reused(buffer.capacity());
                buffer
            }
            None => {
                self.0.observe.allocated();
                Vec::with_capacity(size.unwrap_or(bytes))
            }
        };
        Buffer {
            bytes,
            from: self.clone(),
        }
    }

    /// Where buffers of the smallest size that holds so many bytes lie.
    fn shelf(&self, bytes: usize) -> Option<MutexGuard<'_, Vec<Vec<u8>>>> {
        let place = SIZES.iter().position(|size| bytes <= *size)?;
        let shelf = self.0.free.get(place)?;
        Some(shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn keeps_one_of(&self, bytes: usize) -> bool {
        self.shelf(bytes).is_some_and(|shelf| !shelf.is_empty())
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let capacity = bytes.capacity();
        // One that has grown to a size between two is too small for the next and is dropped.
        let fits = SIZES.contains(&capacity) && !self.0.faults.is_on(Fault::PoolBuffersOff);
        let kept = fits
            && self.shelf(capacity).is_some_and(|mut shelf| {
                let room = shelf.len() < KEPT;
                if room {
                    bytes.clear();
                    shelf.push(std::mem::take(&mut bytes));
                }
                room
            });
        if kept {
            self.0.observe.kept(capacity);
        } else {
            self.0.observe.discarded();
        }
    }
}

impl Buffer {
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was written, as a body; the buffer goes back when the last part of it is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.from.give_back(std::mem::take(&mut self.bytes));
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use streamgate_agent::Agent;

    use super::*;

    fn buffers() -> Buffers {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        Buffers::new(&agent, &Faults::new(&agent).unwrap())
    }

    fn kept(buffers: &Buffers, bytes: usize) -> usize {
        buffers.shelf(bytes).unwrap().len()
    }

    #[test]
    fn a_buffer_is_used_again_and_arrives_empty() {
        let buffers = buffers();
        let mut first = buffers.take(5_000);
        first.write_all(b"somebody's secret").unwrap();
        let place = first.bytes().as_ptr();
        drop(first);
        let mut second = buffers.take(4_097);
        assert_eq!(second.bytes().as_ptr(), place);
        assert!(second.as_ref().is_empty());
        assert_eq!(second.bytes().capacity(), 16 << 10);
    }

    #[test]
    fn what_the_pool_keeps_is_bounded() {
        let buffers = buffers();
        let lent: Vec<Buffer> = (0..KEPT + 9).map(|_| buffers.take(1)).collect();
        drop(lent);
        assert_eq!(kept(&buffers, 1), KEPT);
        // One that nobody could use again is not kept for any size.
        let mut grown = buffers.take(1);
        grown.bytes().resize(5_000, 0);
        drop(grown);
        drop(buffers.take(100 << 20));
        let all: usize = SIZES.iter().map(|size| kept(&buffers, *size)).sum();
        assert_eq!(all, KEPT - 1);
    }

    #[test]
    fn a_body_gives_its_buffer_back_with_its_last_byte() {
        let buffers = buffers();
        let mut buffer = buffers.take(10);
        buffer.write_all(b"head and tail").unwrap();
        let body = buffer.freeze();
        let tail = body.slice(9..);
        drop(body);
        assert_eq!((&tail[..], kept(&buffers, 10)), (&b"tail"[..], 0));
        drop(tail);
        assert_eq!(kept(&buffers, 10), 1);
    }

    #[test]
    fn the_fault_makes_each_buffer_a_new_one() {
        let buffers = buffers();
        drop(buffers.take(1));
        let setting = crate::faults::Setting::parse("pool_buffers_off").unwrap();
        let faults = &buffers.0.faults;
        faults.switch_on(vec![setting], crate::faults::LONGEST);
        drop((buffers.take(1), buffers.take(1)));
        assert_eq!(kept(&buffers, 1), 1);
    }
}
