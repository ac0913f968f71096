//! Writes protocol buffer messages, as far as profile.proto and Pyroscope's queries need them.
//!
//! Zero values are left out as proto3 does, except inside packed lists, where places count.

/// One message being written.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;

impl Message {
    /// A number.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
    }

    /// A number with a fraction.
    pub(crate) fn double(&mut self, field: u32, value: f64) {
        if value.to_bits() != 0 {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(crate) fn flag(&mut self, field: u32, value: bool) {
        self.number(field, u64::from(value));
    }

    /// Text or a nested message; written even when empty, since lists count their places.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    /// A list of numbers in one field.
    pub(crate) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut list = Message::default();
        values.into_iter().for_each(|value| list.varint(value));
        if !list.0.is_empty() {
            self.message(field, &list);
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        self.varint(u64::from(field) << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.0.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.0.push(low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other side of the format, read by code that is not ours.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Decoded {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(int64, tag = "2")]
        signed: i64,
        #[prost(bool, tag = "3")]
        flag: bool,
        #[prost(string, repeated, tag = "4")]
        texts: Vec<String>,
        #[prost(uint64, repeated, tag = "5")]
        list: Vec<u64>,
        #[prost(double, tag = "6")]
        double: f64,
        #[prost(message, optional, boxed, tag = "2047")]
        inner: Option<Box<Decoded>>,
    }

    #[test]
    fn another_decoder_reads_what_was_written() {
        use prost::Message as _;
        let mut inner = Message::default();
        inner.number(1, 127);
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.number(2, (-1_i64).cast_unsigned());
        message.flag(3, true);
        message.bytes(4, b"");
        message.bytes(4, "größe".as_bytes());
        message.packed(5, [0, 128, 16_383, 16_384]);
        message.double(6, -1.5);
        message.message(2047, &inner);
        let decoded = Decoded::decode(message.as_bytes()).unwrap();
        assert_eq!(decoded.number, u64::MAX);
        assert_eq!(decoded.signed, -1);
        assert!(decoded.flag);
        assert_eq!(decoded.texts, ["", "größe"]);
        assert_eq!(decoded.list, [0, 128, 16_383, 16_384]);
        assert_eq!(decoded.double.to_bits(), (-1.5_f64).to_bits());
        assert_eq!(decoded.inner.unwrap().number, 127);
    }

    #[test]
    fn zeros_and_empty_lists_take_no_bytes() {
        let mut message = Message::default();
        message.number(1, 0);
        message.flag(3, false);
        message.double(6, 0.0);
        message.packed(5, []);
        assert!(message.as_bytes().is_empty());
    }
}
