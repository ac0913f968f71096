//! How a value lies in Redis: what it is, what it depended on, when it was read, and a checksum.
//!
//! Guide 2.1 and 7.1. Breaking tests: `any_changed_byte_is_noticed` (property), `what_goes_in_comes_out` (property).
//!
//! ```text
//! "SGC" version:u8 codec:u8 tags:u8 epoch:u64* loaded_at:i64 length:u32 body crc32c:u32   (little endian)
//! ```

use std::io::Read as _;

const MAGIC: &[u8; 3] = b"SGC";
const VERSION: u8 = 1;

/// Bodies from here on are compressed: below, zstd saves less than its header and our time.
const COMPRESSED_FROM: usize = 1_024;

/// Fastest of its ordinary levels.
const LEVEL: i32 = 1;

/// Largest body, before and after compression. A damaged length must not take our memory.
pub(super) const LARGEST: usize = 4 << 20;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// A value with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Of the value's tags, from before it was loaded, in their order.
    pub(super) epochs: Vec<u64>,
    /// Microseconds since 1970.
    pub(super) loaded_at: i64,
    pub(super) body: Vec<u8>,
}

impl Envelope {
    /// The bytes; `None` when the value is too large, or has more than 255 tags.
    pub(super) fn seal(&self) -> Option<Vec<u8>> {
        if self.body.len() > LARGEST {
            return None;
        }
        let compressed = if self.body.len() < COMPRESSED_FROM {
            None
        } else {
            zstd::bulk::compress(&self.body, LEVEL).ok()
        };
        let (codec, body) = match &compressed {
            Some(bytes) if bytes.len() < self.body.len() => (ZSTD, bytes),
            _ => (PLAIN, &self.body),
        };
        let mut bytes = Vec::with_capacity(body.len() + self.epochs.len() * 8 + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, codec, u8::try_from(self.epochs.len()).ok()?]);
        for epoch in &self.epochs {
            bytes.extend_from_slice(&epoch.to_le_bytes());
        }
        bytes.extend_from_slice(&self.loaded_at.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        Some(bytes)
    }

    /// The value; `None` when the bytes are not whole and unchanged, or of another version.
    pub(super) fn open(bytes: &[u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(checked) != u32::from_le_bytes(*crc) {
            return None;
        }
        let rest = checked.strip_prefix(MAGIC)?;
        let ([version, codec, tags], mut rest) = rest.split_first_chunk::<3>()?;
        if *version != VERSION {
            return None;
        }
        let mut epochs = Vec::with_capacity(usize::from(*tags));
        for _ in 0..*tags {
            let (epoch, after) = rest.split_first_chunk::<8>()?;
            epochs.push(u64::from_le_bytes(*epoch));
            rest = after;
        }
        let (loaded_at, rest) = rest.split_first_chunk::<8>()?;
        let (length, body) = rest.split_first_chunk::<4>()?;
        if usize::try_from(u32::from_le_bytes(*length)).ok()? != body.len() {
            return None;
        }
        let body = match *codec {
            PLAIN => body.to_vec(),
            ZSTD => decompress(body)?,
            _ => return None,
        };
        Some(Self {
            epochs,
            loaded_at: i64::from_le_bytes(*loaded_at),
            body,
        })
    }
}

fn decompress(body: &[u8]) -> Option<Vec<u8>> {
    let limit = u64::try_from(LARGEST).ok()?;
    let mut bytes = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(body).ok()?;
    decoder.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= LARGEST).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_envelope() -> impl Strategy<Value = Envelope> {
        let body = prop_oneof![
            vec(any::<u8>(), 0..3_000),
            (any::<u8>(), 0..3_000_usize).prop_map(|(byte, n)| vec![byte; n])
        ];
        (vec(any::<u64>(), 0..4), any::<i64>(), body).prop_map(|(epochs, loaded_at, body)| {
            Envelope {
                epochs,
                loaded_at,
                body,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_goes_in_comes_out(envelope in any_envelope()) {
            let sealed = envelope.seal().unwrap();
            prop_assert_eq!(Envelope::open(&sealed), Some(envelope));
        }

        #[test]
        fn any_changed_byte_is_noticed(envelope in any_envelope(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut sealed = envelope.seal().unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= by;
            prop_assert_eq!(Envelope::open(&sealed), None);
            sealed[at] ^= by;
            prop_assert_eq!(Envelope::open(&sealed[..sealed.len() - 1]), None);
        }
    }

    #[test]
    fn what_is_repeated_is_compressed_and_a_bomb_is_refused() {
        let envelope = |length| Envelope {
            epochs: vec![1],
            loaded_at: 1,
            body: vec![b'x'; length],
        };
        assert!(envelope(100_000).seal().unwrap().len() < 1_000);
        assert_eq!(envelope(LARGEST + 1).seal(), None);
        let bomb = zstd::bulk::compress(&vec![0; LARGEST + 1], LEVEL).unwrap();
        assert_eq!(decompress(&bomb), None);
        assert_eq!(Envelope::open(b""), None);
    }
}
