//! Reads protocol buffer messages field by field, as far as their bytes can be trusted.

/// One field as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Record<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    /// Text, a message or a packed list.
    Bytes(&'a [u8]),
}

/// The fields of a message in their order; ends after the first that is malformed.
#[derive(Debug, Clone)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

/// Why the bytes are no message.
pub(super) type Malformed = &'static str;

const CUT: Malformed = "it ends within a field";

impl<'a> Records<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn next_record(&mut self) -> Result<(u32, Record<'a>), Malformed> {
        let key = varint(&mut self.rest)?;
        let number = u32::try_from(key >> 3).ok();
        let number = number.filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or("a field's number is out of range")?;
        let record = match key & 7 {
            0 => Record::Varint(varint(&mut self.rest)?),
            1 => {
                let bytes: &[u8; 8] = self.rest.first_chunk().ok_or(CUT)?;
                self.rest = self.rest.get(bytes.len()..).unwrap_or_default();
                Record::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| CUT)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(CUT)?;
                self.rest = rest;
                Record::Bytes(bytes)
            }
            5 => {
                self.rest = self.rest.get(4..).ok_or(CUT)?;
                Record::Fixed32
            }
            // 3 and 4 are groups, which no message of these has.
            _ => return Err("a field has no type of proto3"),
        };
        Ok((number, record))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u32, Record<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.next_record();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

/// The numbers of a packed list; ends where one is malformed.
pub(super) fn packed(mut list: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || (!list.is_empty()).then(|| varint(&mut list).ok())?)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, after) = rest.split_first().ok_or(CUT)?;
        *rest = after;
        // What the tenth byte has beyond 64 bits is dropped, as by every other reader.
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than ten bytes")
}
