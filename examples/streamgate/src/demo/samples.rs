//! How many samples a saved profile holds: the sum of the first column, `samples/count`, over gzipped
//! `profile.proto` (google/pprof, `proto/profile.proto`).

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::AsyncReadExt as _;

/// Largest profile that is unpacked.
const LARGEST: u64 = 256 << 20;
/// `Profile.sample`, a message.
const SAMPLE: u64 = 2;
/// `Sample.value`, one number per column.
const VALUE: u64 = 2;

/// Samples in the profile; nothing when it is no profile.
pub(super) async fn count(gzipped: &[u8]) -> Option<u64> {
    let mut profile = Vec::new();
    GzipDecoder::new(gzipped)
        .take(LARGEST)
        .read_to_end(&mut profile)
        .await
        .ok()?;
    sum(&profile)
}

fn sum(profile: &[u8]) -> Option<u64> {
    let mut total = 0_u64;
    for_each_field(profile, |number, field| {
        if let (SAMPLE, Field::Bytes(sample)) = (number, field) {
            total = total.saturating_add(first_value(sample)?);
        }
        Some(())
    })?;
    Some(total)
}

fn first_value(sample: &[u8]) -> Option<u64> {
    let mut first = None;
    for_each_field(sample, |number, field| {
        if number == VALUE && first.is_none() {
            first = match field {
                // Repeated numbers come packed or one by one; readers must take both.
                Field::Bytes(mut packed) => Some(varint(&mut packed)?),
                Field::Number(value) => Some(value),
                Field::Fixed => None,
            };
        }
        Some(())
    })?;
    first
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Visits the fields of a message; nothing when the bytes are no message or the visitor gives up.
fn for_each_field(
    mut message: &[u8],
    mut visit: impl FnMut(u64, Field<'_>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => skip(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        };
        visit(key >> 3, field)?;
    }
    Some(())
}

fn skip<'a>(message: &mut &[u8], bytes: usize) -> Option<Field<'a>> {
    *message = message.get(bytes..)?;
    Some(Field::Fixed)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Two samples of two columns, one packed (300, 1) and one unpacked (7, 1), between other fields.
    const PROFILE: &[u8] = &[
        0x0a, 0x02, 0x08, 0x01, // sample_type
        0x12, 0x08, 0x0a, 0x01, 0x05, 0x12, 0x03, 0xac, 0x02, 0x01, // packed
        0x12, 0x04, 0x10, 0x07, 0x10, 0x01, // one by one
        0x48, 0x63, // time_nanos
    ];

    #[test]
    fn first_column_is_summed_packed_or_not() {
        assert_eq!(sum(PROFILE), Some(307));
        assert_eq!(sum(&[]), Some(0));
    }

    #[test]
    fn cut_messages_are_no_profile() {
        // Cuts between fields leave a shorter message, the others none.
        for end in [3, 6, 13, 17, PROFILE.len() - 1] {
            assert_eq!(sum(&PROFILE[..end]), None, "cut at {end}");
        }
    }

    #[tokio::test]
    async fn gzip_is_unpacked_and_other_bytes_are_refused() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(PROFILE).unwrap();
        assert_eq!(count(&gzip.finish().unwrap()).await, Some(307));
        assert_eq!(count(b"<html>").await, None);
    }
}
