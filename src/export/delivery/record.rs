//! What stands before a message in its file of the spool.
//!
//! 40 bytes, numbers little-endian: magic `SGQ1`, signal, three zeros, items, creation time in Unix
//! nanoseconds, length of the message, its CRC-32, and the CRC-32 of all that before it. A file that was
//! not written to its end fails by its length, one that was damaged by its sums.

use flate2::Crc;

use super::PushSignal;

pub(super) const HEAD_BYTES: usize = 40;
const MAGIC: [u8; 4] = *b"SGQ1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) signal: PushSignal,
    pub(super) items: u64,
    pub(super) created_unix_nanos: u64,
    pub(super) length: u64,
    pub(super) sum: u32,
}

impl Head {
    pub(super) fn of(signal: PushSignal, items: u64, created_unix_nanos: u64, body: &[u8]) -> Self {
        Self {
            signal,
            items,
            created_unix_nanos,
            length: body.len() as u64,
            sum: sum(body),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([self.signal as u8, 0, 0, 0]);
        bytes.extend(self.items.to_le_bytes());
        bytes.extend(self.created_unix_nanos.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.sum.to_le_bytes());
        bytes.extend(sum(&bytes).to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not what was written.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (summed, own_sum) = bytes.split_last_chunk()?;
        let (magic, rest) = summed.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (items, rest) = rest.split_first_chunk()?;
        let (created, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (body_sum, _) = rest.split_first_chunk()?;
        let signal = PushSignal::ALL
            .into_iter()
            .find(|signal| *kind == [*signal as u8, 0, 0, 0])?;
        let whole = *magic == MAGIC && u32::from_le_bytes(*own_sum) == sum(summed);
        whole.then(|| Self {
            signal,
            items: u64::from_le_bytes(*items),
            created_unix_nanos: u64::from_le_bytes(*created),
            length: u64::from_le_bytes(*length),
            sum: u32::from_le_bytes(*body_sum),
        })
    }

    /// Whether this is the message that was written.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        self.length == body.len() as u64 && self.sum == sum(body)
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
