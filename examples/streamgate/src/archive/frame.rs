//! Payloads as frames of an object.
//!
//! Guide 7.1 and 7.2. Metric: `streamgate_archive_bytes_total{stage}`. Breaking tests:
//! `every_row_comes_back_from_its_range`, `a_frame_that_unpacks_to_more_than_the_cap_is_refused`.
//!
//! Every row is a zstd frame of its own, so that a cold read is one ranged read and one small
//! decompression. What the frames of one object have in common is not used.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::ArchiveError;
use crate::db::archive::{Frame, Leased};

/// Largest object: one that is put and read back in memory.
pub(super) const OBJECT_BYTES: usize = 8 << 20;

/// Largest payload that a frame may unpack to: 50 times what a row may hold, and no bomb.
const PAYLOAD_BYTES: usize = 4 << 20;

/// zstd's own default: levels above cost more time than they save bytes on texts of kilobytes.
const LEVEL: i32 = 3;

/// What moves out of the row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) body: String,
    pub(crate) metadata: Box<RawValue>,
}

/// An object before it is put.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Vec<Frame>,
    /// Bytes of the payloads before compression.
    pub(super) raw_bytes: u64,
}

impl Packed {
    /// As many of the rows, from the first on, as one object takes.
    pub(super) fn of(rows: &[Leased]) -> Result<Self, ArchiveError> {
        let mut packed = Self::default();
        for row in rows {
            let metadata = RawValue::from_string(row.metadata.clone());
            let payload = serde_json::to_vec(&Payload {
                body: row.body.clone(),
                metadata: metadata.map_err(|_| ArchiveError::corrupt(&row.id, "no JSON"))?,
            });
            let payload = payload.map_err(|_| ArchiveError::corrupt(&row.id, "no JSON"))?;
            let frame = zstd::bulk::compress(&payload, LEVEL).map_err(ArchiveError::Codec)?;
            if packed.bytes.len() + frame.len() > OBJECT_BYTES {
                break;
            }
            packed.frames.push(Frame {
                id: row.id.clone(),
                version: row.version,
                offset: as_u64(packed.bytes.len()),
                length: as_u64(frame.len()),
                sha256: sha256(&payload),
            });
            packed.raw_bytes += as_u64(payload.len());
            packed.bytes.extend(frame);
        }
        Ok(packed)
    }
}

/// The payload of a frame, if it is the one that the manifest describes.
pub(super) fn unpack(id: &str, frame: &[u8], wanted: &str) -> Result<Payload, ArchiveError> {
    let payload = zstd::bulk::decompress(frame, PAYLOAD_BYTES).map_err(ArchiveError::Codec)?;
    if sha256(&payload) != wanted {
        return Err(ArchiveError::corrupt(id, "another hash"));
    }
    serde_json::from_slice(&payload).map_err(|_| ArchiveError::corrupt(id, "no payload"))
}

/// Hexadecimal SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize, body: String) -> Leased {
        Leased {
            id: n.to_string(),
            version: 1,
            body,
            metadata: r#"{"a":[1, 2]}"#.to_owned(),
        }
    }

    fn range(packed: &Packed, frame: &Frame) -> Vec<u8> {
        let start = usize::try_from(frame.offset).unwrap();
        let end = start + usize::try_from(frame.length).unwrap();
        packed.bytes[start..end].to_vec()
    }

    #[test]
    fn every_row_comes_back_from_its_range() {
        let rows: Vec<Leased> = (0..50).map(|n| row(n, "é\"\n".repeat(n))).collect();
        let packed = Packed::of(&rows).unwrap();
        assert_eq!(packed.frames.len(), rows.len());
        for (row, frame) in rows.iter().zip(&packed.frames) {
            let payload = unpack(&row.id, &range(&packed, frame), &frame.sha256).unwrap();
            assert_eq!(payload.body, row.body);
            assert_eq!(payload.metadata.get(), row.metadata);
        }
        let (first, second) = (&packed.frames[0], &packed.frames[1]);
        assert!(unpack("0", &range(&packed, second), &first.sha256).is_err());
        assert!(unpack("0", b"no frame", &first.sha256).is_err());
    }

    #[test]
    fn an_object_takes_no_more_than_its_limit() {
        // Digits of a hash do not compress below half.
        let noise: String = (0..20_000).map(|n: u64| sha256(&n.to_be_bytes())).collect();
        let rows: Vec<Leased> = (0..30)
            .map(|n| row(n, noise.get(n..).unwrap().to_owned()))
            .collect();
        let packed = Packed::of(&rows).unwrap();
        assert!(packed.bytes.len() <= OBJECT_BYTES);
        assert!(packed.frames.len() < rows.len(), "{}", packed.bytes.len());
    }

    #[test]
    fn a_frame_that_unpacks_to_more_than_the_cap_is_refused() {
        let bomb = vec![b' '; PAYLOAD_BYTES + 1];
        let frame = zstd::bulk::compress(&bomb, LEVEL).unwrap();
        assert!(frame.len() < 1_000);
        assert!(matches!(
            unpack("0", &frame, &sha256(&bomb)),
            Err(ArchiveError::Codec(_))
        ));
    }
}
