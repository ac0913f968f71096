//! Gzip by compressors that are used again.
//!
//! Guide 3.1 and 4.2. Metrics: `buffer_pool_gets_total{pool="gzip"}`, `buffer_pool_bytes{pool="gzip"}`.
//! Breaking tests: `any_bytes_are_read_back`, `a_compressor_is_used_again`.
//!
//! A new compressor is about 300 KiB of tables. Where each answer had its own, they were 58 % of all that
//! the service allocated (our heap profile of `streamgate demo`, 2026-11-26, before the cache kept encodings).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use streamgate_agent::{AgentHandle, BufferPool};

use super::buffers::Buffers;
use crate::faults::{Fault, Faults};

/// Compressors kept: one is held for a single answer and never while anything is waited for, so more
/// than a few are only ever in use on machines with more cores.
const KEPT: usize = 16;

/// What one takes, the sum of the tables in miniz_oxide 0.9.1: window 33 KB, hashes 131 KB, codes 66 KB,
/// output 85 KB.
const BYTES: usize = 315_000;

/// RFC 1952 section 2.3: deflate, no flags, no time, fastest, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// The trailer: check sum and length.
const TRAILER: usize = 8;

/// Why there is no compressed text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GzipError {
    /// The compressor refuses.
    #[error(transparent)]
    Refused(#[from] flate2::CompressError),
    /// The buffer was too small.
    #[error("a compressed text was longer than any can be")]
    Short,
}

/// The pool. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct Gzip(Arc<Pool>);

struct Pool {
    free: Mutex<Vec<Compress>>,
    buffers: Buffers,
    observe: BufferPool,
    faults: Faults,
}

impl Gzip {
    /// The longest text that is certain to find room in a buffer that is kept.
    pub(crate) const LARGEST: usize = 230_000;

    /// An empty pool.
    pub(crate) fn new(agent: &AgentHandle, faults: &Faults, buffers: &Buffers) -> Self {
        Self(Arc::new(Pool {
            free: Mutex::new(Vec::new()),
            buffers: buffers.clone(),
            observe: agent.buffer_pool("gzip"),
            faults: faults.clone(),
        }))
    }

    /// The text as one gzip member.
    ///
    /// # Errors
    /// The compressor refuses, which nothing that a caller passes makes it do.
    pub(crate) fn compress(&self, plain: &[u8]) -> Result<Bytes, GzipError> {
        // What miniz_oxide makes of the worst text, by the bound of the original miniz.
        let most = HEADER.len() + plain.len() + plain.len() / 10 + 128 + TRAILER;
        let mut buffer = self.0.buffers.take(most);
        let out = buffer.bytes();
        out.reserve(most);
        out.extend_from_slice(&HEADER);
        let mut compressor = self.take();
        let ended = compressor.compress_vec(plain, out, FlushCompress::Finish)?;
        self.give_back(compressor);
        if ended != Status::StreamEnd {
            // Not enough room, which `most` rules out: rather no answer than half of one.
            return Err(GzipError::Short);
        }
        let mut crc = Crc::new();
        crc.update(plain);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        Ok(buffer.freeze())
    }

    fn take(&self) -> Compress {
        let pooled = !self.0.faults.is_on(Fault::PoolBuffersOff);
        let kept = pooled.then(|| self.free().pop()).flatten();
        match kept {
            Some(compressor) => {
                self.0.observe.reused(BYTES);
                compressor
            }
            None => {
                self.0.observe.allocated();
                Compress::new(Compression::fast(), false)
            }
        }
    }

    fn give_back(&self, mut compressor: Compress) {
        compressor.reset();
        let mut free = self.free();
        let kept = free.len() < KEPT && !self.0.faults.is_on(Fault::PoolBuffersOff);
        if kept {
            free.push(compressor);
            self.0.observe.kept(BYTES);
        } else {
            self.0.observe.discarded();
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Compress>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use streamgate_agent::Agent;

    use super::*;

    fn gzip() -> Gzip {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        let faults = Faults::new(&agent).unwrap();
        let buffers = Buffers::new(&agent, &faults);
        Gzip::new(&agent, &faults, &buffers)
    }

    fn read_back(packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        plain
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_back(plain in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let gzip = gzip();
            // Twice, so that what the first left behind would show.
            for _ in 0..2 {
                prop_assert_eq!(&read_back(&gzip.compress(&plain).unwrap()), &plain);
            }
        }
    }

    #[test]
    fn text_that_no_compressor_shortens_is_read_back() {
        let gzip = gzip();
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(Gzip::LARGEST).collect();
        assert_eq!(read_back(&gzip.compress(&noise).unwrap()), noise);
        assert!(
            gzip.0.buffers.keeps_one_of(Gzip::LARGEST),
            "it was not dropped"
        );
    }

    #[test]
    fn a_compressor_is_used_again() {
        let gzip = gzip();
        for _ in 0..3 {
            gzip.compress(b"text").unwrap();
            assert_eq!(gzip.free().len(), 1);
        }
    }
}
