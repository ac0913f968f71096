//! Shows a message as JSON, by the mapping that protobuf has for it.
//!
//! Source: <https://protobuf.dev/programming-guides/json/>: numbers of 64 bits are texts, names are camel
//! case, and what has its default value is not there.

use std::io::Write as _;

use super::records::{Record, Records, packed};
use super::schema::{Field, Kind, Schema, camel};

/// The JSON of a message of our own.
pub(crate) fn of_proto(message: &[u8], schema: Schema) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, message, schema);
    out
}

fn object(out: &mut Vec<u8>, message: &[u8], schema: Schema) {
    out.push(b'{');
    let begin = out.len();
    for field in schema {
        let records = Records::of(message).filter_map(Result::ok);
        let mut records = records.filter(|(number, _)| *number == field.number);
        let Some((_, record)) = records.next() else {
            continue;
        };
        if out.len() > begin {
            out.push(b',');
        }
        let name: String = camel(field.name).collect();
        text(out, &name);
        out.push(b':');
        if field.is_list {
            out.push(b'[');
            value(out, field, record);
            for (_, record) in records {
                out.push(b',');
                value(out, field, record);
            }
            out.push(b']');
        } else {
            value(out, field, record);
        }
    }
    out.push(b'}');
}

/// Writes a value; all of them, where they are packed.
fn value(out: &mut Vec<u8>, field: &Field, record: Record<'_>) {
    match (field.kind, record) {
        (Kind::Message(schema), Record::Bytes(bytes)) => object(out, bytes, schema),
        (Kind::Text, Record::Bytes(bytes)) => text(out, &String::from_utf8_lossy(bytes)),
        (_, Record::Bytes(bytes)) => {
            for (place, number) in packed(bytes).enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                whole(out, field.kind, number);
            }
        }
        (_, Record::Varint(number)) => whole(out, field.kind, number),
        (_, Record::Fixed64(bits)) => plain(out, format_args!("{}", f64::from_bits(bits))),
        (_, Record::Fixed32) => plain(out, format_args!("null")),
    }
}

fn whole(out: &mut Vec<u8>, kind: Kind, number: u64) {
    match kind {
        Kind::Flag => plain(out, format_args!("{}", number != 0)),
        Kind::Unsigned => plain(out, format_args!("\"{number}\"")),
        _ => plain(out, format_args!("\"{}\"", number.cast_signed())),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    serde_json::to_writer(out, text).unwrap_or_default();
}

fn plain(out: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    out.write_fmt(words).unwrap_or_default();
}
